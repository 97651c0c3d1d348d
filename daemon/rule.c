#include "daemon/rule.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  /* The first and the largest buffer for the entry of a user or a group.  A
   * group may have many members. */
  ENTRY_LEN = 1024,
  ENTRY_MOST = 1 << 20,
};

static const char blanks[] = " \t";

enum term_kind { TERM_ANY, TERM_USER, TERM_GROUP, TERM_NAME };

struct term {
  enum term_kind kind;
  uint32_t id; /* of a user or a group */
  char *name;  /* of a certificate; else NULL */
};

struct rule {
  atomic_uint n_refs; /* acq_rel: the last one sees what the others did */
  size_t n;
  struct term *terms;
};

/* A word of a rule that is being read, and the place for an error message. */
struct word {
  const char *text, *value; /* the whole of it; behind its colon */
  char *why;
  size_t why_len;
};

static int refuse(const struct word *word, const char *reason) {
  snprintf(word->why, word->why_len, "\"%.100s\": %s", word->text, reason);
  return -EINVAL;
}

/* ---- Users and groups ---------------------------------------------------- */

/* Refuses the overflow id: the kernel uses it for every user without a number
 * here, so it would allow strangers. */
static int take_id(const struct word *word, uint32_t id, struct term *to) {
  if (id == PEER_OVERFLOW_ID)
    return refuse(word, "the kernel shows this number for ids it cannot map, "
                        "so it is nobody's");
  to->id = id;
  return 0;
}

static int parse_number(const struct word *word, struct term *to) {
  char *end;
  errno = 0;
  unsigned long long id = strtoull(word->value, &end, 10);
  /* The largest number stands for no id in the kernel's calls. */
  if (!isdigit((unsigned char)*word->value) || *end || errno ||
      id >= UINT32_MAX)
    return refuse(word, "not a number from 0 to 4294967294");
  return take_id(word, (uint32_t)id, to);
}

/* Looks a name up with a buffer of that length.  As getpwnam_r(3): 0 or an
 * errno, and whether there is one is in `found`. */
typedef int look_up(const char *name, char *buffer, size_t len, bool *found,
                    uint32_t *id);

static int look_up_user(const char *name, char *buffer, size_t len, bool *found,
                        uint32_t *id) {
  struct passwd entry, *result = NULL;
  int e = getpwnam_r(name, &entry, buffer, len, &result);
  *found = result != NULL;
  if (result)
    *id = result->pw_uid;
  return e;
}

static int look_up_group(const char *name, char *buffer, size_t len,
                         bool *found, uint32_t *id) {
  struct group entry, *result = NULL;
  int e = getgrnam_r(name, &entry, buffer, len, &result);
  *found = result != NULL;
  if (result)
    *id = result->gr_gid;
  return e;
}

/* Looks the name up, with a larger buffer as long as it is too small.  0 or an
 * errno. */
static int find_name(look_up *look, const char *name, bool *found,
                     uint32_t *id) {
  int e = ERANGE;
  *found = false;
  for (size_t len = ENTRY_LEN; e == ERANGE && len <= ENTRY_MOST; len *= 2) {
    char *buffer = malloc(len);
    if (!buffer)
      return ENOMEM;
    e = look(name, buffer, len, found, id);
    free(buffer);
  }
  return e;
}

static int parse_name(const struct word *word, look_up *look,
                      const char *unknown, struct term *to) {
  char reason[160];
  bool found;
  uint32_t id = 0;
  int e = find_name(look, word->value, &found, &id);
  if (found)
    return take_id(word, id, to);
  /* getpwnam(3) may return any of these for a name that does not exist. */
  if (e == 0 || e == ENOENT || e == ESRCH || e == EBADF || e == EPERM)
    return refuse(word, unknown);
  if (e == ENOMEM)
    return -ENOMEM;
  snprintf(reason, sizeof reason, "it cannot be looked up: %s", strerror(e));
  return refuse(word, reason);
}

