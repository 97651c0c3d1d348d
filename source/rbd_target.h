/* Which image of a Ceph cluster a source is of, and the user that asks for it.
 *
 *   rbd:POOL/IMAGE[@SNAPSHOT]
 *   rbd:POOL/NAMESPACE/IMAGE[@SNAPSHOT]
 *
 * Names are percent-encoded where they have to be: each part is decoded by
 * itself.  A URI names no file, no user and no setting, as those of other
 * programs do behind a colon: these are options. */
#ifndef SOURCE_RBD_TARGET_H
#define SOURCE_RBD_TARGET_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct rbd_target {
  char *pool, *image;
  char *name_space; /* "": the pool's own */
  char *snapshot;   /* NULL: the image as it is */
  char *conf, *id;
  char *keyring;  /* NULL: as `conf` says */
  int timeout_ms; /* of one attempt: to open, and of each read */
};

/* 0; or -ENOMEM or -EINVAL with `fault` set.  Opens nothing. */
int rbd_target_new(const struct source_uri *uri, struct rbd_target **out,
                   struct source_fault *fault);

/* NULL: no memory. */
struct rbd_target *rbd_target_copy(const struct rbd_target *t);

void rbd_target_free(struct rbd_target *t); /* NULL is fine */

#ifdef __cplusplus
}
#endif

#endif
