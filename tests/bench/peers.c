/* peers: cachetd's socket path and its miss path, beside servers that others
 * wrote, and beside the least that such a server can do.
 *
 *   peers [--quick] [--only SECTION] [--json FILE] [--svg DIR]
 *
 * Makes a file of 256 MiB and serves it by everything that servers.h names:
 * cachetd, a bare server (bare.c), memcached, redis, nbdkit, qemu-nbd, nginx.
 * One generator (load.h) reads from all of them, in the same order.  Sections
 * are measured one after the other; within one, systems take turns, round by
 * round, and what is judged is the median of five rounds' ratios.  cachetd has
 * one worker, the bare server one thread, memcached one; the others are as they
 * come.
 *
 * The report goes to standard output, as Markdown, to FILE as JSON, and its
 * plots to DIR.  --quick takes less than two minutes: three rounds, short ones,
 * smaller files; its figures are coarse.  --only runs one of the sections:
 * floor, batch, ranges, far, idle, isolation, cold, miss, scale, policy.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/bench/card.h"
#include "tests/bench/cells.h"
#include "tests/bench/plot.h"

struct options {
  bool is_quick;
  const char *json, *svg, *only;
};

static const struct section {
  const char *name;
  void (*run)(struct bench *b);
} sections[] = {
    {"floor", cells_floor},
    {"batch", cells_batch},
    {"ranges", cells_ranges},
    {"far", cells_far},
    {"tls", cells_tls},
    {"idle", cells_idle},
    {"isolation", cells_isolation},
    {"cold", cells_cold},
    {"miss", cells_miss},
    {"scale", cells_scale},
    {"policy", cells_policy},
};

enum { N_SECTIONS = sizeof sections / sizeof *sections };

static bool is_section(const char *name) {
  for (size_t i = 0; i < N_SECTIONS; i++)
    if (strcmp(sections[i].name, name) == 0)
      return true;
  return false;
}

static bool parse(int argc, char **argv, struct options *out) {
  *out = (struct options){0};
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    const char **where = NULL;
    if (strcmp(argv[i], "--quick") == 0) {
      out->is_quick = true;
      continue;
    }
    if (strcmp(argv[i], "--json") == 0)
      where = &out->json;
    else if (strcmp(argv[i], "--svg") == 0)
      where = &out->svg;
    else if (strcmp(argv[i], "--only") == 0)
      where = &out->only;
    if (!where || !value)
      return false;
    *where = value;
    i++;
  }
  return !out->only || is_section(out->only);
}

static void note_missing(const struct bench *b) {
  for (enum system system = 0; system < N_SYSTEMS; system++)
    if (b->servers.missing[system][0])
      report_note(b->report, "Missing", "%s", b->servers.missing[system]);
}

/* For thousands of connections, here and in the servers. */
static void raise_file_limit(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

static void write_plots(const struct report *r, const char *dir) {
  static const struct plot plots[] = {
      {"peers-throughput.svg",
       "Random 4 KiB over a Unix socket, one connection", CELLS_SWEEP_SECTION,
       CELLS_SWEEP_METRIC, "reads under way"},
      {"peers-memory.svg", "Memory of processes that read the same 64 MiB",
       CELLS_MEMORY_SECTION, CELLS_MEMORY_METRIC, "processes"},
  };
  for (size_t i = 0; i < sizeof plots / sizeof *plots; i++)
    plot_write(r, &plots[i], dir);
}

int main(int argc, char **argv) {
  static struct bench b;
  struct options o;
  if (!parse(argc, argv, &o)) {
    fputs("usage: peers [--quick] [--only SECTION] [--json FILE] [--svg DIR]\n",
          stderr);
    return 2;
  }
  b.is_quick = o.is_quick;
  b.n_rounds = o.is_quick ? 3 : 5;
  b.seconds = o.is_quick ? 0.08 : 0.4;
  b.report = report_new();
  raise_file_limit();
  struct rig *rig = rig_make(256 << 20, RIG_CHUNK);
  card_add(b.report, rig);
  setenv("TMPDIR", rig->dir, 1); /* where nbdkit keeps its filter's cache */
  servers_start(&b.servers, rig);
  note_missing(&b);
  for (size_t i = 0; i < N_SECTIONS; i++)
    if (!o.only || strcmp(o.only, sections[i].name) == 0) {
      fprintf(stderr, "peers: %s\n", sections[i].name);
      sections[i].run(&b);
    }
  report_print(b.report);
  if (o.json)
    report_write_json(b.report, o.json);
  if (o.svg)
    write_plots(b.report, o.svg);
  report_free(b.report);
  return 0;
}
