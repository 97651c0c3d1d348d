/* Ranges through TLS beside plain TCP: one daemon, one handle of the library
 * for each, one read under way. */
#include "tests/bench/cells.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/tls_server.h"

static const char section[] = "TLS, one handle, one read under way";
static const char rate_metric[] = "GB/s";
static const char plain_column[] = "plain TCP";
static const char tls_column[] = "TLS 1.3";

static const struct range {
  const char *row;
  uint32_t len;
} ranges[] = {{"64 KiB", 64 << 10}, {"1 MiB", 1 << 20}, {"16 MiB", 16 << 20}};

enum { N_RANGES = sizeof ranges / sizeof *ranges };

struct pair {
  struct tls_server server;
  cachet *plain, *tls;
};

static cachet *open_place(const char *uri) {
  struct cachet_options options = CACHET_OPTIONS_INIT;
  struct cachet_error err;
  cachet *c;
  options.flags = CACHET_NO_READAHEAD;
  options.cache_size = 1; /* as little as may be: each read is asked for */
  if (cachet_open(uri, &options, &c, &err) != CACHET_OK)
    rig_fail("%s", err.message);
  return c;
}

/* False: there is no certificate. */
static bool pair_start(struct pair *pair, struct rig *rig) {
  char uri[TLS_SERVER_URI_LEN];
  struct tls_server *s = &pair->server;
  if (!tls_server_start(s, rig))
    return false;
  snprintf(uri, sizeof uri, "cachet://127.0.0.1:%u/image", s->plain_port);
  pair->plain = open_place(uri);
  tls_server_uri(s, s->tls_port, uri);
  pair->tls = open_place(uri);
  return true;
}

static void pair_stop(struct pair *pair) {
  cachet_close(pair->plain);
  cachet_close(pair->tls);
  tls_server_stop(&pair->server);
}

static void measure(struct bench *b, const struct range *range,
                    const char *column, cachet *c, uint8_t *buf) {
  uint64_t random = 1, n_bytes = 0;
  uint64_t n_places = (b->servers.rig->size - range->len) / RIG_PAGE;
  double start = rig_now_ns(CLOCK_MONOTONIC), now = start;
  for (; now - start < b->seconds * 1e9; now = rig_now_ns(CLOCK_MONOTONIC)) {
    uint64_t at = rig_random(&random) % n_places * RIG_PAGE;
    rig_check(c, cachet_read(c, at, buf, range->len));
    if (memcmp(buf + range->len - RIG_PAGE,
               b->servers.map + at + range->len - RIG_PAGE, RIG_PAGE) != 0)
      rig_fail("wrong bytes at %llu", (unsigned long long)at);
    n_bytes += range->len;
  }
  struct report_key key = {section, rate_metric, range->row, column};
  report_add(b->report, key, (double)n_bytes / (now - start));
}

void cells_tls(struct bench *b) {
  struct pair pair;
  uint8_t *buf = calloc(1, ranges[N_RANGES - 1].len);
  if (!buf)
    rig_fail("no memory");
  if (!pair_start(&pair, b->servers.rig)) {
    report_note(b->report, "Missing", "openssl, and so TLS");
    free(buf);
    return;
  }
  for (unsigned round = 0; round < b->n_rounds; round++)
    for (size_t i = 0; i < N_RANGES; i++) {
      measure(b, &ranges[i], plain_column, pair.plain, buf);
      measure(b, &ranges[i], tls_column, pair.tls, buf);
    }
  pair_stop(&pair);
  free(buf);
  struct report_key key = {section, rate_metric, ranges[1].row, tls_column};
  report_target(b->report, REPORT_AT_LEAST, 0.5,
                report_ratio_to(b->report, key, plain_column),
                "TLS, %s: bytes/s, by those of plain TCP", ranges[1].row);
}
