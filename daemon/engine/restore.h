/* Restoring: a new process of the service continues with the memory that the
 * previous one has left with the service manager.
 *
 *     restore_begin        takes the descriptors, and the ledger among them
 *     restore_adopt        the cache adopts the mirrors and tables
 *     restore_take         for each image: the mirror with which it continues
 *     restore_finish       retires the mirrors that no image has taken
 *     restore_next_table   each table, for its attachment
 *
 * The process checks all descriptors and records as if a stranger had sent
 * them.  A mirror that fails a check is not used, and the log says why:
 *
 *   - If its content or its terms have changed, or an operation was under way
 *     whose state is unknown, the mirror is retired: its memory is freed,
 *     except pinned pages.
 *   - If it is not what the ledger says, or a table is missing that a client
 *     may rely on, the mirror is left alone, because its pins are unknown.  Its
 *     header tells clients to attach again, and its memory is freed with their
 *     mappings.
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

/* The descriptors that the manager passed, with their names, without listening
 * sockets.  They are taken over. */
struct restore_fds {
  const char *address; /* $NOTIFY_SOCKET; NULL: there is no manager */
  int *fds;
  char *const *names;
  unsigned n;
};

struct restore;

/* Begins; from here on `keeper` keeps what it can.  It never fails: if there is
 * nothing to restore, the log says why. */
struct restore *restore_begin(struct keeper *keeper,
                              const struct restore_fds *from);

void restore_adopt(struct restore *restore, struct page_cache *pc);

/* The mirror with which an image continues, for image_new_over(); NULL: the
 * image starts empty.  `src` is its source now. */
struct mirror *restore_take(struct restore *restore, const char *image,
                            struct source *src, unsigned page_shift,
                            uint64_t terms);

/* The name of an image whose mirror was not taken yet: of the `*i`th record or
 * a later one, after which it moves `*i`.  NULL: there is none. */
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

/* Leaves what was not taken as it is.  NULL is fine. */
void restore_free(struct restore *restore);

#ifdef __cplusplus
}
#endif

#endif
