#include "source/parent_target.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cachet/cachet.h>

#include "source/common_options.h"

static int no_memory(struct source_fault *fault) {
  return remote_fault(fault, -ENOMEM, "out of memory");
}

/* ---- One parent ---------------------------------------------------------- */

static bool is_same(const struct uri *a, const struct uri *b) {
  char place[2][300];
  uri_print_place(a, place[0], sizeof place[0]);
  uri_print_place(b, place[1], sizeof place[1]);
  return strcmp(place[0], place[1]) == 0 && strcmp(a->image, b->image) == 0;
}

/* The files that the URI names. */
static int check_files(const struct uri *u, struct source_fault *fault) {
  const struct {
    const char *key, *path;
  } files[] = {{"socket", u->kind == URI_UNIX ? u->path : NULL},
               {"ca", u->ca},
               {"cert", u->cert},
               {"key", u->key}};
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
    if (files[i].path &&
        remote_check_path(files[i].key, files[i].path, fault) < 0)
      return -EINVAL;
  return 0;
}

/* Takes over the text of one, which may be NULL: there was no memory for it. */
static int add(struct parent_target *t, char *text,
               struct source_fault *fault) {
  struct cachet_error why;
  if (!text)
    return no_memory(fault);
  if (t->n == PARENT_TARGET_MAX) {
    free(text);
    return remote_fault(fault, -EINVAL, "there are more than 16 parents");
  }
  struct uri *u = &t->uris[t->n];
  enum cachet_status status = uri_parse(text, u, &why);
  free(text);
  if (status == CACHET_E_NOMEM)
    return no_memory(fault);
  if (status != CACHET_OK)
    return remote_fault(fault, -EINVAL, "%s", why.message);
  t->n++;
  if (!uri_is_of_daemon(u))
    return remote_fault(fault, -EINVAL, "a parent is a daemon, and not a file");
  if (!window_is_whole(&u->window))
    return remote_fault(fault, -EINVAL,
                        "offset and length are options of the image, and do "
                        "not stand in the URI");
  for (unsigned i = 0; i + 1 < t->n; i++)
    if (is_same(u, &t->uris[i]))
      return remote_fault(fault, -EINVAL, "a parent is given twice");
  return check_files(u, fault);
}

/* Those of a list, which spaces or commas separate. */
static int add_list(struct parent_target *t, const char *list,
                    struct source_fault *fault) {
  static const char separators[] = ", \t";
  int r = 0;
  list += strspn(list, separators);
  while (*list && r == 0) {
    size_t len = strcspn(list, separators);
    r = add(t, strndup(list, len), fault);
    list += len;
    list += strspn(list, separators);
  }
  return r;
}

/* ---- What holds for all of them ------------------------------------------ */

/* A file for TLS, where the URI names none. */
static int set_file(struct parent_target *t, const struct source_uri *uri,
                    const char *key, size_t member,
                    struct source_fault *fault) {
  const char *value = common_options_find(uri, key);
  bool uses_tls = false;
  if (!value)
    return 0;
  if (remote_check_path(key, value, fault) < 0)
    return -EINVAL;
  for (unsigned i = 0; i < t->n; i++) {
    char **file = (char **)((char *)&t->uris[i] + member);
    if (t->uris[i].kind != URI_TLS)
      continue;
    uses_tls = true;
    if (!*file && !(*file = strdup(value)))
      return no_memory(fault);
  }
  return uses_tls ? 0
                  : remote_fault(fault, -EINVAL,
                                 "options for TLS, but no URI has it: use "
                                 "cachets");
}

static int set_files(struct parent_target *t, const struct source_uri *uri,
                     struct source_fault *fault) {
  int r = set_file(t, uri, "ca", offsetof(struct uri, ca), fault);
  if (r == 0)
    r = set_file(t, uri, "cert", offsetof(struct uri, cert), fault);
  if (r == 0)
    r = set_file(t, uri, "key", offsetof(struct uri, key), fault);
  for (unsigned i = 0; i < t->n && r == 0; i++)
    if (t->uris[i].key && !t->uris[i].cert)
      r = remote_fault(fault, -EINVAL, "key is of no use without cert");
  return r;
}

int parent_target_new(const struct source_uri *uri, struct parent_target **out,
                      struct source_fault *fault) {
  const char *parents = common_options_find(uri, "parents");
  const char *timeout = common_options_find(uri, "attempt-timeout");
  struct parent_target *t = calloc(1, sizeof *t);
  if (!t)
    return no_memory(fault);
  t->n_refs = 1;
  int r = add(t, strdup(uri->text), fault);
  if (r == 0 && parents)
    r = add_list(t, parents, fault);
  if (r == 0)
    r = set_files(t, uri, fault);
  t->timeout_ms = COMMON_TIMEOUT_S * 1000;
  if (r == 0 && timeout)
    r = common_options_take_timeout(timeout, &t->timeout_ms, fault);
  if (r < 0)
    parent_target_unref(t);
  else
    *out = t;
  return r;
}

struct parent_target *parent_target_ref(struct parent_target *t) {
  __atomic_fetch_add(&t->n_refs, 1, __ATOMIC_RELAXED);
  return t;
}

void parent_target_unref(struct parent_target *t) {
  if (!t || __atomic_sub_fetch(&t->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  for (unsigned i = 0; i < t->n; i++)
    uri_fini(&t->uris[i]);
  free(t);
}
