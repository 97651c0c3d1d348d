/* A source whose bytes a server of HTTP has: one version of one object.
 *
 * Kinds of sources that speak HTTP make a target, which says where the object
 * is and what a request for it needs; the source asks for ranges of it and
 * takes nothing that is not proved to be of the version that was opened
 * (source/http_answer.h). */
#ifndef SOURCE_HTTP_SOURCE_H
#define SOURCE_HTTP_SOURCE_H

#include <stdbool.h>
#include <sys/queue.h>
#include <time.h>

#include <event2/event_struct.h>

#include "source/http_client.h"

#ifdef __cplusplus
extern "C" {
#endif

struct source;
struct source_fault;

/* A get that failed, and that its kind keeps until it knows more. */
struct http_pause {
  /* Ends it, once, on the reactor's thread: whether to ask again. */
  void (*over)(struct http_pause *pause, bool again);
  /* The kind's. */
  LIST_ENTRY(http_pause) link;
  struct event timer;
};

enum http_advice {
  HTTP_GIVE_UP,
  HTTP_ASK_AGAIN, /* something is different now */
  HTTP_PAUSE,     /* over() comes later, and soon */
};

/* Where an object is.  Strings are in memory from malloc(3). */
struct http_target {
  char *url;
  char *shown; /* the same without secrets, for people */
  bool follows_redirects;
  unsigned timeout_ms; /* of an attempt: C3 of source/http_client.h */
  unsigned watch_ms;   /* how often reopen() asks; 0: only when a read has found
                          the object changed, or gone */
  struct http_client_options client;

  /* What a kind adds, on the reactor's thread; all may be NULL. */
  struct http_target_ops {
    /* 0 or a negative errno: adds headers to a request that is about to go, and
     * may note something in its `mark`. */
    int (*add_headers)(void *arg, struct http_get *get,
                       struct curl_slist **headers);
    /* Looks at a get that failed, and may change its `status` and `why`. */
    enum http_advice (*failed)(void *arg, struct http_get *get,
                               struct http_pause *pause);
    /* Any thread. */
    void (*free)(void *arg);
  } ops;
  void *arg;
};

/* Frees what the target owns.  The struct itself is the caller's. */
void http_target_fini(struct http_target *target);

/* Opens the object, and waits for that until `deadline` at most.  The source
 * takes the target over, also on failure.  0, or a negative errno with `fault`
 * set. */
int http_source_open(struct reactor *r, const struct http_target *target,
                     const struct timespec *deadline, struct source **out,
                     struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif
