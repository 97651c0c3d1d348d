/* A flow: how many bytes a connection should have under way at once.
 *
 * Fewer than bandwidth times delay leave the connection idle for a part of each
 * round trip.  Many more wait in queues on the way, and small answers wait
 * behind them.  Both factors are measured:
 *
 *   W1  The round trip is the shortest one seen from a request to the first
 *       byte of its answer.  It becomes longer when several requests in a row
 *       that had the connection to themselves say so, or when none under load
 *       is nearly as short.  A queue of our own making can do neither.
 *   W2  The rate is the best of the last rounds.  A round is a round trip long,
 *       and counts if the window was what held the connection back, or if it
 *       was better.
 *   W3  The window grows by two bytes for each one that comes in, until three
 *       rounds did not make the rate better, or all round trips of one were
 *       half as long again: then bytes wait for each other.  From then on it is
 *       rate times round trip and a quarter more, so that a better rate shows.
 *   W4  The window is at least FLOW_LEAST and at most FLOW_MOST.
 *
 * It knows neither sockets nor clocks. */
#ifndef CLIENT_REMOTE_FLOW_H
#define CLIENT_REMOTE_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  FLOW_LEAST = 512 << 10,
  FLOW_FIRST = 1 << 20,
  FLOW_MOST = 32 << 20,
  FLOW_N_ROUNDS = 8,
};

struct flow {
  uint64_t rtt_ns; /* W1; 0: unknown */
  struct flow_least {
    uint64_t ns;
    unsigned n;
  } alone, loaded;     /* the shortest of the last round trips of a kind, */
  uint64_t loaded_len; /* and bytes that came in meanwhile */

  uint64_t rates[FLOW_N_ROUNDS]; /* bytes a second; W2 */
  unsigned n_rounds;
  uint64_t round_ns;  /* when the round began; 0: there is none */
  uint64_t round_len; /* bytes that came in since */
  uint64_t
      round_least_ns; /* the shortest round trip in it; 0: there was none */
  bool is_limited;    /* the window held the connection back in it */

  bool is_full; /* W3: the window has stopped growing by itself */
  uint64_t best_rate;
  unsigned n_flat; /* rounds that did not better it */
  uint64_t window;
};

void flow_init(struct flow *f);

/* The first byte of an answer came `ns` after its request was sent.  `alone`:
 * then nothing else was under way. */
void flow_round_trip(struct flow *f, uint64_t ns, bool alone);

/* Bytes of answers came in. */
void flow_received(struct flow *f, uint64_t len, uint64_t now_ns);

/* More would have been asked for, but for the window. */
void flow_limited(struct flow *f);

/* Nothing is under way any more: the time until something is does not count. */
void flow_idle(struct flow *f);

#ifdef __cplusplus
}
#endif

#endif
