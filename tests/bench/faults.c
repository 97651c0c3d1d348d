/* faults: hits beside a remote source that fails.
 *
 *   faults [--rounds N] [--seconds N]
 *
 * A daemon has a part of an image in its cache, which an nginx on loopback
 * serves.  One connection reads pages of that part, 1000 a second, by the
 * socket, while eight processes each read one page after another of what is not
 * cached, a thousandth of a second apart.  The nginx is
 *
 *   quiet      there, and nobody else reads
 *   stopped    by SIGSTOP: it takes connections, and says nothing
 *   gone       killed: there is no connection to be had
 *
 * The latency of a hit counts from when it was due.  How long a miss takes to
 * fail under an open breaker is measured once the server is gone.
 *
 * Targets are reported and judge nothing: exit status 0 unless something
 * failed, then 1; 2 for a bad command line. */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/bench/card.h"
#include "tests/bench/histogram.h"
#include "tests/bench/load.h"
#include "tests/bench/report.h"
#include "tests/bench/rig.h"
#include "tests/bench/store.h"

enum { N_MISSERS = 8, PAUSE_NS = 1000000, N_FAILURES = 2000, DEPTH = 200 };

/* What is warmed brings what is ahead of it along. */
#define WARM_LEN (UINT64_C(32) << 20)
#define COLD_LEN (UINT64_C(64) << 20)
#define IMAGE_LEN (WARM_LEN + (UINT64_C(64) << 20) + COLD_LEN)
#define RATE 1000.0

static const char section[] = "Beside a source that fails";
static const char p50_metric[] = "p50 of hits, us";
static const char p99_metric[] = "p99 of hits, us";
static const char fail_metric[] = "a miss fails, us";
static const char row[] = "1000 hits a second";
static const char fail_row[] = "under an open breaker";

static const char quiet[] = "quiet", stopped[] = "stopped", gone[] = "gone";

struct bench {
  struct rig *rig;
  struct report *report;
  struct store store;
  struct rig_server *daemon;
  double seconds;
};

static void start_daemon(struct bench *b) {
  char image[80], listen[RIG_PATH_LEN + 8];
  b->daemon = rig_server_new(b->rig, "daemon");
  snprintf(image, sizeof image, "image=http://127.0.0.1:%u/image",
           b->store.port);
  snprintf(listen, sizeof listen, "unix:%s", b->daemon->socket);
  const char *const args[] = {"cachetd",     "--config",     "/dev/null",
                              "--image",     image,          "--listen",
                              listen,        "--cache-size", "512M",
                              "--log-level", "error",        NULL};
  rig_server_start(b->daemon, "daemon/cachetd", args, false);
  cachet *c = rig_open(b->daemon->socket, CACHET_NO_READAHEAD);
  rig_check(c, cachet_warm(c, 0, WARM_LEN));
  cachet_close(c);
}

/* ---- Misses -------------------------------------------------------------- */

static cachet *open_for_misses(const struct bench *b) {
  return rig_open(b->daemon->socket,
                  CACHET_NO_SHARED_MEMORY | CACHET_NO_READAHEAD);
}

/* A page that is not cached. */
static enum cachet_status miss(cachet *c, uint64_t *random) {
  uint8_t page[RIG_PAGE];
  uint64_t at = rig_random(random) % (COLD_LEN / RIG_PAGE) * RIG_PAGE;
  return cachet_read(c, IMAGE_LEN - COLD_LEN + at, page, sizeof page);
}

__attribute__((noreturn)) static void become_misser(const struct bench *b,
                                                    uint64_t random) {
  cachet *c = open_for_misses(b);
  for (;;) {
    miss(c, &random);
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
  }
}

static void start_missers(const struct bench *b, pid_t pids[N_MISSERS]) {
  for (unsigned i = 0; i < N_MISSERS; i++)
    if ((pids[i] = rig_fork(SIGKILL)) == 0)
      become_misser(b, i + 1);
}

static void stop_missers(const pid_t pids[N_MISSERS]) {
  for (unsigned i = 0; i < N_MISSERS; i++) {
    kill(pids[i], SIGKILL);
    waitpid(pids[i], NULL, 0);
  }
}

