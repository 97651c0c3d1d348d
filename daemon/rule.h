/* Rules: which peers may do something, as `allow` in cachetd.conf(5): a list of
 *
 *     any  uid:N  user:NAME  gid:N  group:NAME  cert:NAME
 *
 * of which one that is true of a peer is enough.
 *
 *   R1  A rule never changes.  What is to change refers to another one.
 *   R2  Users and groups are looked up when a rule is read, and not again.
 *   R3  Where there is no rule (NULL), a peer may if it is on this machine.
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

/* What one can have: each peer is held against all. */
enum { RULE_MAX_TERMS = 256 };

/* Makes a rule of a text, and of all that `base` says, which may be NULL.
 * Looks up users and groups, which may take time.  0; -EINVAL with the reason
 * in `why`, which begins with the word that is wrong; or -ENOMEM. */
int rule_parse(const struct rule *base, const char *text, struct rule **out,
               char *why, size_t why_len);

/* NULL is fine, as it is for all that follow. */
struct rule *rule_ref(struct rule *rule);
void rule_unref(struct rule *rule);

bool rule_allows(const struct rule *rule, const struct peer *peer);

/* A number that rules with the same words have, in whatever order, and others
 * most likely not; also in a process to come. */
uint64_t rule_number(const struct rule *rule);

/* Whether `wide` allows all that `narrow` allows, as far as their words show:
 * a group is not compared with the users in it. */
bool rule_covers(const struct rule *wide, const struct rule *narrow);

#ifdef __cplusplus
}
#endif

#endif
