/* Remote sources: what each kind of remote source provides, and what it gets.
 *
 * A remote source is a struct source (cache/source.h) whose start() returns
 * PENDING, and which calls done() on the reactor's thread (source/reactor.h).
 * It has no read().  Its reopen() runs on a thread that may wait, and has a
 * time limit of its own.
 *
 * It makes one attempt at each read, with a time limit of its own.  If the
 * attempt fails or is short, the source returns no bytes.  The attempt ends
 * with one of these errors:
 *
 *   -ETIMEDOUT     no answer in time
 *   -ECONNRESET, -ECONNREFUSED, -EPIPE and other errors of connect(2) and
 *                  send(2): there is no connection, or it was lost
 *   -EAGAIN        the server asks to try later: 429, 503
 *   -EREMOTEIO     the server answered with an error that says nothing about
 *                  the range: a part of it would not be read either
 *   -EIO           it could not read all of the range; perhaps parts of it
 *   -EACCES        not permitted: 401, 403, a certificate that is refused
 *   -ENOENT        not found
 *   -ESTALE        the content is not the one that was opened
 *   -EPROTO        the server violated the protocol, or sent wrong bytes
 *
 * A source over it that verifies its bytes has one more:
 *
 *   -EBADMSG       the bytes do not match their hash
 *
 * The sources above it decide which reads are repeated, and when. */
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

/* The configuration of a source.  It belongs to the caller, and may be freed
 * after the call that it is passed to. */
struct source_uri {
  const char *text; /* may hold secrets: no message shows it */
  const struct source_option *options;
  size_t n_options;
};

/* An error message for people: the object, the operation, and what to do.  It
 * contains no secrets: neither the user of a URI nor its query. */
struct source_fault {
  char text[256];
};

/* Sets the error message.  Returns `status`. */
int remote_fault(struct source_fault *fault, int status, const char *format,
                 ...) __attribute__((format(printf, 3, 4)));
int remote_no_memory(struct source_fault *fault); /* -ENOMEM */

/* Refuses a relative path: a source looks it up again whenever it connects, and
 * the process may have changed its working directory by then.  0, or -EINVAL
 * with `fault` set. */
int remote_check_path(const char *key, const char *path,
                      struct source_fault *fault);

struct source_kind {
  const char *name;           /* "http": for statistics and messages */
  const char *const *schemes; /* in small letters, up to NULL */
  const char *const *options; /* keys that it knows, up to NULL */
  uint32_t fetch_size;        /* bytes that a miss reads by default */

  /* Whether the configuration is valid, as far as this is known without asking
   * a server: it opens, resolves and reads nothing. 0, or -EINVAL with `fault`
   * set. */
  int (*check)(const struct source_uri *uri, struct source_fault *fault);

  /* Opens a source, and waits for it until `deadline` (CLOCK_MONOTONIC) at
   * most.  Called on any thread that may wait, except the reactor's. 0, or a
   * negative errno with `fault` set. */
  int (*open)(struct reactor *r, const struct source_uri *uri,
              const struct timespec *deadline, struct source **out,
              struct source_fault *fault);
};

#ifdef __cplusplus
}
#endif

#endif
