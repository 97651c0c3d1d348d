/* A flow: how many bytes a connection should have in flight.
 *
 * With fewer bytes than bandwidth times delay, the connection is idle for a
 * part of each round trip.  With many more, they wait in queues on the path,
 * and small answers wait behind them.  Both factors are measured:
 *
 *   W1  The round trip is the shortest time from a request to the first byte of
 *       its answer.  It becomes longer if several requests in a row took longer
 *       that had the connection to themselves, or if no request under load was
 *       nearly as short.  A queue that this connection causes can do neither.
 *   W2  The rate is the best of the last rounds.  A round lasts one round trip,
 *       and counts if the window limited the connection, or if its rate was
 *       better.
 *   W3  The window grows by two bytes for each byte that arrives, until three
 *       rounds did not improve the rate, or all round trips of one round were
 *       half as long again, because bytes wait for each other.  From then on
 *       the window is the rate times the round trip, and a quarter more, so
 *       that a better rate can be noticed.
 *   W4  The window is at least FLOW_LEAST and at most FLOW_MOST.
 *
 * It uses neither sockets nor clocks. */
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
  uint64_t loaded_len; /* and the bytes that arrived meanwhile */

  uint64_t rates[FLOW_N_ROUNDS]; /* bytes a second; W2 */
  unsigned n_rounds;
  uint64_t round_ns;  /* when the round began; 0: there is none */
  uint64_t round_len; /* bytes that have arrived since */
  uint64_t
      round_least_ns; /* the shortest round trip in it; 0: there was none */
  bool is_limited;    /* the window limited the connection in it */

  bool is_full; /* W3: the window grows only with the rate now */
  uint64_t best_rate;
  unsigned n_flat; /* rounds that did not improve it */
  uint64_t window;
};

void flow_init(struct flow *f);

/* Asserts W4. */
void flow_check(const struct flow *f);

/* The first byte of an answer arrived `ns` after its request was sent.
 * `alone`: nothing else was in flight. */
void flow_round_trip(struct flow *f, uint64_t ns, bool alone);

/* `len` bytes of answers arrived. */
void flow_received(struct flow *f, uint64_t len, uint64_t now_ns);

/* The window prevented a request. */
void flow_limited(struct flow *f);

/* Nothing is in flight: the time until the next request does not count. */
void flow_idle(struct flow *f);

#ifdef __cplusplus
}
#endif

#endif
