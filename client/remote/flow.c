#include "client/remote/flow.h"

#include <assert.h>

enum {
  N_ALONE = 4, /* round trips in a row that have to agree */
  /* Bytes that came in under load meanwhile: a queue that was made by the
   * window of a better rate is gone by then. */
  LOADED_LEN = 2 * FLOW_MOST,
  N_FLAT = 3,
  LEAST_ROUND_NS = 1000000,
};

#define NS_PER_S UINT64_C(1000000000)

void flow_init(struct flow *f) { *f = (struct flow){.window = FLOW_FIRST}; }

static uint64_t within(uint64_t value, uint64_t least, uint64_t most) {
  return value < least ? least : value > most ? most : value;
}

/* ---- Delay --------------------------------------------------------------- */

/* The shortest in a row, if it `is_complete` with this one; else 0. */
static uint64_t least_add(struct flow_least *l, uint64_t ns, bool is_complete) {
  if (l->n == 0 || ns < l->ns)
    l->ns = ns;
  l->n = is_complete ? 0 : l->n + 1;
  return is_complete ? l->ns : 0;
}

static uint64_t least_of(struct flow *f, uint64_t ns, bool alone) {
  if (alone)
    return least_add(&f->alone, ns, f->alone.n + 1 >= N_ALONE);
  bool is_complete = f->loaded_len >= LOADED_LEN;
  if (is_complete)
    f->loaded_len = 0;
  return least_add(&f->loaded, ns, is_complete);
}

/* Under load a round trip has our own queue in it, which is a quarter of the
 * window: twice as long it is not by that. */
void flow_round_trip(struct flow *f, uint64_t ns, bool alone) {
  uint64_t least = least_of(f, ns, alone);
  if (ns == 0)
    ns = 1;
  if (!f->round_least_ns || ns < f->round_least_ns)
    f->round_least_ns = ns;
  if (!f->rtt_ns || ns < f->rtt_ns)
    f->rtt_ns = ns;
  else if (alone && least > f->rtt_ns)
    f->rtt_ns = least;
  else if (!alone && least / 2 > f->rtt_ns)
    f->rtt_ns = least / 5 * 4;
}

/* ---- Bandwidth ----------------------------------------------------------- */

static uint64_t flow_rate(const struct flow *f) {
  uint64_t best = 0;
  for (unsigned i = 0; i < FLOW_N_ROUNDS; i++)
    best = f->rates[i] > best ? f->rates[i] : best;
  return best;
}

/* Bytes.  No more than FLOW_MOST of them matter, so that nothing overflows. */
static uint64_t flow_under_way(const struct flow *f, uint64_t rate) {
  double bytes = (double)rate * (double)f->rtt_ns / (double)NS_PER_S;
  return bytes < FLOW_MOST ? (uint64_t)bytes : FLOW_MOST;
}

static void flow_find_full(struct flow *f, uint64_t rate) {
  if (f->round_least_ns / 3 * 2 > f->rtt_ns)
    f->is_full = true;
  if (rate / 5 * 4 >= f->best_rate) {
    f->best_rate = rate;
    f->n_flat = 0;
  } else if (f->is_limited && ++f->n_flat == N_FLAT) {
    f->is_full = true;
  }
}

static void flow_end_round(struct flow *f, uint64_t took_ns) {
  uint64_t rate =
      (uint64_t)((double)f->round_len * (double)NS_PER_S / (double)took_ns);
  if (f->is_limited || rate > flow_rate(f))
    f->rates[f->n_rounds++ % FLOW_N_ROUNDS] = rate;
  if (!f->is_full)
    flow_find_full(f, rate);
  if (f->is_full)
    f->window = within(flow_under_way(f, flow_rate(f)) / 4 * 5 + FLOW_LEAST / 2,
                       FLOW_LEAST, FLOW_MOST);
  f->is_limited = false;
}

void flow_check(const struct flow *f) {
  assert(f->window >= FLOW_LEAST && f->window <= FLOW_MOST); /* W4 */
  assert(f->alone.n < N_ALONE && f->n_flat <= N_FLAT);
}

void flow_received(struct flow *f, uint64_t len, uint64_t now_ns) {
  f->loaded_len += len;
  uint64_t least = f->rtt_ns > LEAST_ROUND_NS ? f->rtt_ns : LEAST_ROUND_NS;
  if (!f->is_full)
    f->window = within(f->window + 2 * len, FLOW_LEAST, FLOW_MOST);
  if (!f->round_ns) { /* how long these took is not known */
    f->round_ns = now_ns;
    f->round_len = 0;
    f->round_least_ns = 0;
    return;
  }
  f->round_len += len;
  if (now_ns - f->round_ns < least)
    return;
  flow_end_round(f, now_ns - f->round_ns);
  f->round_ns = now_ns;
  f->round_len = 0;
  f->round_least_ns = 0;
}

void flow_limited(struct flow *f) { f->is_limited = true; }

void flow_idle(struct flow *f) {
  f->round_ns = 0;
  f->is_limited = false;
}
