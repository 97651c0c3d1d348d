/* Reclaiming: see reclaim.c. */
#ifndef CACHE_RECLAIM_H
#define CACHE_RECLAIM_H

#include "cache/mirror.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Runs one round.  `is_tick`: the round is a periodic one.  Returns whether
 * another periodic round is needed. */
bool reclaim_round(struct page_cache *pc, bool is_tick);

/* Frees states that hold nothing, or waits a moment until another thread has
 * done so.  False: nothing was freed. */
bool reclaim_garbage(struct page_cache *pc);

/* Removes the pages of a mirror that was just retired: in the reclaimer's
 * thread, or in this one if there is none. */
void reclaim_retired(struct mirror *m);

/* Moves all RESIDENT states of a retired mirror to EVICTING, permanently. */
void reclaim_retire_states(struct mirror *m);

/* Does the first half of that: afterwards no state of the retired mirror is
 * RESIDENT.  Any thread may call it, also while another one does. */
void reclaim_leave_resident(struct mirror *m);

/* Takes over a mirror whose last reference is gone. */
void reclaim_dead(struct mirror *m);

/* Completes the reclaimer's work, after its thread has ended. */
void reclaim_finish(struct page_cache *pc);

#ifdef __cplusplus
}
#endif

#endif
