/* What the benchmarks and their helper `gate` agree on: behind the file's bytes
 * the image has cells, as far apart as no single read of the daemon's reaches,
 * and each read of one waits at the gate, or, if the gate has a delay, for so
 * long. */
#ifndef TESTS_BENCH_GATE_H
#define TESTS_BENCH_GATE_H

enum {
  GATE_N_CELLS = 64,
  GATE_N_SLOW_CELLS = 1 << 16,
  GATE_CELL_LEN = 1 << 20
};

#endif
