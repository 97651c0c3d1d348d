/* What is under way: bytes that are asked for and did not come in yet, and what
 * their coming says of the connection. */
#include "client/remote/internal.h"

#include "base/clock.h"

void remote_transit_sent(struct remote *r, struct pending *x) {
  struct ahead *a = &r->ahead;
  x->was_alone = a->due == 0;
  x->asked_ns = clock_now_ns();
  x->due = (uint64_t)x->n_pages << x->job.mirror->page_shift;
  a->due += x->due;
}

void remote_transit_came(struct remote *r, struct pending *x, uint64_t len) {
  struct ahead *a = &r->ahead;
  uint64_t now = clock_now_ns();
  if (x->asked_ns)
    flow_round_trip(&a->flow, now - x->asked_ns, x->was_alone);
  x->asked_ns = 0;
  if (len > x->due)
    len = x->due;
  x->due -= len;
  a->due -= len;
  flow_received(&a->flow, len, now);
}

void remote_transit_ended(struct remote *r, struct pending *x) {
  r->ahead.due -= x->due;
  x->due = 0;
  if (r->ahead.due == 0)
    flow_idle(&r->ahead.flow);
}