static int parse_user(const struct word *word, struct term *to) {
  return parse_name(word, look_up_user, "there is no user of that name", to);
}

static int parse_group(const struct word *word, struct term *to) {
  return parse_name(word, look_up_group, "there is no group of that name", to);
}

/* ---- Words --------------------------------------------------------------- */

/* Writes an address in its canonical form, because that of the peer is compared
 * as text. */
static int parse_certificate(const struct word *word, struct term *to) {
  unsigned char address[sizeof(struct in6_addr)];
  char text[INET6_ADDRSTRLEN];
  const char *name = word->value;
  int family = strchr(name, ':') ? AF_INET6 : AF_INET;
  if (inet_pton(family, name, address) == 1 &&
      inet_ntop(family, address, text, sizeof text))
    name = text;
  to->name = strdup(name);
  return to->name ? 0 : -ENOMEM;
}

static const struct {
  const char *begins;
  enum term_kind kind;
  int (*parse)(const struct word *word, struct term *to);
} kinds[] = {
    {"uid:", TERM_USER, parse_number},
    {"user:", TERM_USER, parse_user},
    {"gid:", TERM_GROUP, parse_number},
    {"group:", TERM_GROUP, parse_group},
    {"cert:", TERM_NAME, parse_certificate},
};

static int parse_word(struct word *word, struct term *to) {
  *to = (struct term){.kind = TERM_ANY};
  if (strcmp(word->text, "any") == 0)
    return 0;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
    size_t len = strlen(kinds[i].begins);
    if (strncmp(word->text, kinds[i].begins, len) != 0)
      continue;
    to->kind = kinds[i].kind;
    word->value = word->text + len;
    return *word->value ? kinds[i].parse(word, to)
                        : refuse(word, "it names nobody");
  }
  return refuse(word, "it must be any, uid:N, user:NAME, gid:N, group:NAME or "
                      "cert:NAME");
}

/* ---- Rules --------------------------------------------------------------- */

static bool is_same(const struct term *a, const struct term *b) {
  return a->kind == b->kind && a->id == b->id &&
         (!a->name || strcmp(a->name, b->name) == 0);
}

/* Whether the rule has a term that is true where `term` is. */
static bool has_term(const struct rule *rule, const struct term *term) {
  for (size_t i = 0; i < rule->n; i++)
    if (rule->terms[i].kind == TERM_ANY || is_same(&rule->terms[i], term))
      return true;
  return false;
}

/* Adds a term, and takes its name over, also on failure. */
static int rule_add(struct rule *rule, struct term term) {
  struct term *grown =
      realloc(rule->terms, (rule->n + 1) * sizeof *rule->terms);
  if (!grown) {
    free(term.name);
    return -ENOMEM;
  }
  rule->terms = grown;
  grown[rule->n++] = term;
  return 0;
}

/* Adds all terms of another rule. */
static int rule_add_all(struct rule *rule, const struct rule *from) {
  int r = 0;
  for (size_t i = 0; r == 0 && i < from->n; i++) {
    struct term copy = from->terms[i];
    if (copy.name && !(copy.name = strdup(copy.name)))
      r = -ENOMEM;
    else
      r = rule_add(rule, copy);
  }
  return r;
}

/* Adds the term of a word, unless the rule has it already. */
static int rule_take(struct rule *rule, struct word *word) {
  struct term term;
  int r = parse_word(word, &term);
  if (r < 0)
    return r;
  bool is_known = has_term(rule, &term);
  if (!is_known && rule->n < RULE_MAX_TERMS)
    return rule_add(rule, term);
  free(term.name);
  return is_known
             ? 0
             : refuse(word, "there are 256 before it, and no more are taken");
}

