/* The breaker of a source: once nobody has answered for a number of attempts,
 * the next ones are not made, but for a probe now and then.
 *
 *     CLOSED --BREAKER_AFTER attempts in a row unanswered--> OPEN
 *     OPEN ----its time is over, an attempt asks-----------> HALF_OPEN
 *     HALF_OPEN --the probe is answered--------------------> CLOSED
 *         |-------it is not--------------------------------> OPEN, for longer
 *         `-------it asks nobody---------------------------> OPEN, time over
 *
 * An answer is one whatever it says: an error that a server sends shows that it
 * is there.  Not thread-safe. */
#ifndef SOURCE_BREAKER_H
#define SOURCE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  BREAKER_AFTER = 5,
  BREAKER_FIRST_MS =
      1000, /* for how long it is open; each time twice as long */
  BREAKER_MOST_MS = 30000,
};

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker {
  enum breaker_state state;
  unsigned n_unanswered; /* in a row, while it is closed */
  uint64_t open_ms;      /* for how long it is open, when it is */
  uint64_t until_ms;     /* OPEN: when a probe may be made */
};

enum breaker_permit {
  BREAKER_PASS,
  BREAKER_PROBE, /* as PASS; breaker_ended() has to be told that it is one */
  BREAKER_REFUSE,
};

/* Whether an attempt may be made.  Each that may has one breaker_ended(), or
 * one breaker_left().
 * Zeroed the breaker is closed. */
enum breaker_permit breaker_ask(struct breaker *b, uint64_t now_ms);

/* An attempt has ended.  True: the breaker has opened by it. */
bool breaker_ended(struct breaker *b, bool was_probe, bool answered,
                   uint64_t now_ms);

/* Asserts that what it knows fits its state. */
void breaker_check(const struct breaker *b);

/* An attempt has ended that asked nobody: it says nothing of the source, and
 * the next one may be the probe that it was to be. */
void breaker_left(struct breaker *b, bool was_probe);

#ifdef __cplusplus
}
#endif

#endif
