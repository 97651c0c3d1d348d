/* store: an nginx on loopback, which serves the rig's file, and counts. */
#ifndef TESTS_BENCH_STORE_H
#define TESTS_BENCH_STORE_H

#include <stdint.h>

#include "tests/bench/rig.h"

struct store {
  struct rig_server *nginx; /* the file is "/image" on `port` */
  uint16_t port;
  char log[RIG_PATH_LEN];
};

/* Starts it, and waits until it serves. */
void store_start(struct store *store, struct rig *rig);

/* Bytes of bodies that it has sent so far. */
uint64_t store_sent(const struct store *store);

#endif
