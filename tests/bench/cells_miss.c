/* Misses where the kernel has the bytes: what the daemon's own part costs, and
 * that it does not grow. */
#include "tests/bench/cells.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char over_section[] =
    "Misses: random 4 KiB over four times the cache, source warm, 8x8";
static const char cost_section[] =
    "Cost of a miss, unwritten image, full cache";
static const char cost_metric[] = "server CPU, us a miss";
static const char rate_metric[] = "thousand misses/s";

/* What a daemon's misses come to, by its own counters. */
struct tally {
  struct protocol_conn conn;
  uint64_t hits, misses;
};

static void tally_begin(struct tally *t) {
  t->hits = protocol_cachet_counter(t->conn.fd, "hits");
  t->misses = protocol_cachet_counter(t->conn.fd, "misses");
}

/* The part of all reads since then that missed. */
static double tally_end(const struct tally *t) {
  double hits = (double)(protocol_cachet_counter(t->conn.fd, "hits") - t->hits);
  double misses =
      (double)(protocol_cachet_counter(t->conn.fd, "misses") - t->misses);
  return misses / (hits + misses);
}

/* Goes on with the sequence: from its beginning it would hit what the run
 * before has read. */
static struct load_result read_random(const struct load_target *t,
                                      struct load_random *random,
                                      unsigned n_conns, unsigned depth,
                                      double seconds) {
  struct load_group group = {.target = t,
                             .n_conns = n_conns,
                             .depth = depth,
                             .len = RIG_PAGE,
                             .pick = load_pick_random,
                             .arg = random};
  return load_run(&group, 1, seconds);
}

/* ---- Over four times the cache ------------------------------------------- */

/* `part` of the reads missed. */
static void add_over(struct bench *b, const char *column,
                     struct load_result result, double part) {
  struct report_key key = {over_section, rate_metric, "misses", column};
  report_add(b->report, key, result.rate * part / 1e3);
  key.metric = "server CPU, us a read, hits too";
  report_add(b->report, key, result.cpu_us);
  key.metric = "p99 of reads, us";
  report_add(b->report, key, result.p99_us);
}

/* A server of which nobody counts the misses: of reads at random over four
 * times a cache three in four miss. */
struct other {
  const char *column;
  struct rig_server *server; /* NULL: missing */
  struct load_target target;
  struct load_random random;
};

static void measure_other(struct bench *b, struct other *o) {
  if (o->server)
    add_over(b, o->column,
             read_random(&o->target, &o->random, 8, 8, b->seconds), 0.75);
}

static struct other start_bare_cache(struct rig *rig) {
  struct other o = {.column = "bare, with a cache"};
  o.server = servers_start_bare_cache(rig, rig->size / 4, &o.target);
  return o;
}

static struct other start_cache_filter(struct rig *rig) {
  struct other o = {.column = "nbdkit, cache filter"};
  char max_size[48];
  snprintf(max_size, sizeof max_size, "cache-max-size=%" PRIu64, rig->size / 4);
  const char *const args[] = {"--filter=cache",     "file",   rig->file,
                              "cache-on-read=true", max_size, NULL};
  o.server = servers_start_nbdkit(rig, args, &o.target);
  return o;
}

/* Until its cache is full. */
static void begin_other(struct bench *b, struct other *o) {
  load_random_init(&o->random, b->servers.rig->size, RIG_PAGE, RIG_PAGE);
  if (o->server)
    read_random(&o->target, &o->random, 8, 8, b->is_quick ? 1 : 3);
}

static void judge_over(struct bench *b) {
  struct report_key key = {over_section, rate_metric, "misses", "cachetd"};
  report_target(b->report, REPORT_AT_LEAST, 6,
                report_ratio_to(b->report, key, "nbdkit, cache filter"),
                "misses/s over four times the cache, by nbdkit's cache filter");
  report_target(b->report, REPORT_AT_LEAST, 0.8,
                report_ratio_to(b->report, key, "bare, with a cache"),
                "the same, by those of the bare server with a cache");
  report_note(
      b->report, over_section,
      "Of the others' reads three in four are taken for misses; cachetd "
      "counts its own.");
}

