/* The budget: see budget.c. */
#ifndef CACHE_BUDGET_H
#define CACHE_BUDGET_H

#include "cache/mirror.h"

/* Reserves `len` bytes of the budget if they are free; see room.h for the other
 * case.  Wakes the evictor when little is left. */
bool budget_try_reserve(struct page_cache *pc, uint64_t len);
void budget_release(struct page_cache *pc, uint64_t len);

/* The same; returns how many bytes are missing, 0: they are reserved.
 * `*is_garbage`: a sweep would free as many. */
uint64_t budget_reserve_or_miss(struct page_cache *pc, uint64_t len,
                                bool *is_garbage);

/* Whether room for `len` bytes is to be had at all: not while the evictor takes
 * the cache down to a smaller budget. */
bool budget_may_fit(struct page_cache *pc, uint64_t len);

/* More is in the account than the budget, which was set lower. */
bool budget_is_over_locked(const struct page_cache *pc);

/* Sets it.  Wakes the evictor.  0 or -ENOMEM: the budget is what it was. */
int budget_set(struct page_cache *pc, uint64_t budget);

/* For the table of another process, out of what is held back: it is refused
 * rather than anything is evicted. */
bool budget_reserve_table(struct page_cache *pc, uint64_t len);

uint64_t budget_high_free(const struct page_cache *pc);
bool budget_wants_room_locked(const struct page_cache *pc, uint64_t free_len);

/* Whether `len` bytes of states that hold nothing are worth a sweep. */
bool budget_has_much_garbage(const struct page_cache *pc, uint64_t len);

void budget_add_mirror_locked(struct mirror *m);
void budget_remove_mirror_locked(struct mirror *m);
void budget_uncharge_pages_locked(struct mirror *m, uint64_t len);

/* Memory of states, and of that what holds nothing; of a solid mirror there is
 * no such: its states have their memory for good, and are in its account. */
void budget_charge_meta_locked(struct mirror *m, uint64_t len);
void budget_uncharge_meta_locked(struct mirror *m, uint64_t len);
void budget_add_garbage_locked(struct mirror *m);
void budget_remove_garbage_locked(struct mirror *m, uint64_t len);

#endif
