/* What hot and its helper `gate` agree on: behind the file's bytes the image
 * has cells, as far apart as no single read of the daemon's reaches, and each
 * read of one waits at the gate. */
#ifndef TESTS_BENCH_GATE_H
#define TESTS_BENCH_GATE_H

enum { GATE_N_CELLS = 64, GATE_CELL_LEN = 1 << 20 };

#endif
