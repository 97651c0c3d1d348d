/* Residency: which pages of a mirror are there.  One byte a page.
 *
 *     ABSENT -> FILLING -> RESIDENT -> EVICTING -> ABSENT
 *     FILLING -> EVICTING -> ABSENT    a failed or stale fill punches what it
 *                                      wrote
 *     EVICTING -> RESIDENT             it was pinned
 *     EVICTING -> STALE -> EVICTING    it was pinned, but invalidated: its
 *                                      bytes stay for readers that have it
 *                                      pinned, and no other gets them
 *     ABSENT -> EVICTING -> ABSENT     the reclaimer: what punches owns the
 *                                      state
 *     FILLING -> ZERO -> ABSENT        the source says that it is zeros: its
 *                                      page stays a hole, which nobody reads
 *
 * Nobody owns a ZERO word, and no pin holds it: a reader of it has the bytes,
 * and looks at no memory for them.  So it may become ABSENT at any time, by the
 * lock, or with the memory of its whole block (states.c).
 *
 * This is the only place where a word changes, always by compare-and-swap.
 * The thread that moved a word to FILLING or EVICTING owns it, and moves it on.
 * In a retired mirror EVICTING and STALE are final, until the memory of all
 * states is given back at once and they read as ABSENT.
 *
 * Bytes and __atomic builtins, not _Atomic: the array lies in memory that
 * other processes map, and C++ tests include this. */
#ifndef CACHE_PAGE_STATE_H
#define CACHE_PAGE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum page_state {
  PAGE_ABSENT = 0, /* zero: a fresh, sparse array says ABSENT everywhere */
  PAGE_FILLING = 1,
  PAGE_RESIDENT = 2,
  PAGE_EVICTING = 3,
  PAGE_STALE = 4,
  PAGE_ZERO = 5,
};

/* What a word says.  Acquire: a thread that sees RESIDENT sees the page's
 * bytes; pairs with page_state_move()'s release. */
static inline enum page_state page_state_look(const uint8_t *word) {
  return (enum page_state)__atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* Moves a word from one state to another; false if it said something else.
 * Asserts that the table above allows it. */
bool page_state_move(uint8_t *word, enum page_state from, enum page_state to);

#ifdef __cplusplus
}
#endif

#endif
