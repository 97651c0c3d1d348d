/* Evicting: see evict.c. */
#ifndef CACHE_EVICT_H
#define CACHE_EVICT_H

#include "cache/mirror.h"

/* Pages in one batch, one barrier. */
#define EVICT_MAX_BATCH 256

enum evict_order {
  EVICT_BY_POLICY,
  EVICT_IN_TURN /* also what the policy would keep: among pages that are pinned
                   it finds each that is not */
};

/* Tries to evict about `want` bytes; returns how many pages it looked at, some
 * of which may have turned out to be pinned. */
size_t evict(struct page_cache *pc, uint64_t want, enum evict_order order);

/* Drops the resident pages of a range: punches those that are not pinned, and
 * makes the others STALE.  False: not all could be, for want of memory, and
 * the image needs a new epoch. */
bool evict_range(struct mirror *m, uint64_t first, uint64_t count);

/* Remembers that a page is STALE.  False: there is no memory for it. */
bool evict_note_stale_locked(struct mirror *m, uint64_t page);

/* Looks again at up to a batch of the pages that are STALE, and punches those
 * whose pins have ended.  False: there is none. */
bool evict_stale(struct mirror *m);

#endif
