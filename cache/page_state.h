/* Page states: which pages a mirror holds.  One byte per page.
 *
 *     ABSENT -> FILLING -> RESIDENT -> EVICTING -> ABSENT
 *     FILLING -> EVICTING -> ABSENT    a failed or stale fill punches the pages
 *                                      that it wrote
 *     EVICTING -> RESIDENT             the page was pinned
 *     EVICTING -> STALE -> EVICTING    the page was pinned, and invalidated:
 *                                      its bytes stay for the readers that have
 *                                      it pinned, and no other gets them
 *     ABSENT -> EVICTING -> ABSENT     the reclaimer punches a hole that got
 *                                      memory, and owns the state meanwhile
 *     FILLING -> ZERO -> ABSENT        the source says that the page is zeros:
 *                                      it stays a hole, which nobody reads
 *
 * The thread that moved a state to FILLING or EVICTING owns it, and moves it
 * on.  No thread owns a ZERO state, and no pin protects it: a reader that finds
 * ZERO needs no memory for the bytes.  So any thread that holds the lock may
 * move it to ABSENT, or drop it with the memory of its whole block (states.c).
 *
 * States change only in this module, by compare-and-swap.  In a retired mirror
 * EVICTING and STALE are final, until the memory of all states is punched and
 * they read as ABSENT.
 *
 * The states are bytes with __atomic builtins, not _Atomic: they are in memory
 * that other processes map, and C++ tests include this header. */
#ifndef CACHE_PAGE_STATE_H
#define CACHE_PAGE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum page_state {
  PAGE_ABSENT = 0, /* 0: in a new, sparse array all pages are ABSENT */
  PAGE_FILLING = 1,
  PAGE_RESIDENT = 2,
  PAGE_EVICTING = 3,
  PAGE_STALE = 4,
  PAGE_ZERO = 5,
};

/* Loads a state.  Acquire: a thread that sees RESIDENT sees the page's bytes;
 * pairs with the release of page_state_move(). */
static inline enum page_state page_state_look(const uint8_t *word) {
  return (enum page_state)__atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Moves a state from `from` to `to`.  Returns false if it was not `from`.
 * Asserts that the table above allows the move. */
bool page_state_move(uint8_t *word, enum page_state from, enum page_state to);

#ifdef __cplusplus
}
#endif

#endif