static void measure_over(struct bench *b) {
  struct rig *rig = b->servers.rig;
  struct load_target daemon;
  struct load_random random;
  struct other others[] = {start_bare_cache(rig), start_cache_filter(rig)};
  const size_t n_others = sizeof others / sizeof *others;
  struct rig_server *server =
      servers_start_daemon(rig, rig->file, rig->size / 4, &daemon);
  struct tally tally = {.conn = load_connect(&daemon)};
  load_random_init(&random, rig->size, RIG_PAGE, RIG_PAGE);
  protocol_cachet_warm(&tally.conn, 0, rig->size / 4);
  for (size_t i = 0; i < n_others; i++)
    begin_other(b, &others[i]);
  for (unsigned round = 0; round < b->n_rounds; round++) {
    tally_begin(&tally);
    struct load_result result = read_random(&daemon, &random, 8, 8, b->seconds);
    add_over(b, "cachetd", result, tally_end(&tally));
    for (size_t i = 0; i < n_others; i++)
      measure_other(b, &others[i]);
  }
  close(tally.conn.fd);
  rig_server_stop(server);
  for (size_t i = 0; i < n_others; i++)
    if (others[i].server)
      rig_server_stop(others[i].server);
  judge_over(b);
}

/* ---- With more clients, with more pages ---------------------------------- */

/* No disk is read: nothing was written to the image's place on it.  But it is
 * no hole, which the daemon would not read at all.  It is dropped from the
 * kernel's memory before each run, so that none has more of it there than
 * another. */
#define UNWRITTEN_LEN (UINT64_C(8) << 30)

static const struct fullness {
  const char *name;
  uint64_t n_pages;
} fullnesses[] = {{"10^4 pages resident", 10000},
                  {"10^5 pages resident", 100000},
                  {"10^6 pages resident", 1000000}};

enum { N_FULLNESSES = sizeof fullnesses / sizeof *fullnesses };

static const struct crowd {
  const char *name;
  unsigned n;
} crowds[] = {{"1 client", 1}, {"8 clients", 8}, {"64 clients", 64}};

enum { N_CROWDS = sizeof crowds / sizeof *crowds };

/* Its cache is full, of so many pages. */
static struct rig_server *start_full(struct rig *rig, const char *path,
                                     uint64_t n_pages, struct load_target *t) {
  /* Two bytes for each page of the image are known of them. */
  uint64_t cache = n_pages * RIG_PAGE + 2 * (UNWRITTEN_LEN / RIG_PAGE);
  struct rig_server *server = servers_start_daemon(rig, path, cache, t);
  struct protocol_conn conn = load_connect(t);
  uint64_t step = 32 << 20;
  for (uint64_t done = 0; done < cache; done += step)
    protocol_cachet_warm(&conn, done, step);
  close(conn.fd);
  return server;
}

/* A daemon of some fullness, and where its reads are. */
struct full {
  struct rig_server *server;
  struct load_target target;
  struct tally tally;
  struct load_random random;
};

static void measure_cost(struct bench *b, struct full *f, const char *row,
                         const struct crowd *crowd) {
  tally_begin(&f->tally);
  struct load_result result =
      read_random(&f->target, &f->random, crowd->n, 1, b->seconds);
  double part = tally_end(&f->tally);
  struct report_key key = {cost_section, cost_metric, row, crowd->name};
  report_add(b->report, key, result.cpu_us / part);
  key.metric = rate_metric;
  report_add(b->report, key, result.rate * part / 1e3);
}

static void measure_costs(struct bench *b) {
  char path[RIG_PATH_LEN];
  struct full full[N_FULLNESSES];
  /* A million pages take 4 GiB, and their time. */
  int n = b->is_quick ? N_FULLNESSES - 1 : N_FULLNESSES;
  rig_path(b->servers.rig, "unwritten", path);
  int fd = rig_make_unwritten(path, UNWRITTEN_LEN);
  for (int i = 0; i < n; i++) {
    struct full *f = &full[i];
    f->server =
        start_full(b->servers.rig, path, fullnesses[i].n_pages, &f->target);
    f->tally.conn = load_connect(&f->target);
    load_random_init(&f->random, UNWRITTEN_LEN, RIG_PAGE, RIG_PAGE);
  }
  for (unsigned round = 0; round < b->n_rounds; round++)
    for (int crowd = 0; crowd < N_CROWDS; crowd++)
      for (int i = 0; i < n; i++) {
        posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        measure_cost(b, &full[i], fullnesses[i].name, &crowds[crowd]);
      }
  for (int i = 0; i < n; i++) {
    close(full[i].tally.conn.fd);
    rig_server_stop(full[i].server);
  }
  posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
  close(fd);
  unlink(path);
}

void cells_miss(struct bench *b) {
  measure_over(b);
  measure_costs(b);
}
