/* What a miss over shared memory costs, beside the least it could. */
#ifndef TESTS_BENCH_MISS_H
#define TESTS_BENCH_MISS_H

#include "tests/bench/rig.h"

/* Measures and prints.  The program stays on one processor from here on. */
void miss_measure(struct rig *rig);

#endif
