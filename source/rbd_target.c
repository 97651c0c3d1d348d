#include "source/rbd_target.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/percent.h"
#include "source/common_options.h"

enum {
  MAX_NAME = 256, /* bytes: Ceph's own limit is less */
};

#define SCHEME "rbd:"
#define DEFAULT_CONF "/etc/ceph/ceph.conf"
#define DEFAULT_ID "admin"

/* ---- The URI ------------------------------------------------------------- */

/* The text between two separators. */
struct part {
  const char *text;
  size_t len;
};

static struct part cut(const char **at, const char *ends) {
  struct part p = {*at, strcspn(*at, ends)};
  *at += p.len;
  return p;
}

static bool is_plain_text(const char *text) {
  while (isgraph((unsigned char)*text) && !strchr("?#:", *text))
    text++;
  return !*text;
}

static int set_name(char **to, struct part p, struct source_fault *fault) {
  char *name = percent_decode(p.text, p.len);
  if (!name)
    return errno == EINVAL
               ? remote_fault(fault, -EINVAL,
                              "the URI has a %% without two hex digits")
               : remote_no_memory(fault);
  size_t len = strlen(name);
  *to = name; /* also if it is refused: rbd_target_free() then frees it */
  if (len == 0 || len > MAX_NAME)
    return remote_fault(fault, -EINVAL,
                        "a name in the URI is empty or too long: it is "
                        "rbd:POOL/IMAGE[@SNAPSHOT]");
  return 0;
}

static int set_names(struct rbd_target *t, const struct part *parts,
                     unsigned n_parts, struct source_fault *fault) {
  int r = set_name(&t->pool, parts[0], fault);
  if (r == 0 && n_parts == 3)
    r = set_name(&t->name_space, parts[1], fault);
  else if (r == 0 && !(t->name_space = strdup("")))
    r = remote_no_memory(fault);
  return r < 0 ? r : set_name(&t->image, parts[n_parts - 1], fault);
}

static int take_uri(struct rbd_target *t, const char *text,
                    struct source_fault *fault) {
  struct part parts[3];
  unsigned n = 0;
  if (strncasecmp(text, SCHEME, strlen(SCHEME)) != 0)
    return remote_fault(fault, -EINVAL, "the scheme is not rbd");
  text += strlen(SCHEME);
  if (!is_plain_text(text))
    return remote_fault(fault, -EINVAL,
                        "the URI has a colon, a query, a fragment, or bytes "
                        "that have to be encoded: the user and the settings "
                        "are given by options");
  do {
    text += n > 0;
    parts[n++] = cut(&text, "/@");
  } while (*text == '/' && n < 3);
  if (n < 2 || *text == '/')
    return remote_fault(fault, -EINVAL,
                        "the URI is not rbd:POOL/IMAGE[@SNAPSHOT], nor with a "
                        "namespace between the two");
  int r = set_names(t, parts, n, fault);
  if (r < 0 || !*text)
    return r;
  text++; /* the @ */
  struct part snapshot = cut(&text, "/@");
  return *text ? remote_fault(fault, -EINVAL,
                              "the URI goes on behind the snapshot")
               : set_name(&t->snapshot, snapshot, fault);
}

/* ---- Options ------------------------------------------------------------- */

static int take_text(const char *value, char **to, struct source_fault *fault) {
  if (!*value)
    return remote_fault(fault, -EINVAL, "an option has no value");
  char *copy = strdup(value);
  if (!copy)
    return remote_no_memory(fault);
  free(*to); /* the last one wins */
  *to = copy;
  return 0;
}

static int take_path(const struct source_option *o, char **to,
                     struct source_fault *fault) {
  int r = remote_check_path(o->key, o->value, fault);
  return r < 0 ? r : take_text(o->value, to, fault);
}

static int take_option(struct rbd_target *t, const struct source_option *o,
                       struct source_fault *fault) {
  if (strcmp(o->key, "conf") == 0)
    return take_path(o, &t->conf, fault);
  if (strcmp(o->key, "keyring") == 0)
    return take_path(o, &t->keyring, fault);
  if (strcmp(o->key, "id") == 0)
    return take_text(o->value, &t->id, fault);
  if (strcmp(o->key, "attempt-timeout") == 0)
    return common_options_take_timeout(o->value, &t->timeout_ms, fault);
  return remote_fault(fault, -EINVAL, "an option is not one of RBD's");
}

static int take_options(struct rbd_target *t, const struct source_uri *uri,
                        struct source_fault *fault) {
  int r = take_text(DEFAULT_CONF, &t->conf, fault);
  if (r == 0)
    r = take_text(DEFAULT_ID, &t->id, fault);
  t->timeout_ms = COMMON_TIMEOUT_S * 1000;
  for (size_t i = 0; r == 0 && i < uri->n_options; i++)
    r = take_option(t, &uri->options[i], fault);
  return r;
}

/* ---- Targets ------------------------------------------------------------- */

void rbd_target_free(struct rbd_target *t) {
  if (!t)
    return;
  free(t->pool);
  free(t->name_space);
  free(t->image);
  free(t->snapshot);
  free(t->conf);
  free(t->id);
  free(t->keyring);
  free(t);
}

int rbd_target_new(const struct source_uri *uri, struct rbd_target **out,
                   struct source_fault *fault) {
  struct rbd_target *t = calloc(1, sizeof *t);
  if (!t)
    return remote_no_memory(fault);
  int r = take_uri(t, uri->text, fault);
  if (r == 0)
    r = take_options(t, uri, fault);
  if (r < 0)
    rbd_target_free(t);
  else
    *out = t;
  return r;
}

static bool copy_text(const char *from, char **to) {
  *to = from ? strdup(from) : NULL;
  return *to || !from;
}

struct rbd_target *rbd_target_copy(const struct rbd_target *t) {
  struct rbd_target *copy = calloc(1, sizeof *copy);
  if (!copy)
    return NULL;
  copy->timeout_ms = t->timeout_ms;
  if (copy_text(t->pool, &copy->pool) && copy_text(t->image, &copy->image) &&
      copy_text(t->name_space, &copy->name_space) &&
      copy_text(t->snapshot, &copy->snapshot) &&
      copy_text(t->conf, &copy->conf) && copy_text(t->id, &copy->id) &&
      copy_text(t->keyring, &copy->keyring))
    return copy;
  rbd_target_free(copy);
  return NULL;
}
