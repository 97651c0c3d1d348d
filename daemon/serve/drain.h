/* Draining: the daemon is to end when its clients have left.
 *
 * A client is a session that has an image open.  While the daemon drains no
 * other session opens one: it is told so.  Those that have are served as ever.
 *
 *   D1  When it drains and no session has an image open, done() is called: by
 *       the last that leaves, or by drain_begin().  It may be called again.
 *
 * A session that opens an image in the moment in which the drain ends is closed
 * like those of a daemon that stops.
 *
 * Any thread. */
#ifndef DAEMON_SERVE_DRAIN_H
#define DAEMON_SERVE_DRAIN_H

#include <stdatomic.h>
#include <stdbool.h>

struct drain {
  /* Sequentially consistent: the thread that sets `is_on` and one that leaves
   * each write one and then read the other, so one of them sees both. */
  atomic_bool is_on;
  atomic_uint n_clients;

  /* What the server does: it was asked to drain, for so long, as
   * server_begin_drain() says; it has drained. */
  void (*asked)(void *arg, int timeout_ms);
  void (*done)(void *arg);
  void *arg;
};

static inline bool drain_is_on(const struct drain *d) {
  return atomic_load(&d->is_on);
}

static inline unsigned drain_n_clients(const struct drain *d) {
  return atomic_load(&d->n_clients);
}

static inline void drain_check(struct drain *d) {
  if (drain_is_on(d) && drain_n_clients(d) == 0)
    d->done(d->arg);
}

/* From here on it drains. */
static inline void drain_begin(struct drain *d) {
  atomic_store(&d->is_on, true);
  drain_check(d);
}

/* A session opens its first image, or has none open any more. */
static inline void drain_enter(struct drain *d) {
  atomic_fetch_add(&d->n_clients, 1);
}

static inline void drain_leave(struct drain *d) {
  atomic_fetch_sub(&d->n_clients, 1);
  drain_check(d);
}

#endif
