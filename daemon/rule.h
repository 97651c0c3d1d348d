/* Rules: which peers may do something, as `allow` in cachetd.conf(5): a list of
 *
 *     any  uid:N  user:NAME  gid:N  group:NAME  cert:NAME
 *
 * A rule allows a peer if one of these is true of it.
 *
 *   R1  A rule never changes.  A change replaces the rule by another.
 *   R2  Users and groups are looked up when a rule is parsed, and not again.
 *   R3  Without a rule (NULL), each peer on this machine is allowed.
 *
 * Any thread. */
#ifndef DAEMON_RULE_H
#define DAEMON_RULE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/peer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct rule; /* counted */

/* The rule of an image. */
struct image_rule {
  const char *name;
  struct rule *allow; /* NULL: it has none of its own */
};

/* The most that a rule can have: each peer is compared with all. */
enum { RULE_MAX_TERMS = 256 };

/* Makes a rule from a text, and from the terms of `base`, which may be NULL.
 * Looks up users and groups, which may take time.  0; -EINVAL with the reason
 * in `why`, which begins with the wrong word; or -ENOMEM. */
int rule_parse(const struct rule *base, const char *text, struct rule **out,
               char *why, size_t why_len);

/* NULL is fine, as for all calls that follow. */
struct rule *rule_ref(struct rule *rule);
void rule_unref(struct rule *rule);

bool rule_allows(const struct rule *rule, const struct peer *peer);

/* A number that is the same for rules with the same words, in any order, and
 * most likely different for others; in every process. */
uint64_t rule_number(const struct rule *rule);

/* Whether `wide` allows all peers that `narrow` allows, as far as their words
 * show: a group is not compared with the users in it. */
bool rule_covers(const struct rule *wide, const struct rule *narrow);

#ifdef __cplusplus
}
#endif

#endif
