/* servers: the systems that are compared, all over the same file, each on
 * sockets of its own in the rig's directory and on loopback ports.
 *
 * A peer that is not installed, or does not come up, is missing: that is noted,
 * and its cells are left out.  None writes anything outside of that directory,
 * and all end with the rig. */
#ifndef TESTS_BENCH_SERVERS_H
#define TESTS_BENCH_SERVERS_H

#include "tests/bench/load.h"
#include "tests/bench/rig.h"

enum system {
  CACHETD,
  BARE,
  MEMCACHED,
  REDIS,
  NBDKIT,
  QEMU_NBD,
  NGINX,
  N_SYSTEMS,
};

struct servers {
  struct rig *rig;
  const uint8_t *map; /* the file */
  /* pid 0: missing, or not by this kind of socket */
  struct load_target by_unix[N_SYSTEMS], by_tcp[N_SYSTEMS];
  char missing[N_SYSTEMS][120]; /* why; empty: it is there */
};

/* Starts them all, fills their stores, and holds what they say against the
 * file. */
void servers_start(struct servers *s, struct rig *rig);

/* One more of a system that is not missing, fresh but for `n_pages` in its
 * store; on a Unix socket.  NULL: it is missing. */
struct rig_server *servers_start_another(const struct servers *s,
                                         enum system system, uint64_t n_pages,
                                         struct load_target *out);

/* A fresh daemon, on a Unix socket, over another file. */
struct rig_server *servers_start_daemon(struct rig *rig, const char *image,
                                        uint64_t cache_size,
                                        struct load_target *out);

/* A bare server that has a cache of that size, on a Unix socket. */
struct rig_server *servers_start_bare_cache(struct rig *rig,
                                            uint64_t cache_size,
                                            struct load_target *out);

/* An nbdkit with these arguments, on a Unix socket.  NULL: it is missing. */
struct rig_server *servers_start_nbdkit(struct rig *rig,
                                        const char *const args[],
                                        struct load_target *out);

/* Looks for a program of the system's in the places where Debian puts those.
 * False: it is not there. */
bool servers_find(const char *name, char path[RIG_PATH_LEN]);

/* Waits until a server that was just started answers.  False: it does not. */
bool servers_wait(const struct load_target *t, char *err, size_t err_len);

/* Writes a configuration of nginx's, which serves the rig's files at a port of
 * this host and, unless it is NULL, at a Unix socket; `log` gets the bytes of
 * each body, a line each, or is NULL.  `path` is where it is. */
void servers_write_nginx(const struct rig *rig, const char *log,
                         const char *socket, uint16_t port,
                         char path[RIG_PATH_LEN]);

/* A port of this host that nobody uses. */
uint16_t servers_free_port(void);

#endif
