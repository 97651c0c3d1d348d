/* Evicting: see evict.c. */
#ifndef CACHE_EVICT_H
#define CACHE_EVICT_H

#include "cache/mirror.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The most pages in one batch, which needs one barrier. */
#define EVICT_MAX_BATCH 256

/* With so many pin tables of a mirror that other processes have, no write waits
 * for the punches of a batch. */
#define EVICT_MANY_LENT 16

enum evict_order {
  EVICT_BY_POLICY,
  EVICT_IN_TURN /* also pages that the policy would keep, so that it finds every
                   page that is not pinned */
};

/* The used bits of the policy of a page cache, `arg`: whether the accessed byte
 * says that the page was used.  Clears it.  Readers store to it without a lock.
 * A use that falls between the load here and the store is lost, which costs at
 * most a miss.  The caller holds the lock, so the page of the key is RESIDENT
 * or being moved to or from there (C1), and its mirror exists. */
bool evict_take_used(void *arg, uint64_t key);

/* The unused pages of a group, for the same policy: those that are RESIDENT and
 * whose accessed byte does not say that they were used.  As above. */
uint32_t evict_unused_pages(void *arg, uint64_t first);

/* Asks for the memory of both bytes of a page, for the same policy. */
void evict_expect(void *arg, uint64_t key);

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

#ifdef __cplusplus
}
#endif

#endif