/* Adds the terms of all words in `copy`, which it overwrites. */
static int rule_take_all(struct rule *rule, char *copy, char *why,
                         size_t why_len) {
  int r = 0;
  for (char *at = copy; r == 0 && *(at += strspn(at, blanks));) {
    struct word word = {.text = at, .why = why, .why_len = why_len};
    at += strcspn(at, blanks);
    if (*at)
      *at++ = '\0';
    r = rule_take(rule, &word);
  }
  if (r == 0 && rule->n == 0) { /* nor does `base` say anything */
    struct word none = {.text = "", .why = why, .why_len = why_len};
    r = refuse(&none, "it allows nobody; it takes any, uid:N, user:NAME, "
                      "gid:N, group:NAME and cert:NAME");
  }
  return r;
}

int rule_parse(const struct rule *base, const char *text, struct rule **out,
               char *why, size_t why_len) {
  struct rule *rule = calloc(1, sizeof *rule);
  char *copy = strdup(text);
  if (rule)
    atomic_init(&rule->n_refs, 1);
  int r = rule && copy ? 0 : -ENOMEM;
  if (r == 0 && base)
    r = rule_add_all(rule, base);
  if (r == 0)
    r = rule_take_all(rule, copy, why, why_len);
  free(copy);
  if (r < 0)
    rule_unref(rule);
  else
    *out = rule;
  return r;
}

struct rule *rule_ref(struct rule *rule) {
  if (rule)
    atomic_fetch_add_explicit(&rule->n_refs, 1, memory_order_relaxed);
  return rule;
}

void rule_unref(struct rule *rule) {
  if (!rule ||
      atomic_fetch_sub_explicit(&rule->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  for (size_t i = 0; i < rule->n; i++)
    free(rule->terms[i].name);
  free(rule->terms);
  free(rule);
}

/* FNV-1a. */
static uint64_t hash(uint64_t h, const void *bytes, size_t len) {
  for (size_t i = 0; i < len; i++)
    h = (h ^ ((const unsigned char *)bytes)[i]) * UINT64_C(1099511628211);
  return h;
}

static uint64_t term_number(const struct term *term) {
  const uint32_t numbers[2] = {term->kind, term->id};
  const char *name = term->name ? term->name : "";
  uint64_t h = UINT64_C(14695981039346656037);
  return hash(hash(h, numbers, sizeof numbers), name, strlen(name));
}

uint64_t rule_number(const struct rule *rule) {
  uint64_t sum = rule ? rule->n : 0;
  for (size_t i = 0; rule && i < rule->n; i++)
    sum += term_number(&rule->terms[i]);
  return sum;
}

/* ---- Asking -------------------------------------------------------------- */

static bool is_true_of(const struct term *term, const struct peer *peer) {
  switch (term->kind) {
  case TERM_ANY:
    return true;
  case TERM_USER:
    return peer_is_user(peer, term->id);
  case TERM_GROUP:
    return peer_is_in_group(peer, term->id);
  case TERM_NAME:
    return peer_is_named(peer, term->name);
  }
  return false;
}

bool rule_allows(const struct rule *rule, const struct peer *peer) {
  bool allows = !rule && peer->is_here;
  for (size_t i = 0; rule && !allows && i < rule->n; i++)
    allows = is_true_of(&rule->terms[i], peer);
  return allows;
}

/* Whether a rule covers a term.  Without a rule every peer on this machine is
 * allowed; a peer with an id is on this machine. */
static bool is_covered(const struct rule *wide, const struct term *term) {
  if (wide)
    return has_term(wide, term);
  return term->kind == TERM_USER || term->kind == TERM_GROUP;
}

bool rule_covers(const struct rule *wide, const struct rule *narrow) {
  const struct term anybody = {.kind = TERM_ANY};
  bool covers = true;
  if (!narrow)
    return !wide || has_term(wide, &anybody);
  for (size_t i = 0; covers && i < narrow->n; i++)
    covers = is_covered(wide, &narrow->terms[i]);
  return covers;
}
