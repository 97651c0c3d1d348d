/* Rounds of the reclaimer: how threads ask for a round, and how they wait for
 * one. reclaim.c says when rounds begin and what they do.
 *
 * Any thread may call these functions.  Without threads in the cache there are
 * no rounds. */
#ifndef CACHE_ROUNDS_H
#define CACHE_ROUNDS_H

#include <stdbool.h>

struct page_cache;

/* Starts a round. */
void rounds_wake_locked(struct page_cache *pc);

/* Records activity in the cache, so that periodic rounds continue. */
void rounds_note_activity_locked(struct page_cache *pc);
void rounds_note_activity(struct page_cache *pc);

/* Waits a moment for a whole round.  False: there was none. */
bool rounds_await(struct page_cache *pc);

/* Waits a moment until there is less garbage.  False: there is not less. */
bool rounds_await_garbage(struct page_cache *pc);

#endif
