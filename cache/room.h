/* Room: reserving bytes of the budget, if necessary by evicting. */
#ifndef CACHE_ROOM_H
#define CACHE_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct page_cache;

/* Reserves `len` bytes of the budget.  If necessary, evicts pages of that size
 * or sweeps states that hold nothing. budget_release() releases the bytes.
 * Returns false if there is no room now.  May wait a moment for the reclaimer.
 */
bool room_reserve(struct page_cache *pc, unsigned page_shift, uint64_t len);

#endif
