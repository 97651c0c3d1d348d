#include "source/registry.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "base/container_of.h"
#include "base/module.h"
#include "source/kinds.h"
#include "source/uri.h"

/* A kind whose code is in a module. */
struct registered {
  struct source_kind kind;
  struct module *module; /* its content is a list of kinds, up to NULL */
};

static struct module http_module = {"source-http", "cachetd", NULL};
static struct module nbd_module = {"source-nbd", "cachetd", NULL};
static struct module cachet_module = {"source-cachet", "cachetd", NULL};
static struct module rbd_module = {"source-rbd", "cachetd-rbd", NULL};

static int check(const struct source_uri *uri, struct source_fault *fault);
static int open_source(struct reactor *r, const struct source_uri *uri,
                       const struct timespec *deadline, struct source **out,
                       struct source_fault *fault);

#define IN_MODULE(about, in)                                                   \
  { .kind = {about, .check = check, .open = open_source}, .module = in }

static struct registered http = IN_MODULE(HTTP_KIND, &http_module);
static struct registered s3 = IN_MODULE(S3_KIND, &http_module);
static struct registered nbd = IN_MODULE(NBD_KIND, &nbd_module);
static struct registered cachet = IN_MODULE(CACHET_KIND, &cachet_module);
static struct registered rbd = IN_MODULE(RBD_KIND, &rbd_module);

const struct source_kind *const source_kinds[] = {
    &http.kind, &s3.kind, &nbd.kind, &cachet.kind, &rbd.kind, NULL,
};

/* Finds the kind in its module, which is loaded if it is not. */
static const struct source_kind *code_of(const struct source_uri *uri,
                                         struct source_fault *fault) {
  const struct source_kind *kind = source_uri_kind(source_kinds, uri->text);
  struct registered *r =
      container_of((struct source_kind *)kind, struct registered, kind);
  const struct source_kind *const *kinds =
      module_load(r->module, kind->name, fault->text, sizeof fault->text);
  if (!kinds)
    return NULL;
  while (strcmp((*kinds)->name, kind->name) != 0) {
    kinds++;
    assert(*kinds); /* the module is of this program, and the right one */
  }
  return *kinds;
}

/* ---- A kind's calls ------------------------------------------------------ */

static int check(const struct source_uri *uri, struct source_fault *fault) {
  const struct source_kind *code = code_of(uri, fault);
  return code ? code->check(uri, fault) : -EINVAL;
}

static int open_source(struct reactor *r, const struct source_uri *uri,
                       const struct timespec *deadline, struct source **out,
                       struct source_fault *fault) {
  const struct source_kind *code = code_of(uri, fault);
  return code ? code->open(r, uri, deadline, out, fault) : -ENOSYS;
}
