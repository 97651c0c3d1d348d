/* What is let go: a simulation, so one round says it all. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/block_trace.h"
#include "tests/bench/cells.h"
#include "tests/bench/policy_sim.h"

static const char section[] = "Miss ratio of eviction policies";
static const char metric[] = "miss ratio";

static const struct policy_kind {
  const char *name;
  size_t (*simulate)(const struct sim_trace *t);
} policies[] = {
    {"S3-FIFO", sim_s3_fifo},
    {"without its window", sim_s3_fifo_without_window},
    {"LRU", sim_lru},
    {"ARC", sim_arc},
    {"CLOCK", sim_clock},
    {"optimum", sim_optimum},
};

enum { N_POLICIES = sizeof policies / sizeof *policies };

static void simulate_all(struct bench *b, const struct sim_trace *t) {
  for (int k = 0; k < N_POLICIES; k++) {
    struct report_key key = {section, metric, t->name, policies[k].name};
    size_t n_misses = policies[k].simulate(t);
    report_add(b->report, key, (double)n_misses / (double)t->n_reads);
  }
  struct report_key key = {section, metric, t->name, "S3-FIFO"};
  report_target(b->report, REPORT_AT_MOST, 1,
                report_ratio_to(b->report, key, "LRU"),
                "%s: miss ratio, by LRU's", t->name);
  report_target(b->report, REPORT_AT_MOST, 1.01,
                report_ratio_to(b->report, key, "without its window"),
                "%s: miss ratio, by that without the window", t->name);
}

static void simulate_synthetic(struct bench *b) {
  static struct sim_trace traces[SIM_N_TRACES];
  uint32_t n_cached = b->is_quick ? 4000 : 20000;
  sim_traces_make(traces, n_cached, n_cached * 100ull);
  for (int i = 0; i < SIM_N_TRACES; i++)
    simulate_all(b, &traces[i]);
  report_note(b->report, section,
              "Made traces: a cache of %u pages, %u reads a trace.", n_cached,
              n_cached * 100);
  sim_traces_free(traces);
}

/* ---- What programs read -------------------------------------------------- */

/* Runs the programs.  False: one is missing. */
static bool record_programs(struct bench *b, const char *dir) {
  static const char *const files[] = {
      "tests/bench/record-programs", "tests/bench/librecorder.so",
      "tests/support/make-image", "client/examples/ext4cat"};
  char paths[4][PATH_MAX];
  const char *rows = b->is_quick ? "30000" : "150000";
  for (int i = 0; i < 4; i++)
    rig_find_program(files[i], paths[i]);
  const char *const args[] = {paths[0], dir,  paths[1], paths[2], paths[3],
                              "3000",   "48", rows,     NULL};
  return rig_run(args, NULL, 0);
}

/* The trace of one log, for caches of two sizes. */
static void simulate_program(struct bench *b, const char *dir, const char *log,
                             const char *tenth, const char *quarter) {
  char image[PATH_MAX], path[PATH_MAX];
  snprintf(image, sizeof image, "%s/image", dir);
  snprintf(path, sizeof path, "%s/%s", dir, log);
  struct sim_trace t = {0};
  block_trace_make(&t, image, path);
  uint32_t n = sim_count_pages(&t);
  t.name = tenth;
  t.n_cached = n / 10;
  simulate_all(b, &t);
  t.name = quarter;
  t.n_cached = n / 4;
  simulate_all(b, &t);
  report_note(b->report, section, "%s: %zu reads of %u pages.", log, t.n_reads,
              n);
  free(t.reads);
}

static void simulate_programs(struct bench *b) {
  char dir[RIG_PATH_LEN];
  rig_path(b->servers.rig, "programs", dir);
  const char *const args[] = {"/bin/mkdir", dir, NULL};
  if (!rig_run(args, NULL, 0) || !record_programs(b, dir)) {
    report_note(b->report, "Missing", "the traces of programs");
    return;
  }
  simulate_program(b, dir, "files.log",
                   "find, grep and tar, a cache of a tenth of their pages",
                   "find, grep and tar, of a quarter");
  simulate_program(b, dir, "sqlite.log",
                   "sqlite3, a cache of a tenth of its pages",
                   "sqlite3, of a quarter");
}

void cells_policy(struct bench *b) {
  simulate_synthetic(b);
  simulate_programs(b);
}
