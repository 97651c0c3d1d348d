/* Restoring: a new process of the service goes on with what the one before has
 * left with the service manager.
 *
 *     restore_begin    what was handed over, and the ledger in it, are taken
 *     restore_adopt    its mirrors and tables are adopted by the cache
 *     restore_take     for each image: the mirror that it goes on with
 *     restore_finish   the mirrors that no image has taken are over
 *     restore_next_table   each table, for the attachment that it is
 *
 * All that was handed over is checked like a stranger's.  What does not fit is
 * cold, and a line of the log says why:
 *
 *   - A mirror of which the content or the terms are others, or in which
 *     something was under way that cannot be told: it is over.  Its memory is
 *     given back, but for what is pinned.
 *   - A mirror that is not what the ledger says, or of which a table is missing
 *     that a client may rely on: it is left alone, since nobody knows what is
 *     pinned there.  Clients that have it mapped are told to look for another
 *     one, and its memory goes with their mappings.
 *
 * One thread, before any other uses the cache. */
#ifndef DAEMON_ENGINE_RESTORE_H
#define DAEMON_ENGINE_RESTORE_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/page_cache.h"
#include "cache/source.h"
#include "daemon/engine/keeper.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Descriptors that the process was handed, with their names: not those of
 * sockets to listen at.  They are taken over. */
struct restore_fds {
  const char *address; /* $NOTIFY_SOCKET; NULL: there is no manager */
  int *fds;
  char *const *names;
  unsigned n;
};

struct restore;

/* Begins; `keeper` keeps from here on what it can.  Never fails: there may be
 * nothing to restore, and the log says why. */
struct restore *restore_begin(struct keeper *keeper,
                              const struct restore_fds *from);

void restore_adopt(struct restore *restore, struct page_cache *pc);

/* The mirror that an image goes on with, for image_new_over(); NULL: it begins
 * cold.  `src` is what it is read from now. */
struct mirror *restore_take(struct restore *restore, const char *image,
                            struct source *src, unsigned page_shift,
                            uint64_t terms);

/* The name of an image that might go on with a mirror and has not taken it, the
 * `*i`th of all or a later one; moves `*i` behind it.  NULL: there is none. */
const char *restore_next_name(const struct restore *restore, uint32_t *i);

void restore_finish(struct restore *restore);

/* A table, which is the caller's from here on. */
struct restored_table {
  struct shared_pins *lease;
  uint32_t kept;               /* its record in the keeper, plus 1 */
  struct keeper_client client; /* the pidfd is -1 where there is none */
};

/* False: there is none left. */
bool restore_next_table(struct restore *restore, struct restored_table *out);

/* What was not taken is left as it is.  NULL is fine. */
void restore_free(struct restore *restore);

#ifdef __cplusplus
}
#endif

#endif
