/* Images that another cachetd serves, or several: cachet:, cachets: and
 * cachet+unix: URIs, see source/parent_target.h.
 *
 * Options: `parents`, further URIs, of daemons that serve the same content;
 * `ca`, `cert` and `key`, files for TLS; `attempt-timeout`, how long an attempt
 * at a read may take, in seconds, with the connection that it may need.
 *
 *   P1  Blocks are spread over the parents (source/parent_choice.h).  One that
 *       is down, that failed the read, or is late, is passed over for the next
 *       in the order of the block; one that is late is asked again after a
 *       while.
 *   P2  Where the parents do not say what tells their contents apart, the
 *       source ends, with -ESTALE, when one of them has another epoch.  It does
 *       so too when a connection was lost and the next one cannot prove, by the
 *       number of the epoch's invalidations, that nothing was missed.
 *   P3  What is cached is the parents' and the image's above: nothing is kept
 *       here, and the parents' memory is never mapped.
 *   P4  Where they say it (the identity in proto/cachet.proto), the source has
 *       the content of its leader, the first that was there when it was opened.
 *       One that has another content, or says none, is asked as little as one
 *       that is down.  The source ends when the leader has another content, or
 *       when for the time of an attempt all that are there have. */
#ifndef SOURCE_PARENT_H
#define SOURCE_PARENT_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct source_kind parent_source_kind;

#ifdef __cplusplus
}
#endif

#endif
