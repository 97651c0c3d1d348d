#include "daemon/serve/subscription.h"

#include <stdlib.h>

#include "daemon/serve/session.h"

struct subscription *subscription_find(struct session *s, unsigned image) {
  for (unsigned i = 0; i < s->n_subscriptions; i++)
    if (s->subscriptions[i].image == image)
      return &s->subscriptions[i];
  return NULL;
}

struct subscription *subscription_add(struct session *s, unsigned image) {
  struct subscription *sub = subscription_find(s, image);
  if (sub)
    return sub;
  if (!net_thread_hold(s->conn.net, sizeof *sub))
    return NULL;
  struct subscription *grown =
      realloc(s->subscriptions, (s->n_subscriptions + 1) * sizeof *grown);
  if (!grown) {
    net_thread_unhold(s->conn.net, sizeof *sub);
    return NULL;
  }
  s->subscriptions = grown;
  sub = &grown[s->n_subscriptions++];
  *sub = (struct subscription){.image = image};
  return sub;
}

void subscription_detach(struct subscription *sub) {
  if (sub->attached)
    sub->epoch = 0;
  sub->attached = false;
}

void subscription_free_all(struct session *s) {
  net_thread_unhold(s->conn.net, s->n_subscriptions * sizeof *s->subscriptions);
  free(s->subscriptions);
  s->subscriptions = NULL;
  s->n_subscriptions = 0;
}
