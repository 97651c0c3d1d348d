#include "tests/bench/store.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/bench/servers.h"

/* Runs a program until it succeeds: what it asks may still have to come up. */
static void await(const char *const args[]) {
  for (int tries = 0; !rig_run(args, NULL, 0); tries++) {
    if (tries == 500)
      rig_fail("%s fails", args[0]);
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
  }
}

void store_start(struct store *store, struct rig *rig) {
  char program[RIG_PATH_LEN], curl[RIG_PATH_LEN], conf[RIG_PATH_LEN], url[64];
  if (!servers_find("nginx", program) || !servers_find("curl", curl))
    rig_fail("nginx and curl have to be installed");
  store->port = servers_free_port();
  rig_path(rig, "access.log", store->log);
  servers_write_nginx(rig, store->log, NULL, store->port, conf);
  store->nginx = rig_server_new(rig, "nginx");
  const char *const args[] = {"nginx", "-e", "stderr", "-c", conf, NULL};
  rig_server_start(store->nginx, program, args, false);
  snprintf(url, sizeof url, "http://127.0.0.1:%u/image", store->port);
  const char *const head[] = {curl, "-sfI", url, NULL};
  await(head);
}

uint64_t store_sent(const struct store *store) {
  uint64_t total = 0, one;
  FILE *log = fopen(store->log, "re");
  if (!log)
    rig_fail("%s: %s", store->log, strerror(errno));
  while (fscanf(log, "%" SCNu64, &one) == 1)
    total += one;
  fclose(log);
  return total;
}
