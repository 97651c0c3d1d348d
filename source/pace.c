#include "source/pace.h"

/* What is left of a point's weight with each one that comes after it. */
#define FADE (63.0 / 64)
#define N_LEAST 4
/* Lengths that differ by less than this part of the mean are alike. */
#define SPREAD 0.1
#define WORTH_MOST (1ull << 40)

void pace_add(struct pace *p, uint64_t bytes, uint64_t ns) {
  double x = (double)bytes, y = (double)ns;
  p->n = p->n * FADE + 1;
  p->x = p->x * FADE + x;
  p->y = p->y * FADE + y;
  p->xx = p->xx * FADE + x * x;
  p->xy = p->xy * FADE + x * y;
}

uint64_t pace_worth(const struct pace *p) {
  if (p->n < N_LEAST * FADE)
    return 0;
  double x = p->x / p->n, y = p->y / p->n;
  double spread = p->xx / p->n - x * x;
  double per_byte = (p->xy / p->n - x * y) / spread;
  if (spread < SPREAD * x * SPREAD * x || per_byte <= 0)
    return (uint64_t)(2 * x);
  double wait = y - per_byte * x;
  if (wait <= 0)
    return 0;
  double worth = wait / per_byte;
  return worth < WORTH_MOST ? (uint64_t)worth : WORTH_MOST;
}
