/* Long reads, one under way, over either kind of socket. */
#include "tests/bench/cells.h"

#include <stdio.h>

static const char section[] = "Ranges, one connection, one under way";
static const char rate_metric[] = "GB/s";
static const char cpu_metric[] = "server CPU, ms per GB";

static const struct range {
  const char *by_unix, *by_tcp; /* names of the rows */
  uint32_t len;
} ranges[] = {
    {"64 KiB, Unix", "64 KiB, TCP", 64 << 10},
    {"1 MiB, Unix", "1 MiB, TCP", 1 << 20},
    {"16 MiB, Unix", "16 MiB, TCP", 16 << 20},
};

enum { N_RANGES = sizeof ranges / sizeof *ranges };

static void measure(struct bench *b, const char *row, uint32_t len,
                    const struct load_target *t) {
  struct load_random random;
  struct load_group group = {.target = t,
                             .n_conns = 1,
                             .depth = 1,
                             .len = len,
                             .pick = load_pick_random,
                             .arg = &random};
  if (!t->pid)
    return;
  load_random_init(&random, b->servers.rig->size, len, RIG_PAGE);
  struct load_result result = load_run(&group, 1, b->seconds);
  struct report_key key = {section, rate_metric, row, t->name};
  report_add(b->report, key, result.rate * len / 1e9);
  key.metric = cpu_metric;
  report_add(b->report, key, result.cpu_us / len * 1e6);
}

/* The stores of pages have no ranges. */
static bool has_ranges(enum system system) {
  return system != MEMCACHED && system != REDIS;
}

static void judge(struct bench *b, const char *row) {
  static const char *const except[] = {"bare", NULL};
  struct report_key key = {section, rate_metric, row, "cachetd"};
  const char *best = "a peer";
  double ratio = report_ratio_to_best(b->report, key, true, except, &best);
  report_target(b->report, REPORT_AT_LEAST, 1, ratio,
                "%s: bytes/s, by %s's, the best peer", row, best);
}

void cells_ranges(struct bench *b) {
  for (enum system system = 0; system < N_SYSTEMS; system++) {
    const struct load_target *ways[] = {&b->servers.by_unix[system],
                                        &b->servers.by_tcp[system]};
    for (size_t i = 0; i < 2; i++)
      if (has_ranges(system) && ways[i]->pid)
        load_verify(ways[i], b->servers.map, b->servers.rig->size, 3 << 20, 16);
  }
  for (unsigned round = 0; round < b->n_rounds; round++) {
    for (size_t i = 0; i < N_RANGES; i++) {
      for (enum system system = 0; system < N_SYSTEMS; system++) {
        if (!has_ranges(system))
          continue;
        measure(b, ranges[i].by_unix, ranges[i].len,
                &b->servers.by_unix[system]);
        measure(b, ranges[i].by_tcp, ranges[i].len, &b->servers.by_tcp[system]);
      }
    }
  }
  for (size_t i = 0; i < N_RANGES; i++) {
    judge(b, ranges[i].by_unix);
    judge(b, ranges[i].by_tcp);
  }
}
