/* Remote sources, as the daemon opens them: the thread that they share, and the
 * sources that are being opened.  Verified files are opened here too, because
 * their hash trees may be remote.
 *
 * Open sources need the reactor.  So the caller closes all of them before
 * remotes_free(), except those that are still being opened: a caller that gave
 * up on one left a reference to its name with the thread that closes it.
 * remotes_free() waits for all names.
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
struct verifier;

/* The name of a source: kind, URI and options; or a path.  It has a reference
 * count. */
struct remote;

/* Starts the reactor's thread.  0 or a negative errno. */
int remotes_new(struct remotes **out);
void remotes_free(struct remotes *all); /* NULL is fine */

/* The reactor's thread, for liveness.h. */
struct liveness_thread remotes_thread(struct remotes *all);

/* Copies its arguments; without a kind the URI's text is a path.  NULL: out of
 * memory. */
struct remote *remotes_name(struct remotes *all, const struct source_kind *kind,
                            const struct source_uri *uri);

/* Makes the source of this name verified, by a verifier that is loaded; `image`
 * is for messages.  It takes a
 * reference to the tree, which may be remote or a file whatever the image is;
 * NULL: the tree is in the image.  Before the source is opened.  0 or -ENOMEM.
 */
int remotes_verify(struct remote *r, const struct verifier *verifier,
                   const char *image, const uint8_t *root, size_t root_len,
                   struct remote *tree, uint64_t tree_offset);
struct remote *remotes_ref(struct remote *r);
void remotes_unref(struct remote *r); /* NULL is fine */

/* The source of this name is served only after all of it was read and has this
 * hash.  Only remotes_open_later() may open it.  0 or -ENOMEM. */
int remotes_verify_whole(struct remote *r, const struct verifier *verifier,
                         const char *image, const uint8_t sha256[32]);

/* Opens the source, and waits until `deadline` (CLOCK_MONOTONIC).  A remote
 * source repeats reads that fail (source/retrying.h).  0; or a negative errno,
 * with the reason in `fault` if the source gave one. */
int remotes_open(struct remote *r, const struct timespec *deadline,
                 struct source **out, struct source_fault *fault);

/* For module_load_by(), with the struct remotes: makes a thread call
 * load(what), and waits for its end.  The thread is one that may map code, as
 * the reactor and the threads that it starts may.  The reactor continues
 * meanwhile. */
void remotes_load(void *all, void (*load)(void *what), void *what);

/* The counts of all sources of this name; the name owns them.  NULL: it is a
 * file. */
struct retrying *remotes_retrying(const struct remote *r);

/* Makes a source without bytes, for one that cannot be opened now.  Its
 * reopen() gives the successor when that can be opened, and until then says why
 * not; -EINPROGRESS while the image is read to compare its hash.  0 or
 * -ENOMEM. */
int remotes_open_later(struct remote *r, struct source **out);

#ifdef __cplusplus
}
#endif

#endif
