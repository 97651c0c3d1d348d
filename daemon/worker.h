/* A worker: one thread, one event loop, and the connections that were given to
 * it, from first byte to last.
 *
 * Everything in it belongs to its thread, but for the loop's mailbox, through
 * which other threads reach it, and the counters, which they read.
 *
 *   W1  The output is empty and no image reader holds a pin whenever the loop
 * runs. W2  n_waiting counts the requests that another thread will post back;
 * the worker does not end before they have come. W3  `fetching` is the sum over
 * its connections, orphans included, of the bytes being fetched, and over its
 * readers as well. W4  `held` is the sum of what its connections hold of memory
 * outside the cache: input that was not looked at, answers that were not taken,
 *       requests that wait (orphans included), and the images they opened.  It
 *       is never more than `max_held`: what would go over it is not kept, and a
 *       connection that cannot go on without is ended.
 *   W5  In the upper half of that the worker is crowded.  Then a connection
 *       takes in little at a time, and nothing at all is produced for one whose
 *       socket has no room for it: see connection_has_room(). */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <event2/event_struct.h>

#include "daemon/engine/fill_dispatch.h"
#include "daemon/engine/image_reader.h"
#include "daemon/engine/loop.h"
#include "daemon/host.h"
#include "daemon/net/send_batch.h"
#include "daemon/serve/attachment.h"
#include "daemon/stats.h"
#include "proto/frame.h"

struct connection;
struct notice;
struct worker;

/* Offset and length of a range of a Read or Warm, out of protobuf. */
struct range {
  uint64_t offset, length;
};

struct worker {
  struct host *host;
  unsigned index;
  pthread_t thread;
  bool started; /* the server's */

  struct loop loop;
  struct connection *conns;
  unsigned n_turns; /* of all readers: requests that may not fetch yet */
  struct image_reader *readers; /* one for each image */
  struct image_task {
    struct task task;
    struct worker *worker;
    unsigned image;
  } * changed; /* one for each image: it has a new epoch */
  struct counters *counters;
  struct begun begun;
  struct send_batch out;
  uint8_t *rx; /* what a connection received, during its turn */
  size_t rx_cap;
  struct frame_arena *arena;
  struct range *ranges; /* of the request being looked at: max_ranges */
  struct attachment_list attachments;
  struct event attach_tick; /* while there are some */
  uint64_t attach_collected_ms;
  uint64_t fetching;
  _Atomic uint64_t held; /* relaxed: others read it as a statistic; see W4 */
  uint64_t max_held, crowded_from;
  unsigned n_waiting;
  unsigned n_invalidations; /* under way, orphans' included */

  /* Notices of invalidations that connections are owed yet, oldest first. */
  struct notice *owed_head, **owed_tail;
  uint64_t n_notices;      /* serial numbers */
  struct event owed_timer; /* when the first has waited long enough */
  struct task owed_task;   /* some may have got away */
  bool stopping;           /* no new requests */
  bool quitting;           /* ends when nothing waits any more */

  /* How far an orderly stop has come; posted by the server. */
  struct task stop_task, close_task, quit_task;
  void (*drained)(void *arg); /* runs once, on this thread: no connection */
  void *drained_arg;          /* is left after a stop */
  bool told_drained;
};

struct worker *worker_new(struct host *host, unsigned index, uint64_t max_held);

/* 0 or a negative errno. */
int worker_start(struct worker *w);

/* An image has a new epoch: the connections that opened it will hear of it.
 * Any thread. */
void worker_post_changed(struct worker *w, unsigned image);

/* The three steps of a stop, each from any thread: take no new requests, and
 * call `drained` when all connections are gone; close those that are left; end
 * the thread once nothing waits, and join it. */
void worker_stop(struct worker *w, void (*drained)(void *arg), void *arg);
void worker_close_all(struct worker *w);
void worker_join(struct worker *w);

/* The thread has ended, or never began.  NULL is fine. */
void worker_free(struct worker *w);

/* ---- Memory that connections hold (W4), on the worker's thread ----------- */

static inline uint64_t worker_held(const struct worker *w) {
  return atomic_load_explicit(&w->held, memory_order_relaxed);
}

/* False: it would be too much, and nothing is counted. */
static inline bool worker_hold(struct worker *w, uint64_t len) {
  uint64_t held = worker_held(w);
  if (len > w->max_held - held)
    return false;
  atomic_store_explicit(&w->held, held + len, memory_order_relaxed);
  return true;
}

static inline void worker_unhold(struct worker *w, uint64_t len) {
  uint64_t held = worker_held(w);
  assert(len <= held);
  atomic_store_explicit(&w->held, held - len, memory_order_relaxed);
}

/* Whether what a connection may leave behind in a turn could reach into the
 * upper half (W5). */
static inline bool worker_is_crowded(const struct worker *w) {
  return worker_held(w) >= w->crowded_from;
}

/* ---- For connection.c, on the worker's thread
 * ---------------------------------- */

/* Calls `drained` if it is time to. */
void worker_check_drained(struct worker *w);

#endif
