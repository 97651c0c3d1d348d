/* Evicting: see evict.c. */
#ifndef CACHE_EVICT_H
#define CACHE_EVICT_H

#include "cache/mirror.h"

/* The most pages in one batch, which needs one barrier. */
#define EVICT_MAX_BATCH 256

enum evict_order {
  EVICT_BY_POLICY,
  EVICT_IN_TURN /* also pages that the policy would keep, so that it finds every
                   page that is not pinned */
};

/* Tries to evict about `want` bytes.  Returns how many pages it tried; some of
 * them may have been pinned. */
size_t evict(struct page_cache *pc, uint64_t want, enum evict_order order);

/* Drops the resident pages of a range: punches the pages that are not pinned,
 * and makes the others STALE.  Returns false if there was no memory to do this
 * for all pages; then the image needs a new epoch. */
bool evict_range(struct mirror *m, uint64_t first, uint64_t count);

/* Records that a page is STALE.  False: there is no memory for it. */
bool evict_note_stale_locked(struct mirror *m, uint64_t page);

/* Checks up to a batch of the STALE pages again, and punches those whose pins
 * have ended.  False: there is no STALE page. */
bool evict_stale(struct mirror *m);

#endif
