/* The NBD source: an export of an NBD server, read through libnbd.
 *
 * URIs and options are in source/nbd_target.h.  Reads are spread over up to
 * four connections, where the server says that this is safe (multi-conn); the
 * first of them is made when the source is opened, and more when reads meet.
 *
 * A read has `attempt-timeout` from start() on, also to wait for a connection.
 * One that is late ends its connection, and with it the other reads that are
 * under way there: those fail with -ECONNRESET.  The next read connects anew.
 *
 * NBD tells no version of what it serves.  A server that comes back with
 * another size, or another name or description of the export, ends the source:
 * -ESTALE, and reopen() gives its successor.  What else may have changed nobody
 * can tell: the content of an export has to stay, or to be verified above. */
#ifndef SOURCE_NBD_H
#define SOURCE_NBD_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct source_kind nbd_source_kind;

#ifdef __cplusplus
}
#endif

#endif
