/* Room: reserving bytes of the budget that something else has to leave for. */
#ifndef CACHE_ROOM_H
#define CACHE_ROOM_H

#include <stdbool.h>
#include <stdint.h>

struct page_cache;

/* Reserves `len` bytes of the budget, evicting pages of that size, or sweeping
 * states that hold nothing, as needed.  budget_release() gives them back.
 * False if that is not to be had now.  May wait a moment for the reclaimer. */
bool room_reserve(struct page_cache *pc, unsigned page_shift, uint64_t len);

#endif
