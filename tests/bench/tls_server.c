#include "tests/bench/tls_server.h"

#include <stdio.h>

#include "tests/bench/servers.h"

enum { PLACE_LEN = 128 };

/* A certificate, and its key. */
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

static void start(struct tls_server *s, struct rig *rig, const char *key) {
  char image[PLACE_LEN], size[32], by_unix[PLACE_LEN], plain[32], tls[32];
  snprintf(image, sizeof image, "image=%s", rig->file);
  snprintf(size, sizeof size, "%llu",
           (unsigned long long)(rig->size + RIG_SPARE_CACHE));
  snprintf(by_unix, sizeof by_unix, "unix:%s", s->server->socket);
  snprintf(plain, sizeof plain, "tcp:127.0.0.1:%u", s->plain_port);
  snprintf(tls, sizeof tls, "tls:127.0.0.1:%u", s->tls_port);
  const char *const args[] = {"cachetd",   "--config",
                              "/dev/null", "--workers",
                              "1",         "--log-level",
                              "error",     "--image",
                              image,       "--cache-size",
                              size,        "--listen",
                              by_unix,     "--listen",
                              plain,       "--listen",
                              tls,         "--tls-certificate",
                              s->cert,     "--tls-key",
                              key,         "--tls-require-client-certificate",
                              "no",        "--allow",
                              "any",       NULL};
  rig_server_start(s->server, "daemon/cachetd", args, false);
}

bool tls_server_start(struct tls_server *s, struct rig *rig) {
  char key[RIG_PATH_LEN];
  if (!make_certificate(rig, s->cert, key))
    return false;
  s->server = rig_server_new(rig, "tls");
  s->plain_port = servers_free_port();
  s->tls_port = servers_free_port();
  start(s, rig, key);
  cachet *c = rig_open(s->server->socket, 0);
  rig_warm(rig, c);
  cachet_close(c);
  return true;
}

void tls_server_stop(struct tls_server *s) { rig_server_stop(s->server); }

void tls_server_uri(const struct tls_server *s, uint16_t port,
                    char out[TLS_SERVER_URI_LEN]) {
  snprintf(out, TLS_SERVER_URI_LEN, "cachets://127.0.0.1:%u/image?ca=%s", port,
           s->cert);
}
