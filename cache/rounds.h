/* Rounds of the reclaimer: what asks for one, and how a thread waits for one.
 * reclaim.c says when they come, and what is done in them.
 *
 * Any thread.  Without threads in the cache there are none. */
#ifndef CACHE_ROUNDS_H
#define CACHE_ROUNDS_H

#include <stdbool.h>

struct page_cache;

/* Has a round begin. */
void rounds_wake_locked(struct page_cache *pc);

/* Something happens in the cache: rounds come by themselves again. */
void rounds_note_activity_locked(struct page_cache *pc);
void rounds_note_activity(struct page_cache *pc);

/* Waits a moment for a whole round.  False: there was none. */
bool rounds_await(struct page_cache *pc);

/* Waits a moment until there is less garbage.  False: there is not. */
bool rounds_await_garbage(struct page_cache *pc);

#endif
