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
 *   P2  The source ends, with -ESTALE, when one of its parents has another
 *       epoch.  It does so too when a connection was lost and the next one
 *       cannot prove, by the number of the epoch's invalidations, that nothing
 *       was missed.
 *   P3  What is cached is the parents' and the image's above: nothing is kept
 *       here, and the parents' memory is never mapped. */
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
