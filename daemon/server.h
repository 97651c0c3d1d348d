/* The server: images in, listening sockets in, clients served.
 *
 * It opens nothing by itself, so that a test gives it sources that do as they
 * are told and runs it on a thread.  One thread makes, starts, serves and
 * ends it:
 *
 *     server_new -> server_start -> server_serve -> server_shutdown
 *                -> server_free
 *
 * Between start and shutdown images and listeners are added and removed; that,
 * and server_stop(), may come from elsewhere. */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/source.h"
#include "daemon/limits.h"
#include "daemon/liveness_thread.h"
#include "daemon/net/listener.h"

#ifdef __cplusplus
extern "C" {
#endif

struct change_maker;
struct finder_place;
struct image_rule;
struct retrying;
struct rule;
struct metrics_text;
struct server;

struct server_image {
  const char *name; /* copied */
  struct source *source;
  bool share;         /* local clients may read its mirror themselves */
  int missing;        /* why it cannot be opened now, an errno: `source` has no
                         bytes until it is reopened; 0: it is there */
  const char *path;   /* copied; for messages, if it is missing; or NULL */
  struct rule *allow; /* its readers, of which it has a reference; NULL: those
                         of all that have no rule of their own */
  bool warm;          /* it is read into the cache when it is there */
  uint32_t page_size; /* 0: as all */
  struct retrying *retrying; /* what counts its requests; it is taken over with
                                `source`.  NULL: nobody counts */
};

/* A listener that hears whether the threads which must not hang do not. */
struct server_watchdog {
  int interval_ms;          /* between two calls; 0: nobody */
  void (*alive)(void *arg); /* on the thread of server_serve() */
  void *arg;
};

struct restore_fds;

/* A listener that hears that it drains: for `timeout_ms`, or, negative,
 * without an end, and of how many clients.  On the thread of server_serve(). */
struct server_drain_watch {
  void (*begun)(void *arg, int timeout_ms, unsigned n_clients); /* or NULL */
  void *arg;
};

struct server_config {
  struct limits limits;
  uint64_t cache_size; /* bytes */
  uint32_t page_size;
  unsigned n_workers;
  const struct server_image *images;
  unsigned n_images;
  /* Describes image `i` anew, as one that is missing for the reason `error`,
   * and `why` in words: there can be no mirror of what its source has now.  0,
   * or a negative errno: then the server is not made.  Or NULL. */
  int (*miss)(void *arg, unsigned i, int error, const char *why,
              struct server_image *out);
  void *arg;
  const struct finder_place *place; /* where more images are found: see
                                       finder.h; or NULL */
  bool finds;                       /* whether there are such at the start, */
  bool shares_found;                /* and whether one of them may be shared */
  struct listener *const *listeners;
  unsigned n_listeners;
  struct rule *allow; /* of reading images that have no rule of their own, of
                         which it has a reference; or NULL: see rule.h */
  struct rule *admin; /* of changes, of which it takes a reference;
                         or NULL: see access.h */
  struct server_watchdog watchdog;
  const struct restore_fds *restore; /* what the process before has left, and
                                        what keeps that which this one leaves;
                                        NULL: neither */
  struct timespec restore_until;     /* how long that may take; see there */
  struct server_drain_watch drain_watch;
  struct liveness_thread reactor; /* which is to be watched, too */
};

/* Makes a server.  The sources are its own from here, also on failure; of the
 * listeners it takes references.  0, or a negative errno with the reason in
 * `err`. */
int server_new(const struct server_config *config, struct server **out,
               char *err, size_t err_len);

/* Starts the threads.  0 or a negative errno.  Either way server_shutdown() is
 * due. */
int server_start(struct server *s);

/* Accepts connections until server_stop() is called. */
void server_serve(struct server *s);

/* Adds an image, whose source is the server's from here, also on failure, in
 * the place of one that was found.  A session that has opened that one finds a
 * new epoch, if the image is there and its rule, if any, was set before; else
 * it has to open the image again.  0 or a negative errno; -EEXIST: there is one
 * of that name.  Any thread. */
int server_add_image(struct server *s, const struct server_image *image);

/* Gives an image another source, share and path, but no other rule: a session
 * that has opened it finds a new epoch.  The source is taken over, also on
 * failure; `image->missing` is 0. Blocks.  0 or a negative errno, and then all
 * is as before; -ENOENT: there is none of that name.  Any thread. */
int server_replace_image(struct server *s, const struct server_image *image);

/* Removes an image: nobody opens it any more, and sessions that have opened it
 * can read no more than what is under way.  False: there is none of that name.
 * Any thread. */
bool server_remove_image(struct server *s, const char *name);

/* Sets other rules of reading: see images_set_rules() in images.h.  A peer that
 * may read an image no more is cut off from it, and the others find a new
 * epoch. Blocks, but on no source.  Any thread. */
void server_set_rules(struct server *s, struct rule *all,
                      const struct image_rule *list, size_t n);

/* Sets another rule of changes, or none (NULL).  Any thread. */
void server_set_admin(struct server *s, struct rule *rule);

/* How many images of directories may be open at once.  Any thread. */
unsigned server_most_found(const struct server *s);

/* What `place` finds, or how, is not what it was: images of it that are open
 * are looked for again, and those that it has no more are removed.  Blocks.
 * Any thread, one at a time. */
void server_review_found(struct server *s, bool shares);

/* Has Add and Remove of peers be made; before server_serve(), and as long as
 * the server lives. */
void server_set_change_maker(struct server *s,
                             const struct change_maker *maker);

/* Sets the size of the cache, see page_cache_set_budget().  What connections
 * may hold beside it stays what it was.  0 or a negative errno.  Any thread. */
int server_set_cache_size(struct server *s, uint64_t size);

/* Accepts what connects to these from now on, and to no others.  Those that it
 * had and has no more are closed; a client that had connected to one by then
 * stays. It takes references, and waits for the main loop.  One thread at a
 * time, but not that of server_serve().
 *
 * 0; or a negative errno, and then all is as before.  -ECANCELED: the server
 * stops. */
int server_set_listeners(struct server *s, struct listener *const *listeners,
                         unsigned n);
/* Signs of life of the threads that must not hang, see liveness.h.  Any thread,
 * from server_start() to server_shutdown(), as for the next two. */
uint64_t server_ask_liveness(struct server *s);
const char *server_next_silent(struct server *s, uint64_t question,
                               unsigned *next);

/* Why it is not ready: calls fn() with one reason after the other, which are
 * sentences without a path in them.  It is ready when it accepts connections
 * and each of its images was there once. */
void server_list_unready(struct server *s,
                         void (*fn)(void *arg, const char *reason), void *arg);

/* All metrics, for metrics_text_next().  NULL: out of memory. */
struct metrics_text *server_metrics_text(struct server *s);

/* Takes no new clients from here on, and makes server_serve() return when those
 * that have images open have left, or after `timeout_ms`; if that is negative,
 * not before.  Called again it is the new time that counts.  Any thread, and
 * signal handlers. */
void server_begin_drain(struct server *s, int timeout_ms);

/* What a service manager's request to end is to do: to drain for so long, and
 * to stop when it comes again; 0: to stop.  Any thread. */
void server_set_drain_timeout(struct server *s, int timeout_ms);

/* Does that.  Any thread, and signal handlers. */
void server_terminate(struct server *s);

/* Makes server_serve() return, now or when it is called.  Any thread, and
 * signal handlers. */
void server_stop(struct server *s);

/* An orderly stop: accepts no more, answers what is in flight, for
 * limits.stop_timeout_ms at most, closes, ends the threads. */
void server_shutdown(struct server *s);

/* NULL is fine. */
void server_free(struct server *s);

#ifdef __cplusplus
}
#endif

#endif
