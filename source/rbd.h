/* The RBD source: an image of a Ceph cluster, or a snapshot of one, read
 * through librbd.
 *
 * URIs and options are in source/rbd_target.h.  A snapshot never changes.  An
 * image without one may be written to, and what is read of it is of the moment;
 * it is a new version when its header changes, as by a resize.
 *
 * A read has `attempt-timeout` from start() on.  librbd writes where it was
 * told to until it has ended a read by itself, however late: so that is never
 * the caller's buffer, but one which the read owns and librbd is left with.
 *
 * What waits for the cluster, to open, to look and to close, is on a thread of
 * its own, begun by the reactor's: librados makes its threads there. */
#ifndef SOURCE_RBD_H
#define SOURCE_RBD_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct source_kind rbd_source_kind;

#ifdef __cplusplus
}
#endif

#endif
