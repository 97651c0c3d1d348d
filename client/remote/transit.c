#include "client/remote/transit.h"

#include "base/clock.h"
#include "client/remote/internal.h"

void remote_transit_sent(struct remote *r, struct transit *t, uint64_t len) {
  struct readahead *a = &r->readahead;
  t->was_alone = a->due == 0;
  t->asked_ns = clock_now_ns();
  t->due = len;
  a->due += len;
}

void remote_transit_came(struct remote *r, struct transit *t, uint64_t len) {
  struct readahead *a = &r->readahead;
  uint64_t now = clock_now_ns();
  if (t->asked_ns)
    flow_round_trip(&a->flow, now - t->asked_ns, t->was_alone);
  t->asked_ns = 0;
  if (len > t->due)
    len = t->due;
  t->due -= len;
  a->due -= len;
  flow_received(&a->flow, len, now);
}

void remote_transit_ended(struct remote *r, struct transit *t) {
  if (t->due == 0)
    return;
  r->readahead.due -= t->due;
  t->due = 0;
  if (r->readahead.due == 0)
    flow_idle(&r->readahead.flow);
}
