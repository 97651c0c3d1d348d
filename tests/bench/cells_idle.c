/* Connections that do nothing: the memory that each takes, and what ten
 * thousand of them cost the one that works. */
#include "tests/bench/cells.h"

#include <inttypes.h>
#include <stdio.h>

static const char memory_section[] = "Memory of an idle connection";
static const char memory_metric[] = "KiB RSS each";
static const char active_section[] = "One connection works, the others idle";
static const char active_metric[] = "thousand reads/s, 16 under way";

enum { FEW = 10, MANY = 10000, DEPTH = 16, N_STORED = 256 };

static const struct count {
  const char *name;
  unsigned n;
} counts[] = {{"10", FEW}, {"1000", 1000}, {"10000", MANY}};

enum { N_COUNTS = sizeof counts / sizeof *counts };

/* Those that take ten thousand connections as they are made. */
static const enum system systems[] = {CACHETD, BARE, MEMCACHED, REDIS};

enum { N_IDLE_SYSTEMS = sizeof systems / sizeof *systems };

/* One after the other, to a fresh server: memory that was freed may be kept. */
static void measure_memory(struct bench *b, enum system system) {
  struct load_idle *idle[N_COUNTS];
  struct load_target t;
  struct rig_server *server =
      servers_start_another(&b->servers, system, N_STORED, &t);
  if (!server)
    return;
  struct load_idle *first = load_idle_open(&t, 1);
  uint64_t before = rig_memory_kib(t.pid, "status", "VmRSS:");
  for (unsigned i = 0, n = 0; i < N_COUNTS; n = counts[i++].n) {
    idle[i] = load_idle_open(&t, counts[i].n - n);
    double more = (double)rig_memory_kib(t.pid, "status", "VmRSS:");
    struct report_key key = {memory_section, memory_metric, counts[i].name,
                             t.name};
    report_add(b->report, key, (more - (double)before) / counts[i].n);
  }
  load_idle_close(first);
  for (unsigned i = 0; i < N_COUNTS; i++)
    load_idle_close(idle[i]);
  rig_server_stop(server);
}

static void measure_active(struct bench *b, enum system system) {
  const struct load_target *t = &b->servers.by_unix[system];
  struct load_random random;
  struct load_group group = {.target = t,
                             .n_conns = 1,
                             .depth = DEPTH,
                             .len = RIG_PAGE,
                             .pick = load_pick_random,
                             .arg = &random};
  struct load_idle *idle[2];
  if (!t->pid)
    return;
  for (int i = 0; i < 2; i++) {
    idle[i] = load_idle_open(t, i ? MANY - FEW : FEW);
    load_random_init(&random, b->servers.rig->size, RIG_PAGE, RIG_PAGE);
    struct load_result result = load_run(&group, 1, b->seconds);
    struct report_key key = {active_section, active_metric, t->name,
                             i ? "of 10,000" : "of 10"};
    report_add(b->report, key, result.rate / 1e3);
  }
  load_idle_close(idle[0]);
  load_idle_close(idle[1]);
}

void cells_idle(struct bench *b) {
  for (unsigned round = 0; round < b->n_rounds; round++)
    for (int i = 0; i < N_IDLE_SYSTEMS; i++) {
      measure_memory(b, systems[i]);
      measure_active(b, systems[i]);
    }
  for (unsigned i = 0; i < N_COUNTS; i++) {
    struct report_key key = {memory_section, memory_metric, counts[i].name,
                             "cachetd"};
    report_target(b->report, REPORT_AT_MOST, 2, report_median(b->report, key),
                  "KiB RSS of each of %s idle connections", counts[i].name);
  }
  struct report_key key = {active_section, active_metric, "cachetd",
                           "of 10,000"};
  report_target(b->report, REPORT_AT_LEAST, 0.9,
                report_ratio_to(b->report, key, "of 10"),
                "one at work among 10,000 idle: reads/s, by that among 10");
}
