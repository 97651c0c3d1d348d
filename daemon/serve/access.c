#include "daemon/serve/access.h"

#include <unistd.h>

#include "base/clock.h"
#include "daemon/rule.h"

/* Whether the peer is in the group of the socket that it came by. */
static bool is_of_socket(const struct connection *c) {
  gid_t group;
  return listener_group(c->listener, &group) &&
         peer_is_in_group(&c->peer, group);
}

/* `without_rule`: whether it may where there is none. */
static bool may_administer(struct server_context *context,
                           const struct connection *c, bool without_rule) {
  if (peer_is_user(&c->peer, 0) || peer_is_user(&c->peer, geteuid()))
    return true;
  pthread_mutex_lock(&context->rule_lock);
  struct rule *rule = rule_ref(context->admin);
  pthread_mutex_unlock(&context->rule_lock);
  bool may = rule ? rule_allows(rule, &c->peer) : without_rule;
  rule_unref(rule);
  return may;
}

bool access_may_administer(struct server_context *context,
                           const struct connection *c) {
  return may_administer(context, c, false);
}

bool access_may_invalidate(struct server_context *context,
                           const struct connection *c) {
  return may_administer(context, c, is_of_socket(c));
}

/* It is too short a time to sleep. */
void access_hide_lookup(uint64_t began) {
  while (clock_now_ns() - began < ACCESS_HIDE_NS)
    ;
}

bool access_may_see_daemon(struct server_context *context,
                           const struct connection *c) {
  return images_may_read_all(&context->images, &c->peer) ||
         access_may_invalidate(context, c);
}
