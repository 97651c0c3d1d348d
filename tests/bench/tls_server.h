/* tls_server: a daemon that serves the rig's file on a port for TLS, and on a
 * plain one, with a certificate of its own making. */
#ifndef TESTS_BENCH_TLS_SERVER_H
#define TESTS_BENCH_TLS_SERVER_H

#include "tests/bench/rig.h"

enum { TLS_SERVER_URI_LEN = 256 };

struct tls_server {
  struct rig_server *server;
  uint16_t plain_port, tls_port;
  char cert[RIG_PATH_LEN];
};

/* Starts it, with all of the file in its cache.  False: there is no openssl to
 * make a certificate with. */
bool tls_server_start(struct tls_server *s, struct rig *rig);
void tls_server_stop(struct tls_server *s);

/* Of the image, at a port that leads to the one for TLS. */
void tls_server_uri(const struct tls_server *s, uint16_t port,
                    char out[TLS_SERVER_URI_LEN]);

#endif
