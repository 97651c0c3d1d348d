#include "daemon/serve/subscription.h"

#include <assert.h>
#include <stdlib.h>

#include "daemon/serve/session.h"

bool subscription_is_allowed(struct subscription *sub) {
  struct served_image *h = sub->image->reader.served;
  unsigned now = images_n_narrowed(h) + 1; /* before the rule is asked */
  if (sub->asked == now)
    return true;
  if (!images_may_read(h, &sub->session->conn.peer))
    return false;
  sub->asked = now;
  return true;
}

struct subscription *subscription_find(struct session *s, uint32_t number) {
  struct subscription *sub;
  LIST_FOREACH(sub, &s->subscriptions, of_session)
    if (sub->number == number && !sub->ended)
      return subscription_is_allowed(sub) ? sub : NULL;
  return NULL;
}

struct subscription *subscription_find_image(struct session *s,
                                             const struct served_image *h) {
  struct subscription *sub;
  LIST_FOREACH(sub, &s->subscriptions, of_session)
    if (sub->image->reader.served == h && !sub->ended)
      return subscription_is_allowed(sub) ? sub : NULL;
  return NULL;
}

struct subscription *subscription_add(struct session *s,
                                      struct service_image *image) {
  struct subscription *sub = subscription_find_image(s, image->reader.served);
  if (sub)
    return sub;
  if (!net_thread_hold(s->conn.net, sizeof *sub))
    return NULL;
  sub = malloc(sizeof *sub);
  if (!sub) {
    net_thread_unhold(s->conn.net, sizeof *sub);
    return NULL;
  }
  *sub = (struct subscription){
      .number = ++s->n_opened, .session = s, .image = image};
  service_images_use(image);
  if (LIST_EMPTY(&s->subscriptions))
    drain_enter(&s->service->context->drain);
  LIST_INSERT_HEAD(&s->subscriptions, sub, of_session);
  LIST_INSERT_HEAD(&image->subscribers, sub, of_image);
  return sub;
}

void subscription_detach(struct subscription *sub) {
  if (sub->attached)
    sub->epoch = 0;
  sub->attached = false;
}

static void subscription_free(struct subscription *sub) {
  struct session *s = sub->session;
  assert(!sub->throttled && sub->fetching == 0);
  LIST_REMOVE(sub, of_session);
  LIST_REMOVE(sub, of_image);
  service_images_unuse(sub->image);
  net_thread_unhold(s->conn.net, sizeof *sub);
  free(sub);
  if (LIST_EMPTY(&s->subscriptions))
    drain_leave(&s->service->context->drain);
}

void subscription_hold(struct subscription *sub) { sub->n_requests++; }

void subscription_release(struct subscription *sub) {
  sub->n_requests--;
  if (sub->ended && !sub->n_requests)
    subscription_free(sub);
}

void subscription_end(struct subscription *sub) {
  sub->ended = true;
  sub->stale = 0; /* there is nothing left to be told of */
  if (!sub->n_requests)
    subscription_free(sub);
}

/* A session that ends takes all its subscriptions with it, and may have several
 * to one image: one of before a rule was narrowed, and one of after. */
void subscription_settle_all(struct subscription_list *subscribers) {
  for (struct subscription *sub = LIST_FIRST(subscribers), *next; sub;
       sub = next) {
    struct session *s = sub->session;
    next = LIST_NEXT(sub, of_image);
    while (next && next->session == s)
      next = LIST_NEXT(next, of_image);
    connection_settle(&s->conn);
  }
}

void subscription_end_all(struct session *s) {
  while (!LIST_EMPTY(&s->subscriptions)) {
    assert(LIST_FIRST(&s->subscriptions)->n_requests == 0);
    subscription_end(LIST_FIRST(&s->subscriptions));
  }
}
