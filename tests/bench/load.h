/* load: one generator of reads for all servers: the same random sequence, the
 * same clock, the same percentiles, whatever protocol.
 *
 * One thread and one epoll set.  A connection has up to `depth` reads under
 * way; a read that is answered makes room for the next, and what became
 * possible by one receive is asked for by one send.  The bytes of answers are
 * received and dropped; each run counts that they are as many as were asked
 * for, and load_verify() that they are the right ones.
 *
 * Fails as a rig does.  The thread of main() only. */
#ifndef TESTS_BENCH_LOAD_H
#define TESTS_BENCH_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/bench/protocol.h"

/* Where a server is. */
struct load_target {
  const char *name; /* in reports */
  const struct protocol *protocol;
  const char *socket; /* a Unix socket's path, or NULL: */
  uint16_t port;      /* TCP on this host */
  pid_t pid;          /* whose processor time is counted */
};

/* What is to be read next. */
struct load_read {
  uint64_t offset;
  bool is_aside; /* it is in no result: not in numbers, not in latencies */
};

typedef void (*load_pick)(void *arg, struct load_read *out);

/* Connections that do the same. */
struct load_group {
  const struct load_target *target;
  unsigned n_conns, depth;
  uint32_t len; /* of each read */
  load_pick pick;
  void *arg;
  double rate; /* reads a second on each connection, whether or not those before
                  are answered; 0: as fast as they are */
};

struct load_result {
  double rate;           /* reads a second */
  double p50_us, p99_us; /* from when it was due to its last byte */
  double cpu_us;         /* of the first group's server, for each read */
};

/* Runs the groups at once, for `seconds` after a tenth of that to warm up, and
 * measures the first of them.  If none of it was answered in that time the rate
 * is 0 and the rest are no numbers. */
struct load_result load_run(const struct load_group *groups, unsigned n_groups,
                            double seconds);

/* Reads `n` times `len` bytes and holds them against `bytes`, the image. */
void load_verify(const struct load_target *target, const uint8_t *bytes,
                 uint64_t size, uint32_t len, unsigned n);

/* Picks addresses at random, all the same in each run: `at` counts. */
struct load_random {
  uint64_t state, n_places, step; /* n_places multiples of step */
};
void load_random_init(struct load_random *r, uint64_t size, uint32_t len,
                      uint32_t step);
void load_pick_random(void *arg, struct load_read *out);

/* Connects, begins, blocks.  False and a message in `err`: nobody answers. */
bool load_try_connect(const struct load_target *target,
                      struct protocol_conn *out, char *err, size_t err_len);

/* The same, or the end of the program. */
struct protocol_conn load_connect(const struct load_target *target);

/* Reads the first page, on such a connection. */
void load_read_once(const struct load_target *target,
                    const struct protocol_conn *c);

/* Connections that have read a page, and only exist from then on. */
struct load_idle;
struct load_idle *load_idle_open(const struct load_target *target, unsigned n);
void load_idle_close(struct load_idle *idle);

#endif
