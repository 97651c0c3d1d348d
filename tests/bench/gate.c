/* gate: a daemon whose source can be slow.
 *
 *   gate FILE SOCKET [DELAY_MS]
 *
 * Serves one image, "image": the bytes of FILE, which are read at once, and
 * behind them cells of zeros (gate.h), the reads of which wait at a gate.  A
 * byte on standard input opens it for good; the end of standard input opens
 * it, too, and ends the program.  With a delay there is no gate: each read of
 * cells, of which there are more, takes so long.
 *
 * A program of its own, as the daemon is that it stands for. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/server.h"
#include "tests/bench/gate.h"

enum { PAGE = 4096 };

/* Lives as long as the program. */
struct gate {
  struct source source;
  const uint8_t *bytes;
  uint64_t len;
  struct server *server;
  unsigned n_cells;
  long delay_ms; /* 0: a gate */

  pthread_mutex_t lock;
  pthread_cond_t opened;
  bool is_open; /* guarded by lock */
};

static void gate_wait(struct gate *gate) {
  if (gate->delay_ms) {
    nanosleep(&(struct timespec){gate->delay_ms / 1000,
                                 gate->delay_ms % 1000 * 1000000},
              NULL);
    return;
  }
  pthread_mutex_lock(&gate->lock);
  while (!gate->is_open)
    pthread_cond_wait(&gate->opened, &gate->lock);
  pthread_mutex_unlock(&gate->lock);
}

static void gate_open(struct gate *gate) {
  pthread_mutex_lock(&gate->lock);
  gate->is_open = true;
  pthread_cond_broadcast(&gate->opened);
  pthread_mutex_unlock(&gate->lock);
}

static int gate_read(struct source *src, uint64_t offset, void *buf,
                     size_t len) {
  struct gate *gate = (struct gate *)src; /* its first member */
  size_t n = 0;
  if (offset < gate->len)
    n = gate->len - offset < len ? gate->len - offset : len;
  memcpy(buf, gate->bytes + offset, n);
  if (n < len) {
    gate_wait(gate);
    memset((uint8_t *)buf + n, 0, len - n);
  }
  return 0;
}

static void gate_close(struct source *src) { (void)src; }

static const struct source_ops gate_ops = {
    .kind = "gate", .read = gate_read, .close = gate_close};

static int fail(const char *object, const char *message) {
  fprintf(stderr, "gate: %s: %s\n", object, message);
  return 1;
}

static int map_file(struct gate *gate, const char *path) {
  struct stat st;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &st) < 0)
    return -errno;
  void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
  if (map == MAP_FAILED)
    return -errno;
  close(fd);
  gate->bytes = map;
  gate->len = (uint64_t)st.st_size;
  gate->source.ops = &gate_ops;
  gate->source.size = gate->len + (uint64_t)gate->n_cells * GATE_CELL_LEN;
  return 0;
}

/* On a thread of its own. */
static void *obey_stdin(void *arg) {
  struct gate *gate = arg;
  char byte;
  ssize_t n;
  do {
    n = read(STDIN_FILENO, &byte, 1);
    gate_open(gate);
  } while (n > 0);
  server_stop(gate->server);
  return NULL;
}

/* Room for everything, or, of very many cells, for those that are read. */
static uint64_t cache_size(const struct gate *gate) {
  return gate->delay_ms ? 2 * gate->len + (256 << 20)
                        : gate->source.size + gate->source.size / 4;
}

static int serve(struct gate *gate, struct listener *listener, char *err,
                 size_t err_len) {
  struct server_image image = {.name = "image", .source = &gate->source};
  struct server_config config = {.limits = limits_default(),
                                 .cache_size = cache_size(gate),
                                 .page_size = PAGE,
                                 .n_workers = 1,
                                 .images = &image,
                                 .n_images = 1,
                                 .listeners = &listener,
                                 .n_listeners = 1};
  pthread_t thread;
  int r = server_new(&config, &gate->server, err, err_len);
  listener_unref(listener);
  if (r < 0)
    return r;
  r = server_start(gate->server);
  if (r == 0)
    r = -pthread_create(&thread, NULL, obey_stdin, gate);
  if (r == 0) {
    server_serve(gate->server);
    pthread_join(thread, NULL);
  }
  server_shutdown(gate->server);
  server_free(gate->server);
  return r;
}

int main(int argc, char **argv) {
  static struct gate gate = {.lock = PTHREAD_MUTEX_INITIALIZER,
                             .opened = PTHREAD_COND_INITIALIZER};
  char err[256] = "no memory";
  struct address address;
  struct listener *listener;
  gate.delay_ms = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
  gate.n_cells = gate.delay_ms ? GATE_N_SLOW_CELLS : GATE_N_CELLS;
  if (argc < 3 || argc > 4 || gate.delay_ms < 0) {
    fprintf(stderr, "usage: gate FILE SOCKET [DELAY_MS]\n");
    return 2;
  }
  log_set_level(LEVEL_ERROR);
  int r = map_file(&gate, argv[1]);
  if (r < 0)
    return fail(argv[1], strerror(-r));
  if (address_unix(argv[2], &address, err, sizeof err) < 0 ||
      listener_open(&address, &listener, err, sizeof err) < 0 ||
      serve(&gate, listener, err, sizeof err) < 0)
    return fail(argv[2], err);
  return 0;
}
