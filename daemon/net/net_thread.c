#include "daemon/net/net_thread.h"

#include <errno.h>
#include <stdlib.h>

enum {
  /* Several requests of the largest kind, or thousands of small ones. */
  RX_LEN = 256 << 10,
};

/* A turn leaves behind a batch of answers, a piece more, and a buffer of input
 * at most. */
static void net_thread_limit_held(struct net_thread *net, uint64_t max_held) {
  const struct limits *limits = net->limits;
  uint64_t turn = (uint64_t)limits->batch_len + limits->piece_len + RX_LEN;
  net->max_held = max_held;
  net->crowded_from = turn < max_held / 2 ? max_held / 2 - turn : 0;
}

int net_thread_init(struct net_thread *net, uint64_t max_held) {
  net_thread_limit_held(net, max_held);
  net->rx_cap = RX_LEN;
  net->rx = malloc(net->rx_cap);
  net->arena = frame_arena_new(FRAME_ARENA_LEN);
  return net->rx && net->arena ? send_batch_init(&net->out) : -ENOMEM;
}

void net_thread_fini(struct net_thread *net) {
  assert(!net->conns && net_thread_held(net) == 0); /* N2 */
  send_batch_fini(&net->out);
  frame_arena_free(net->arena);
  free(net->rx);
}
