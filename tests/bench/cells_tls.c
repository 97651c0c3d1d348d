/* Ranges through TLS beside plain TCP: one daemon, one handle of the library
 * for each, one read under way. */
#include "tests/bench/cells.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char section[] = "TLS, one handle, one read under way";
static const char rate_metric[] = "GB/s";
static const char plain_column[] = "plain TCP";
static const char tls_column[] = "TLS 1.3";

static const struct range {
  const char *row;
  uint32_t len;
} ranges[] = {{"64 KiB", 64 << 10}, {"1 MiB", 1 << 20}, {"16 MiB", 16 << 20}};

enum { N_RANGES = sizeof ranges / sizeof *ranges, PLACE_LEN = 128 };

struct pair {
  struct rig_server *server;
  cachet *plain, *tls;
};

/* A certificate of its own making, and its key.  False: there is no openssl. */
static bool make_certificate(const struct rig *rig, char cert[RIG_PATH_LEN],
                             char key[RIG_PATH_LEN]) {
  char openssl[RIG_PATH_LEN];
  rig_path(rig, "cert.pem", cert);
  rig_path(rig, "key.pem", key);
  if (!servers_find("openssl", openssl))
    return false;
  const char *const args[] = {openssl,    "req",
                              "-x509",    "-nodes",
                              "-newkey",  "ec",
                              "-pkeyopt", "ec_paramgen_curve:P-256",
                              "-days",    "2",
                              "-subj",    "/CN=bench",
                              "-addext",  "subjectAltName=IP:127.0.0.1",
                              "-keyout",  key,
                              "-out",     cert,
                              NULL};
  return rig_run(args, NULL, 0);
}

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

static struct rig_server *start(struct rig *rig, const char *cert,
                                const char *key, uint16_t plain_port,
                                uint16_t tls_port) {
  char image[PLACE_LEN], size[32], by_unix[PLACE_LEN], plain[32], tls[32];
  struct rig_server *server = rig_server_new(rig, "tls");
  snprintf(image, sizeof image, "image=%s", rig->file);
  snprintf(size, sizeof size, "%llu",
           (unsigned long long)(rig->size + RIG_SPARE_CACHE));
  snprintf(by_unix, sizeof by_unix, "unix:%s", server->socket);
  snprintf(plain, sizeof plain, "tcp:127.0.0.1:%u", plain_port);
  snprintf(tls, sizeof tls, "tls:127.0.0.1:%u", tls_port);
  const char *const args[] = {"cachetd",   "--config",
                              "/dev/null", "--workers",
                              "1",         "--log-level",
                              "error",     "--image",
                              image,       "--cache-size",
                              size,        "--listen",
                              by_unix,     "--listen",
                              plain,       "--listen",
                              tls,         "--tls-certificate",
                              cert,        "--tls-key",
                              key,         "--tls-require-client-certificate",
                              "no",        "--allow",
                              "any",       NULL};
  rig_server_start(server, "daemon/cachetd", args, false);
  cachet *c = rig_open(server->socket, 0);
  rig_warm(rig, c);
  cachet_close(c);
  return server;
}

/* False: there is no certificate. */
static bool pair_start(struct pair *pair, struct rig *rig) {
  char cert[RIG_PATH_LEN], key[RIG_PATH_LEN], uri[2 * PLACE_LEN];
  uint16_t plain_port = servers_free_port(), tls_port = servers_free_port();
  if (!make_certificate(rig, cert, key))
    return false;
  pair->server = start(rig, cert, key, plain_port, tls_port);
  snprintf(uri, sizeof uri, "cachet://127.0.0.1:%u/image", plain_port);
  pair->plain = open_place(uri);
  snprintf(uri, sizeof uri, "cachets://127.0.0.1:%u/image?ca=%s", tls_port,
           cert);
  pair->tls = open_place(uri);
  return true;
}

static void pair_stop(struct pair *pair) {
  cachet_close(pair->plain);
  cachet_close(pair->tls);
  rig_server_stop(pair->server);
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
