/* An image of a Ceph cluster, open to be read, with the connection that it
 * needs: what librados and librbd are asked for.
 *
 * librbd does not tell a reader that an image was removed, or a snapshot: what
 * is not there any more reads as zeros.  So a client that may do that
 * watches the image's header.  Ceph refuses to remove an image that is watched,
 * and says when its header changes.
 *
 *   H1  An image without a snapshot is watched, or not opened.
 *   H2  From each change of the header on, and from the moment at which nobody
 *       watched any more, an image is doubted until ceph_image_look() has
 *       looked: what was read meanwhile is not to be believed.
 *   H3  A snapshot that may not be watched is looked at now and then. */
#ifndef SOURCE_CEPH_IMAGE_H
#define SOURCE_CEPH_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "source/rbd_target.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ceph_image;

/* A read, from ceph_image_read() to `done`. */
struct ceph_read {
  uint64_t offset;
  void *buf; /* librbd's until `done`, however late that comes */
  size_t len;
  /* Called once, by a thread of librbd's, which must not wait there.  The
   * struct is the caller's again, and may be gone after the call. */
  void (*done)(struct ceph_read *r);
  int status; /* 0 or a negative errno, as source/remote.h has them */
  struct ceph_image *image; /* private */
};

/* Connects and opens.  Waits, a few times as long as an attempt may take.
 * 0, or a negative errno with `fault` set. */
int ceph_image_open(const struct rbd_target *t, struct ceph_image **out,
                    struct source_fault *fault);

/* It is counted.  The last one closes it, and waits for that as for its
 * opening.
 */
struct ceph_image *ceph_image_ref(struct ceph_image *i);
void ceph_image_unref(struct ceph_image *i); /* NULL is fine */

/* Never changes. */
uint64_t ceph_image_size(const struct ceph_image *i);

/* What tells what was opened from all other snapshots of all clusters; "" of
 * an image without a snapshot, which anybody may write to. */
const char *ceph_image_identity(const struct ceph_image *i);

/* Whether it is known that a range has no bytes.  Any thread. */
bool ceph_image_is_zeros(const struct ceph_image *i, uint64_t offset,
                         uint64_t len);

/* Begins a read.  0; or a negative errno, and `done` is not called: -EAGAIN if
 * too much is being read already, also of what nobody waits for any more.  It
 * does not wait. */
int ceph_image_read(struct ceph_image *i, struct ceph_read *r);

/* H2.  Any thread. */
bool ceph_image_is_doubted(const struct ceph_image *i);

/* Whether a look would have something to do: H2, H3. */
bool ceph_image_wants_look(struct ceph_image *i);

/* Looks whether what is there by the target's names is still what was opened.
 * Waits.  0 with `*is_other` set; or a negative errno: that cannot be told, or
 * nothing is there. */
int ceph_image_look(struct ceph_image *i, bool *is_other);

#ifdef __cplusplus
}
#endif

#endif
