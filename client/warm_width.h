/* How many pieces of a cachet_warm() a daemon loads at once.
 *
 * With one piece at a time, the daemon is idle for a round trip after each.
 * With many, a slow source gets more requests than it can serve: no piece ends
 * sooner, and its other readers wait longer.
 *
 *   W1  At least WARM_WIDTH_FIRST and at most WARM_WIDTH_MOST.
 *   W2  One more for each piece that took at most twice as long as the fastest
 *       one: then the pieces do not wait for each other.  One less for each
 *       that took more than four times as long.
 *
 * It uses neither daemons nor clocks. */
#ifndef CLIENT_WARM_WIDTH_H
#define CLIENT_WARM_WIDTH_H

#include <assert.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { WARM_WIDTH_FIRST = 4, WARM_WIDTH_MOST = 16 };

struct warm_width {
  unsigned n;
  uint64_t least_ns; /* of the fastest piece; 0: none has ended */
};

static inline struct warm_width warm_width_begin(void) {
  return (struct warm_width){WARM_WIDTH_FIRST, 0};
}

/* A piece took `ns` from its request to its end. */
static inline void warm_width_ended(struct warm_width *w, uint64_t ns) {
  if (ns == 0)
    ns = 1;
  if (!w->least_ns || ns < w->least_ns)
    w->least_ns = ns;
  if (ns / 2 <= w->least_ns && w->n < WARM_WIDTH_MOST)
    w->n++;
  else if (ns / 4 > w->least_ns && w->n > WARM_WIDTH_FIRST)
    w->n--;
  assert(w->n >= WARM_WIDTH_FIRST && w->n <= WARM_WIDTH_MOST); /* W1 */
}

#ifdef __cplusplus
}
#endif

#endif
