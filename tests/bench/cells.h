/* cells: what the peers benchmark measures, one function for each section of
 * its report.  Each runs its systems in turns, round by round. */
#ifndef TESTS_BENCH_CELLS_H
#define TESTS_BENCH_CELLS_H

#include "tests/bench/report.h"
#include "tests/bench/servers.h"

struct bench {
  struct servers servers;
  struct report *report;
  unsigned n_rounds;
  double seconds; /* one cell of one system in one round */
  bool is_quick;
};

/* The tables that plots are made of. */
#define CELLS_SWEEP_SECTION                                                    \
  "Random 4 KiB, hits, one connection, by reads under way"
#define CELLS_SWEEP_METRIC "thousand reads/s"
#define CELLS_MEMORY_SECTION "Memory of processes that read 64 MiB"
#define CELLS_MEMORY_METRIC "MiB PSS together"

void cells_floor(struct bench *b);
void cells_batch(struct bench *b);
void cells_ranges(struct bench *b);
void cells_far(struct bench *b);
void cells_tls(struct bench *b);
void cells_idle(struct bench *b);
void cells_isolation(struct bench *b);
void cells_cold(struct bench *b);
void cells_miss(struct bench *b);
void cells_scale(struct bench *b);
void cells_policy(struct bench *b);

#endif
