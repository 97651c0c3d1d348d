/* Hits while other reads wait at a slow source.
 *
 * The hits have a rate of their own, well below what the daemon can do, and
 * their latency counts from when each was due: a hit that had to wait for a
 * cold read would show, and so would those behind it.  The daemon is `gate`,
 * the source of which takes 50 ms for each page behind the file's.  The daemon
 * has one processor and the generator another: with a rate the generator does
 * not sleep, and what shared its processor would delay its clock. */
#include "tests/bench/cells.h"

#include <stdio.h>
#include <string.h>

#include "tests/bench/gate.h"

static const char section[] = "Hits while cold reads take 50 ms";
static const char p50_metric[] = "p50 of hits, us";
static const char p99_metric[] = "p99 of hits, us";
static const char rate_metric[] = "thousand hits/s";

enum { N_COLD_CONNS = 8, COLD_EVERY = 10, DEPTH = 200 };

/* With one cold read in ten, 100 of those a second: eight threads do 160 at
 * 50 ms each, so that none waits for a thread. */
#define RATE 1000.0

enum load_kind { QUIET, OTHERS, MIXED, N_KINDS };

static const char *const names[N_KINDS] = {"quiet", "8 connections wait",
                                           "10 % cold on the same connection"};

/* Addresses: hits at random in the file, or cells that nobody has read. */
struct mix {
  struct load_random hits;
  uint64_t file_size;
  unsigned cold_every, n; /* 0: no cold ones; 1: nothing else */
};

/* Which cell is next; in the rows' order it would look like a walk. */
static uint64_t n_cells_read;

static void pick(void *arg, struct load_read *out) {
  struct mix *m = arg;
  out->is_aside = m->cold_every && ++m->n % m->cold_every == 0;
  if (!out->is_aside) {
    load_pick_random(&m->hits, out);
    return;
  }
  uint64_t cell = n_cells_read++ * 40503 % GATE_N_SLOW_CELLS;
  out->offset = m->file_size + cell * GATE_CELL_LEN;
}

static void measure(struct bench *b, const struct load_target *gate,
                    enum load_kind kind, bool is_paced) {
  struct mix hot = {.file_size = b->servers.rig->size,
                    .cold_every = kind == MIXED ? COLD_EVERY : 0};
  struct mix cold = {.file_size = hot.file_size, .cold_every = 1};
  struct load_group groups[] = {{.target = gate,
                                 .n_conns = 1,
                                 .depth = is_paced ? DEPTH : 1,
                                 .len = RIG_PAGE,
                                 .pick = pick,
                                 .arg = &hot,
                                 .rate = is_paced ? RATE : 0},
                                {.target = gate,
                                 .n_conns = N_COLD_CONNS,
                                 .depth = 1,
                                 .len = RIG_PAGE,
                                 .pick = pick,
                                 .arg = &cold}};
  load_random_init(&hot.hits, hot.file_size, RIG_PAGE, RIG_PAGE);
  struct load_result result =
      load_run(groups, kind == OTHERS ? 2 : 1, b->is_quick ? 0.5 : 2);
  const char *column = is_paced ? "1000 a second" : "as fast as answered";
  struct report_key key = {section, p50_metric, names[kind], column};
  report_add(b->report, key, result.p50_us);
  key.metric = p99_metric;
  report_add(b->report, key, result.p99_us);
  key.metric = rate_metric;
  report_add(b->report, key, result.rate / 1e3);
}

static void judge(struct bench *b, enum load_kind kind, const char *column) {
  struct report_key key = {section, p99_metric, names[kind], column};
  struct report_key quiet = {section, p99_metric, names[QUIET], column};
  report_target(b->report, REPORT_AT_MOST, 1.5,
                report_ratio(b->report, key, quiet),
                "hits %s, %s: p99 by quiet", column, names[kind]);
}

static struct rig_server *start_gate(struct rig *rig, struct load_target *out) {
  struct rig_server *server = rig_server_new(rig, "gate");
  const char *args[] = {"gate", rig->file, server->socket, "50", NULL};
  rig_server_start(server, "tests/bench/gate", args, true);
  *out = (struct load_target){.name = "gate",
                              .protocol = &protocol_cachet,
                              .socket = server->socket,
                              .pid = server->pid};
  cachet *c = rig_open(server->socket, CACHET_NO_READAHEAD);
  rig_warm(rig, c);
  cachet_close(c);
  return server;
}

void cells_isolation(struct bench *b) {
  struct load_target gate;
  struct rig_server *server = start_gate(b->servers.rig, &gate);
  rig_place(gate.pid, RIG_LAST_CPU, RIG_FIRST_CPU);
  for (unsigned round = 0; round < b->n_rounds; round++) {
    for (enum load_kind kind = QUIET; kind < N_KINDS; kind++)
      measure(b, &gate, kind, true);
    measure(b, &gate, QUIET, false);
    measure(b, &gate, OTHERS, false);
  }
  rig_place(gate.pid, RIG_ALL_CPUS, RIG_ALL_CPUS);
  rig_server_stop(server);
  judge(b, OTHERS, "1000 a second");
  judge(b, MIXED, "1000 a second");
  judge(b, OTHERS, "as fast as answered");
}