/* By now eight processes have missed for seconds: the breaker is open, and lets
 * a probe through now and then. */
static void measure_failures(const struct bench *b) {
  struct histogram h;
  uint64_t random = N_MISSERS + 1;
  cachet *c = open_for_misses(b);
  histogram_clear(&h);
  for (unsigned i = 0; i < N_FAILURES; i++) {
    double start = rig_now_ns(CLOCK_MONOTONIC);
    if (miss(c, &random) == CACHET_OK)
      rig_fail("a page was read of a server that is gone");
    histogram_add(&h, (uint64_t)(rig_now_ns(CLOCK_MONOTONIC) - start));
  }
  cachet_close(c);
  struct report_key key = {section, fail_metric, fail_row, "p50"};
  report_add(b->report, key, (double)histogram_value(&h, 0.5) / 1e3);
  key.column = "p99";
  report_add(b->report, key, (double)histogram_value(&h, 0.99) / 1e3);
}

/* ---- Hits ---------------------------------------------------------------- */

static void measure_hits(const struct bench *b, const char *column) {
  struct load_random hits;
  const struct load_target target = {.name = "cachetd",
                                     .protocol = &protocol_cachet,
                                     .socket = b->daemon->socket,
                                     .pid = b->daemon->pid};
  const struct load_group group = {.target = &target,
                                   .n_conns = 1,
                                   .depth = DEPTH,
                                   .len = RIG_PAGE,
                                   .pick = load_pick_random,
                                   .arg = &hits,
                                   .rate = RATE};
  load_random_init(&hits, WARM_LEN, RIG_PAGE, RIG_PAGE);
  struct load_result result = load_run(&group, 1, b->seconds);
  struct report_key key = {section, p50_metric, row, column};
  report_add(b->report, key, result.p50_us);
  key.metric = p99_metric;
  report_add(b->report, key, result.p99_us);
}

static void measure(struct bench *b) {
  pid_t missers[N_MISSERS];
  store_start(&b->store, b->rig);
  start_daemon(b);
  measure_hits(b, quiet);
  kill(b->store.nginx->pid, SIGSTOP);
  start_missers(b, missers);
  measure_hits(b, stopped);
  kill(b->store.nginx->pid, SIGKILL); /* it answers nothing more */
  rig_server_stop(b->store.nginx);
  measure_hits(b, gone);
  stop_missers(missers);
  measure_failures(b);
  rig_server_stop(b->daemon);
}

static void judge(struct bench *b) {
  struct report_key key = {section, p99_metric, row, stopped};
  report_target(b->report, REPORT_AT_MOST, 1.5,
                report_ratio_to(b->report, key, quiet),
                "hits beside a server that is stopped: p99 by quiet");
  key.column = gone;
  report_target(b->report, REPORT_AT_MOST, 1.5,
                report_ratio_to(b->report, key, quiet),
                "hits beside a server that is gone: p99 by quiet");
  key = (struct report_key){section, fail_metric, fail_row, "p99"};
  report_target(b->report, REPORT_AT_MOST, 1000, report_median(b->report, key),
                "a miss fails under an open breaker: p99, us");
}

int main(int argc, char **argv) {
  uint64_t n_rounds = 5, seconds = 2;
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : "";
    bool ok = false;
    if (strcmp(argv[i], "--rounds") == 0)
      ok = rig_parse_number(value, 1, REPORT_MAX_ROUNDS, &n_rounds);
    else if (strcmp(argv[i], "--seconds") == 0)
      ok = rig_parse_number(value, 1, 60, &seconds);
    if (!ok) {
      fputs("usage: faults [--rounds N] [--seconds N]\n", stderr);
      return 2;
    }
  }
  struct bench b = {.rig = rig_make(IMAGE_LEN, RIG_CHUNK),
                    .report = report_new(),
                    .seconds = (double)seconds};
  card_add(b.report, b.rig);
  for (uint64_t round = 0; round < n_rounds; round++)
    measure(&b);
  judge(&b);
  report_print(b.report);
  report_free(b.report);
  return 0;
}
