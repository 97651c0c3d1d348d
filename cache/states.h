/* The page states of a mirror, by block: their account (B2 and B3 of budget.c),
 * and the sweep that frees blocks that hold nothing.
 *
 * A ZERO state costs only its byte.  A block whose states are all ABSENT or
 * ZERO holds nothing that the source could not be asked for again.  So it is
 * garbage like a block of ABSENT states, and after a sweep its states are
 * ABSENT. */
#ifndef CACHE_STATES_H
#define CACHE_STATES_H

#include "base/lock.h"
#include "cache/internal.h"
#include "cache/mirror.h"
#include "cache/page_state.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { STATES_N_KINDS = PAGE_ZERO + 1 };

/* Removes all states of a retired mirror from the account.  The caller returns
 * their memory to the kernel, and frees the result. */
struct state_block *states_drop_locked(struct mirror *m);

/* Charges the states of these pages, unless they are charged.  False: there is
 * no room, so they must stay ABSENT. */
bool states_charge_locked(struct mirror *m, uint64_t first, uint64_t count);
bool states_need_charge(struct mirror *m, uint64_t first, uint64_t count);

/* Does page_state_move() for a state that is charged, and counts it. */
bool states_move_locked(struct mirror *m, uint64_t page, enum page_state from,
                        enum page_state to);

/* Removes a page from the cache: RESIDENT becomes EVICTING and leaves the
 * policy; ZERO, which has no memory, becomes ABSENT.  Returns whether the state
 * is EVICTING now. */
bool states_take_locked(struct mirror *m, uint64_t page);

/* Counts a state of an earlier process, and charges its block. */
void states_adopt_locked(struct mirror *m, uint64_t page,
                         enum page_state state);

/* Whether a state must stay ABSENT or ZERO because it is being swept. */
static inline bool states_are_swept_locked(const struct mirror *m,
                                           uint64_t page) {
  lock_assert_held(&m->cache->lock);
  return page >= m->swept_first && page < m->swept_end;
}

/* Asserts B2 and B3, and that the counts of each block are right.  Adds to
 * `count` how many pages there are of each state but ABSENT. */
void states_check_locked(const struct mirror *m,
                         uint64_t count[STATES_N_KINDS]);

/* The first page from `page` on whose block has a state that is not ABSENT; or
 * a later page, after `most` blocks without one. */
uint64_t states_next_live_locked(const struct mirror *m, uint64_t page,
                                 uint64_t most);

/* Frees the states of the block of `page` and of following blocks, if they hold
 * nothing; on request also the memory of their pages, which are ABSENT.
 * Returns the page at which it stopped, or 0 if the block of `page` holds
 * something. */
enum sweep_what { SWEEP_STATES, SWEEP_STATES_AND_PAGES };
uint64_t states_sweep_at(struct mirror *m, uint64_t page, enum sweep_what what);

/* Sweeps some blocks that hold nothing.  False: it has been through all blocks,
 * or another thread is sweeping. */
bool states_sweep(struct mirror *m);

#ifdef __cplusplus
}
#endif

#endif
