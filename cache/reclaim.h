/* Reclaiming: see reclaim.c. */
#ifndef CACHE_RECLAIM_H
#define CACHE_RECLAIM_H

#include "cache/mirror.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One round.  `is_tick`: the clock has come to it.  Whether another has to come
 * by itself. */
bool reclaim_round(struct page_cache *pc, bool is_tick);

/* Frees states that hold nothing, or waits a moment until that is done.  False:
 * nothing came of it. */
bool reclaim_garbage(struct page_cache *pc);

/* A mirror was just retired: its pages go.  Here and now where there is no
 * thread for it. */
void reclaim_retired(struct mirror *m);

/* Moves all states of a retired mirror from RESIDENT to EVICTING, for good. */
void reclaim_retire_states(struct mirror *m);

/* The first half of that: no state of a retired mirror is RESIDENT afterwards.
 * Any thread may do it, beside another one. */
void reclaim_leave_resident(struct mirror *m);

/* The last reference of a mirror is gone. */
void reclaim_dead(struct mirror *m);

/* Does what waits for the reclaimer, whose thread has ended. */
void reclaim_finish(struct page_cache *pc);

#ifdef __cplusplus
}
#endif

#endif
