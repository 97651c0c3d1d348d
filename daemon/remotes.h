/* Remote sources, as the daemon opens them: the thread that they share, and
 * those that are being opened.  Files that are verified are opened by them,
 * too, as their hash trees may be remote.
 *
 * What is opened lives by the reactor.  So remotes_free() comes when all of it
 * is closed, but for what is being opened still: a caller that gave that up
 * left a name of it to the thread that closes it, and remotes_free() waits for
 * all names.
 *
 * Any thread. */
#ifndef DAEMON_REMOTES_H
#define DAEMON_REMOTES_H

#include <time.h>

#include "cache/source.h"
#include "daemon/liveness_thread.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct remotes;
struct retrying;

/* The name of a source: kind, URI and options; or a path.  It is counted. */
struct remote;

/* Starts the reactor's thread.  0 or a negative errno. */
int remotes_new(struct remotes **out);
void remotes_free(struct remotes *all); /* NULL is fine */

/* The reactor's thread, as one that must not hang. */
struct liveness_thread remotes_thread(struct remotes *all);

/* Copies what it is given; without a kind the URI's text is a path.  NULL: out
 * of memory. */
struct remote *remotes_name(struct remotes *all, const struct source_kind *kind,
                            const struct source_uri *uri);

/* Has what is opened by the name be verified, as the image of that name.  The
 * tree, of which it takes a reference, is remote if the image is; NULL: it is
 * in the image.  Before it is opened.  0 or -ENOMEM. */
int remotes_verify(struct remote *r, const char *image, const uint8_t *root,
                   size_t root_len, struct remote *tree, uint64_t tree_offset);
struct remote *remotes_ref(struct remote *r);
void remotes_unref(struct remote *r); /* NULL is fine */

/* Has what is opened by the name be served only once all of it was read, and
 * has that hash.  It is opened by remotes_open_later() alone.  0 or -ENOMEM. */
int remotes_verify_whole(struct remote *r, const char *image,
                         const uint8_t sha256[32]);

/* Opens it, and waits until `deadline` (CLOCK_MONOTONIC).  What is open and
 * remote tries again what fails (source/retrying.h).  0, or a negative errno,
 * with words in `fault` if it is the source's. */
int remotes_open(struct remote *r, const struct timespec *deadline,
                 struct source **out, struct source_fault *fault);

/* For registry_load_by(), with the struct remotes: has a thread call load(what)
 * that may map code, as the reactor may and those that it begins, and waits for
 * the end of that.  The reactor goes on meanwhile. */
void remotes_load(void *all, void (*load)(void *what), void *what);

/* What all sources that are opened by it count in; it is the name's.  NULL: it
 * is a file. */
struct retrying *remotes_retrying(const struct remote *r);

/* A source for what cannot be opened now: it has no bytes.  reopen() gives its
 * successor once it can be opened, and until then says why not; -EINPROGRESS
 * while it is read to compare its hash.  0 or -ENOMEM.
 */
int remotes_open_later(struct remote *r, struct source **out);

#ifdef __cplusplus
}
#endif

#endif
