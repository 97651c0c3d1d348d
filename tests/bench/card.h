/* card: what kind of machine a benchmark ran on: its processor, kernel and
 * hypervisor, and what the parts of a read cost there.  Figures of two machines
 * can be compared only beside their cards. */
#ifndef TESTS_BENCH_CARD_H
#define TESTS_BENCH_CARD_H

#include "tests/bench/report.h"
#include "tests/bench/rig.h"

/* Measures the machine, with the rig's file, and adds it as the report's next
 * section.  Takes a second or two. */
void card_add(struct report *r, const struct rig *rig);

/* Measures and prints it alone. */
void card_print(const struct rig *rig);

#endif
