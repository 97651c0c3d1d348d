#include "cache/page_state.h"

#include <assert.h>

static bool allowed(enum page_state from, enum page_state to) {
  switch (from) {
  case PAGE_ABSENT:
    return to == PAGE_FILLING || to == PAGE_EVICTING;
  case PAGE_FILLING:
    return to == PAGE_RESIDENT || to == PAGE_EVICTING || to == PAGE_ZERO;
  case PAGE_RESIDENT:
    return to == PAGE_EVICTING;
  case PAGE_EVICTING:
    return to == PAGE_ABSENT || to == PAGE_RESIDENT || to == PAGE_STALE;
  case PAGE_STALE:
    return to == PAGE_EVICTING;
  case PAGE_ZERO:
    return to == PAGE_ABSENT;
  }
  return false;
}

bool page_state_move(uint8_t *word, enum page_state from, enum page_state to) {
  assert(allowed(from, to));
  uint8_t expected = (uint8_t)from;
  /* Release: the page's bytes before RESIDENT, the punch before ABSENT.
   * Acquire: our writes into the hole come after we own the word. */
  return __atomic_compare_exchange_n(word, &expected, (uint8_t)to, false,
                                     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
