/* What is let go: a simulation, so one round says it all. */
#include <stdio.h>

#include "tests/bench/cells.h"
#include "tests/bench/policy_sim.h"

static const char section[] = "Miss ratio on synthetic traces";
static const char metric[] = "miss ratio";

static const struct policy_kind {
  const char *name;
  size_t (*simulate)(const struct sim_trace *t, uint32_t n_cached);
} policies[] = {
    {"S3-FIFO", sim_s3_fifo},
    {"LRU", sim_lru},
    {"CLOCK", sim_clock},
    {"optimum", sim_optimum},
};

enum { N_POLICIES = sizeof policies / sizeof *policies };

void cells_policy(struct bench *b) {
  static struct sim_trace traces[SIM_N_TRACES];
  uint32_t n_cached = b->is_quick ? 4000 : 20000;
  sim_traces_make(traces, n_cached, n_cached * 100ull);
  for (int i = 0; i < SIM_N_TRACES; i++) {
    const struct sim_trace *t = &traces[i];
    for (int k = 0; k < N_POLICIES; k++) {
      struct report_key key = {section, metric, t->name, policies[k].name};
      size_t n_misses = policies[k].simulate(t, n_cached);
      report_add(b->report, key, (double)n_misses / (double)t->n_reads);
    }
    struct report_key key = {section, metric, t->name, "S3-FIFO"};
    report_target(b->report, REPORT_AT_MOST, 1,
                  report_ratio_to(b->report, key, "LRU"),
                  "%s: miss ratio, by LRU's", t->name);
  }
  report_note(b->report, section, "A cache of %u pages, %u reads a trace.",
              n_cached, n_cached * 100);
  sim_traces_free(traces);
}
