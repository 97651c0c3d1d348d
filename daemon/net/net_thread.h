/* What the connections of one thread share: the loop, the buffers that none of
 * them needs between its turns, and the account of the memory that they hold.
 *
 *   N1  The output is empty and no image reader holds a pin whenever the loop
 *       runs.
 *   N2  `held` is the sum of the memory outside the cache that is held for the
 *       connections: input that was not looked at, answers that were not taken,
 *       and what their owners count: requests that wait, images that were
 *       opened.  It is never more than `max_held`: what would go over it is not
 *       kept, and a connection that cannot go on without it is ended.
 *   N3  In the upper half of that the thread is crowded.  Then a connection
 *       takes in little at a time, and nothing at all is produced for one whose
 *       socket has no room for it: see connection_has_room().
 *
 * That thread only, but for `held`, which others read. */
#ifndef DAEMON_NET_NET_THREAD_H
#define DAEMON_NET_NET_THREAD_H

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"
#include "daemon/limits.h"
#include "daemon/net/closer.h"
#include "daemon/net/send_batch.h"
#include "daemon/net/users.h"
#include "proto/frame.h"

struct connection;

struct net_thread {
  struct loop *loop;
  const struct limits *limits;
  struct closer *closer; /* all threads' */
  struct users *users;   /* all threads': that connections count for */
  struct connection *conns;
  bool stopping; /* takes no new requests */

  /* The last connection is gone. */
  void (*emptied)(void *arg);
  void *arg;

  struct send_batch out;
  uint8_t *rx; /* what a connection received, during its turn */
  size_t rx_cap;
  struct frame_arena *arena;
  _Atomic uint64_t held; /* relaxed: others read it as a statistic; see N2 */
  uint64_t max_held, crowded_from;
};

/* `net` is zeroed, but for the members above `out`.  0 or -ENOMEM;
 * either way net_thread_fini() is due. */
int net_thread_init(struct net_thread *net, uint64_t max_held);

/* It has no connection. */
void net_thread_fini(struct net_thread *net);

static inline uint64_t net_thread_held(const struct net_thread *net) {
  return atomic_load_explicit(&net->held, memory_order_relaxed);
}

/* How many bytes more may be counted. */
static inline uint64_t net_thread_room(const struct net_thread *net) {
  return net->max_held - net_thread_held(net);
}

/* False: it would be too much, and nothing is counted. */
static inline bool net_thread_hold(struct net_thread *net, uint64_t len) {
  if (len > net_thread_room(net))
    return false;
  atomic_store_explicit(&net->held, net_thread_held(net) + len,
                        memory_order_relaxed);
  return true;
}

static inline void net_thread_unhold(struct net_thread *net, uint64_t len) {
  uint64_t held = net_thread_held(net);
  assert(len <= held);
  atomic_store_explicit(&net->held, held - len, memory_order_relaxed);
}

/* What was counted as `*counted` bytes is `now` so many: more than before only
 * where there was room for it. */
static inline void net_thread_count(struct net_thread *net, size_t *counted,
                                    size_t now) {
  if (now == *counted)
    return;
  net_thread_unhold(net, *counted);
  bool fits = net_thread_hold(net, now);
  assert(fits);
  *counted = now;
}

/* Whether what a connection may leave behind in a turn could reach into the
 * upper half (N3). */
static inline bool net_thread_is_crowded(const struct net_thread *net) {
  return net_thread_held(net) >= net->crowded_from;
}

#endif
