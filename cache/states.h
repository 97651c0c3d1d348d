/* The page states of a mirror, by block: their account (B2 and B3 of budget.c),
 * and the sweep that gives back those that hold nothing.
 *
 * A ZERO state costs no more than its byte.  A block that has no others but
 * ABSENT ones holds nothing that could not be asked for again: it is garbage
 * like an empty one, and its states are ABSENT once it is swept. */
#ifndef CACHE_STATES_H
#define CACHE_STATES_H

#include "cache/mirror.h"
#include "cache/page_state.h"

#ifdef __cplusplus
extern "C" {
#endif

/* So many ZERO states are gone, with the memory that they were in. */
void states_forget_zeros_locked(struct mirror *m, uint64_t n);

/* Takes all states of a retired mirror out of the account; the caller gives
 * their memory back, and frees what this returns. */
struct state_block *states_drop_locked(struct mirror *m);

/* Charges the states of these pages, if they are not yet.  False: there is no
 * room for them, so they must stay ABSENT. */
bool states_charge_locked(struct mirror *m, uint64_t first, uint64_t count);
bool states_need_charge(struct mirror *m, uint64_t first, uint64_t count);

/* page_state_move() of a state that is charged. */
bool states_move_locked(struct mirror *m, uint64_t page, enum page_state from,
                        enum page_state to);

/* Takes a page out of the cache: RESIDENT becomes EVICTING, and leaves the
 * policy; ZERO, of which there is nothing to give back, becomes ABSENT.  True:
 * it is EVICTING now. */
bool states_take_locked(struct mirror *m, uint64_t page);

/* A state that another process has left is counted, and its block charged. */
void states_adopt_locked(struct mirror *m, uint64_t page,
                         enum page_state state);

/* Whether a state must stay ABSENT, or ZERO, because it is being swept. */
static inline bool states_are_swept_locked(const struct mirror *m,
                                           uint64_t page) {
  return page >= m->swept_first && page < m->swept_end;
}

/* The first page from `page` on, or after it, whose block holds a state that
 * is not ABSENT: it looks at `most` blocks. */
uint64_t states_next_live_locked(const struct mirror *m, uint64_t page,
                                 uint64_t most);

/* Gives the states of the block of `page`, and of those that follow, back if
 * they hold nothing, or the pages as well, which are ABSENT.  The page at which
 * it ended; 0: that block holds something. */
enum sweep_what { SWEEP_STATES, SWEEP_STATES_AND_PAGES };
uint64_t states_sweep_at(struct mirror *m, uint64_t page, enum sweep_what what);

/* One step of sweeping: gives some blocks that hold nothing back.  False: it
 * has been through all of them, or another thread is at it. */
bool states_sweep(struct mirror *m);

#ifdef __cplusplus
}
#endif

#endif
