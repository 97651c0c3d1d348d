/* Reads of 4 KiB at random, all of them hits: one connection on one processor,
 * then more connections and more reads under way on each. */
#include "tests/bench/cells.h"

#include <stdio.h>

static const char section[] = "Random 4 KiB, hits";
static const char rate_metric[] = CELLS_SWEEP_METRIC;
static const char p50_metric[] = "p50, us";
static const char p99_metric[] = "p99, us";
static const char cpu_metric[] = "server CPU, s per million reads";
static const char tcp_name[] = "cachetd, TCP";

struct shape {
  const char *name;
  unsigned n_conns, depth;
  bool on_one_cpu;
  double least; /* of the bare server's rate */
};

static const struct shape shapes[] = {
    {"1x1, one core", 1, 1, true, 0.8}, {"8x16", 8, 16, false, 0.7},
    {"8x64", 8, 64, false, 0.7},        {"64x16", 64, 16, false, 0.7},
    {"64x64", 64, 64, false, 0.7},
};

enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* One connection, more and more reads under way; for the plot. */
static const char sweep_section[] = CELLS_SWEEP_SECTION;
static const struct shape sweep[] = {
    {"1", 1, 1, false, 0},   {"4", 1, 4, false, 0},     {"16", 1, 16, false, 0},
    {"64", 1, 64, false, 0}, {"256", 1, 256, false, 0},
};

enum { N_SWEEP = sizeof sweep / sizeof *sweep };

/* ---- Cells --------------------------------------------------------------- */

static void measure(struct bench *b, const char *in_section,
                    const struct shape *shape, const struct load_target *t,
                    const char *column) {
  struct load_random random;
  struct load_group group = {.target = t,
                             .n_conns = shape->n_conns,
                             .depth = shape->depth,
                             .len = RIG_PAGE,
                             .pick = load_pick_random,
                             .arg = &random};
  if (!t->pid)
    return;
  load_random_init(&random, b->servers.rig->size, RIG_PAGE, RIG_PAGE);
  if (shape->on_one_cpu)
    rig_place(t->pid, RIG_FIRST_CPU, RIG_FIRST_CPU);
  struct load_result result = load_run(&group, 1, b->seconds);
  rig_place(t->pid, RIG_ALL_CPUS, RIG_ALL_CPUS);
  struct report_key key = {in_section, rate_metric, shape->name, column};
  report_add(b->report, key, result.rate / 1e3);
  key.metric = p50_metric;
  report_add(b->report, key, result.p50_us);
  key.metric = p99_metric;
  report_add(b->report, key, result.p99_us);
  key.metric = cpu_metric;
  report_add(b->report, key, result.cpu_us);
}

static void measure_all(struct bench *b, const char *in_section,
                        const struct shape *shape) {
  for (enum system system = 0; system < NGINX; system++)
    measure(b, in_section, shape, &b->servers.by_unix[system],
            b->servers.by_unix[system].name);
  measure(b, in_section, shape, &b->servers.by_tcp[CACHETD], tcp_name);
}

static void judge(struct bench *b, const struct shape *shape) {
  static const char *const except[] = {"bare", tcp_name, NULL};
  struct report_key key = {section, rate_metric, shape->name, "cachetd"};
  const char *best = "a peer", *name = shape->name;
  report_target(b->report, REPORT_AT_LEAST, shape->least,
                report_ratio_to(b->report, key, "bare"),
                "%s: reads/s, by the bare server's", name);
  if (shape->on_one_cpu) {
    report_target(b->report, REPORT_AT_LEAST, 1,
                  report_ratio_to(b->report, key, "memcached"),
                  "%s: reads/s, by memcached's", name);
  } else {
    double ratio = report_ratio_to_best(b->report, key, true, except, &best);
    report_target(b->report, REPORT_AT_LEAST, 1, ratio,
                  "%s: reads/s, by %s's, the best peer", name, best);
  }
  key.metric = cpu_metric;
  report_target(b->report, REPORT_AT_MOST, 1.5,
                report_ratio_to(b->report, key, "bare"),
                "%s: server CPU a read, by the bare server's", name);
}

void cells_batch(struct bench *b) {
  for (unsigned round = 0; round < b->n_rounds; round++) {
    for (size_t i = 0; i < N_SHAPES; i++)
      measure_all(b, section, &shapes[i]);
    for (size_t i = 0; i < N_SWEEP; i++)
      measure_all(b, sweep_section, &sweep[i]);
  }
  for (size_t i = 0; i < N_SHAPES; i++)
    judge(b, &shapes[i]);
}
