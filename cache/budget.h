/* The budget: the account of the memory of all mirrors.  See budget.c. */
#ifndef CACHE_BUDGET_H
#define CACHE_BUDGET_H

#include "cache/mirror.h"

/* Reserves `len` bytes of the budget if they are free; room_reserve() (room.h)
 * makes room first.  Wakes the evictor if little is left. */
bool budget_try_reserve(struct page_cache *pc, uint64_t len);
void budget_release(struct page_cache *pc, uint64_t len);

/* Does the same, and returns how many bytes are missing; 0 if they were
 * reserved.  Sets `*is_garbage` if a sweep is due that would free as many.
 * BUDGET_NEVER_FITS: no eviction would make that room, because it is more than
 * the budget, or because the evictor shrinks the cache to a smaller one. */
#define BUDGET_NEVER_FITS UINT64_MAX
uint64_t budget_reserve_or_miss(struct page_cache *pc, uint64_t len,
                                bool *is_garbage);

/* Whether the account is over the budget, because the budget was made smaller.
 */
bool budget_is_over_locked(const struct page_cache *pc);

/* Sets the budget and wakes the evictor. 0, or -ENOMEM and the budget is
 * unchanged. */
int budget_set(struct page_cache *pc, uint64_t budget);

/* Reserves the memory of a table for another process, from the part of the
 * budget that is held back.  It evicts nothing; it fails instead. */
bool budget_reserve_table(struct page_cache *pc, uint64_t len);

uint64_t budget_high_free(const struct page_cache *pc);

/* What is used, without the garbage that is about to be swept. */
uint64_t budget_lasting_locked(const struct page_cache *pc);
bool budget_wants_room_locked(const struct page_cache *pc, uint64_t free_len);

/* Whether `len` bytes of states that hold nothing justify a sweep. */
bool budget_has_much_garbage(const struct page_cache *pc, uint64_t len);

void budget_add_mirror_locked(struct mirror *m);
void budget_remove_mirror_locked(struct mirror *m);
void budget_uncharge_pages_locked(struct mirror *m, uint64_t len);

/* Whether the pages of a mirror may be mapped once more, to be written through
 * that mapping: page tables are not in the budget.  The answer stays true. */
bool budget_allows_writing_mapped(struct mirror *m);

/* Charges for page states, and for those of them that hold nothing.  A solid
 * mirror is charged for all its states once, and these calls do nothing for it.
 */
void budget_charge_meta_locked(struct mirror *m, uint64_t len);
void budget_uncharge_meta_locked(struct mirror *m, uint64_t len);
void budget_add_garbage_locked(struct mirror *m);
void budget_remove_garbage_locked(struct mirror *m, uint64_t len);

#endif
