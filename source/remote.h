/* Remote sources: what each kind of them offers, and what it is given.
 *
 * A remote source is a struct source (cache/source.h) whose start() says
 * PENDING, and which calls done() from the reactor's thread (source/reactor.h).
 * It has no read().  Its reopen() runs on a thread that may wait, and takes no
 * longer than a time of its own.
 *
 * It is one attempt at each read: it ends it within a deadline of its own, with
 * one of these, and delivers nothing of a read that failed or was short.
 *
 *   -ETIMEDOUT     nobody answered in time
 *   -ECONNRESET, -ECONNREFUSED, -EPIPE and others of connect(2) and send(2):
 *                  there is no connection, or it was lost
 *   -EAGAIN        the server asks to be asked later: 429, 503
 *   -EIO           the server answered an error
 *   -EACCES        it may not be read: 401, 403, a certificate that is refused
 *   -ENOENT        it is not there
 *   -ESTALE        the content is not the one that was opened
 *   -EPROTO        the server broke the protocol, or lied about what it sent
 *
 * A source over it that proves its bytes has one more:
 *
 *   -EBADMSG       what came is not what was to be read
 *
 * What is asked again, and when, is decided above it. */
#ifndef SOURCE_REMOTE_H
#define SOURCE_REMOTE_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct reactor;
struct source;

struct source_option {
  const char *key, *value;
};

/* What an image is made of, as it is configured.  All of it is the caller's,
 * and may be gone after the call that it was given to. */
struct source_uri {
  const char *text; /* may hold secrets: nobody shows it */
  const struct source_option *options;
  size_t n_options;
};

/* What was wrong, for people: the object, the act, what to do.  It has no
 * secrets: neither the user of a URI nor its query. */
struct source_fault {
  char text[256];
};

/* Sets what was wrong.  Returns `status`. */
int remote_fault(struct source_fault *fault, int status, const char *format,
                 ...) __attribute__((format(printf, 3, 4)));
int remote_no_memory(struct source_fault *fault); /* -ENOMEM */

struct source_kind {
  const char *name;           /* "http": for statistics and messages */
  const char *const *schemes; /* in small letters, up to NULL */
  const char *const *options; /* keys that it knows, up to NULL */
  uint32_t fetch_size;        /* bytes that a miss reads, if nobody says more */

  /* Whether a source may look so, as far as that can be told without asking
   * anybody: opens, resolves and reads nothing.  0, or -EINVAL with `fault`
   * set. */
  int (*check)(const struct source_uri *uri, struct source_fault *fault);

  /* Opens it, and waits for it until `deadline` (CLOCK_MONOTONIC) at most.  Any
   * thread that may wait, but the reactor's.  0, or a negative errno with
   * `fault` set. */
  int (*open)(struct reactor *r, const struct source_uri *uri,
              const struct timespec *deadline, struct source **out,
              struct source_fault *fault);
};

#ifdef __cplusplus
}
#endif

#endif
