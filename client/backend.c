#include "client/backend.h"

#include <poll.h>

#include "base/deadline.h"

bool backend_wait(struct backend *b, int64_t deadline) {
  if (deadline_has_passed(deadline))
    return false;
  if (b->ops->before_wait)
    b->ops->before_wait(b);
  struct pollfd p = {.fd = b->ops->fd(b), .events = b->ops->events(b)};
  int64_t timeout =
      deadline_earlier(b->ops->timeout_ms(b), deadline_left_ms(deadline));
  /* A failed poll is an interrupted one (or a lack of kernel memory, which
   * passes): progress() finds out by itself what there is to do. */
  poll(&p, 1, (int)timeout);
  b->ops->progress(b);
  return true;
}
