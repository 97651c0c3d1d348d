#include "daemon/serve/attach.h"

#include <errno.h>
#include <string.h>

#include "daemon/serve/notices.h"
#include "daemon/serve/reply.h"
#include "daemon/serve/session.h"
#include "daemon/serve/subscription.h"
#include "proto/status.h"

enum {
  /* What an Attach is worth, in bytes sent: memory is made and mapped. */
  ATTACH_COST = 128 << 10,
  /* And a Grow: a few sums under locks that others take. */
  GROW_COST = 4 << 10,
};

_Static_assert((int)ATTACHMENT_N_FDS == (int)CONNECTION_N_FDS,
               "an attachment's descriptors go with one frame");

/* Gives the lease, and sends it.  0 or a negative errno: nothing was sent. */
static int lend_mirror(struct session *s, uint64_t id, uint32_t number,
                       const struct image_reader *l,
                       const struct attachment_wish *wish) {
  struct attachment_grant grant;
  if (!atomic_load_explicit(&l->served->share, memory_order_relaxed) ||
      !listener_is_local(s->conn.listener))
    return -EOPNOTSUPP;
  int r = attachment_new(s, l->served, l->mirror, wish, &grant);
  if (r < 0)
    return r;
  reply_attached(&s->conn, id, number, l->served, l->mirror, &grant);
  return connection_flush_fds(&s->conn, grant.fds) ? 0 : -ETOOMANYREFS;
}

static const char *attach_reason(int r) {
  if (r == -EDQUOT)
    return "no share of the cache is left";
  return r == -EAGAIN ? "there is no room for a pin table now" : strerror(-r);
}

bool attach_lend(struct subscription *sub, uint64_t id,
                 const struct attachment_wish *wish) {
  struct session *s = sub->session;
  const struct image_reader *l = &sub->image->reader;
  connection_spend(&s->conn, ATTACH_COST);
  int r = lend_mirror(s, id, sub->number, l, wish);
  if (r == 0) {
    sub->attached = true;
    sub->stale = 0;
    return true;
  }
  subscription_detach(sub);
  notices_announce(sub);
  connection_reply_error(
      &s->conn, id, r == -ENOMEM ? WIRE_E_NOMEM : WIRE_E_UNSUPPORTED, -r,
      "image \"%s\": attach: %s", l->served->name, attach_reason(r));
  return false;
}

void attach_grow(struct session *s, uint64_t id,
                 const Cachet__Wire__Grow *grow) {
  struct shared_pins_size size = {grow->page_slots, grow->range_capacity};
  connection_spend(&s->conn, GROW_COST);
  int r = attachment_grow(s, grow->table, &size);
  if (r < 0)
    connection_reply_error(&s->conn, id, WIRE_E_INVAL, -r,
                           "grow: this process has no such table");
  else
    reply_grown(&s->conn, id, &size);
}
