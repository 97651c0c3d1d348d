#include "source/breaker.h"

#include <assert.h>

enum breaker_permit breaker_ask(struct breaker *b, uint64_t now_ms) {
  if (b->state == BREAKER_CLOSED)
    return BREAKER_PASS;
  if (b->state == BREAKER_HALF_OPEN || now_ms < b->until_ms)
    return BREAKER_REFUSE;
  b->state = BREAKER_HALF_OPEN;
  return BREAKER_PROBE;
}

static bool breaker_open(struct breaker *b, uint64_t open_ms, uint64_t now_ms) {
  b->state = BREAKER_OPEN;
  b->open_ms = open_ms < BREAKER_MOST_MS ? open_ms : BREAKER_MOST_MS;
  b->until_ms = now_ms + b->open_ms;
  return true;
}

bool breaker_ended(struct breaker *b, bool was_probe, bool answered,
                   uint64_t now_ms) {
  if (answered) { /* perhaps to one that began before it opened */
    *b = (struct breaker){.state = BREAKER_CLOSED};
    return false;
  }
  if (was_probe && b->state == BREAKER_HALF_OPEN)
    return breaker_open(b, 2 * b->open_ms, now_ms);
  if (b->state != BREAKER_CLOSED || ++b->n_unanswered < BREAKER_AFTER)
    return false;
  return breaker_open(b, BREAKER_FIRST_MS, now_ms);
}

void breaker_left(struct breaker *b, bool was_probe) {
  if (was_probe && b->state == BREAKER_HALF_OPEN)
    b->state = BREAKER_OPEN; /* its time is over */
}

void breaker_check(const struct breaker *b) {
  if (b->state == BREAKER_CLOSED)
    assert(b->n_unanswered < BREAKER_AFTER && b->open_ms == 0);
  else
    assert(b->open_ms >= BREAKER_FIRST_MS && b->open_ms <= BREAKER_MOST_MS);
}
