#include "source/registry.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>

#include "base/container_of.h"
#include "source/kinds.h"
#include "source/module.h"
#include "source/uri.h"

/* A kind whose code is in a module. */
struct registered {
  struct source_kind kind;
  const char *module, *package; /* source-MODULE.so, in a package of Debian's */
  const struct source_kind *code; /* NULL: not loaded; guarded by `lock` */
};

static int check(const struct source_uri *uri, struct source_fault *fault);
static int open_source(struct reactor *r, const struct source_uri *uri,
                       const struct timespec *deadline, struct source **out,
                       struct source_fault *fault);

#define IN_MODULE(about, name, from)                                           \
  {                                                                            \
    .kind = {about, .check = check, .open = open_source}, .module = name,      \
    .package = from                                                            \
  }

static struct registered http = IN_MODULE(HTTP_KIND, "http", "cachetd");
static struct registered s3 = IN_MODULE(S3_KIND, "http", "cachetd");
static struct registered nbd = IN_MODULE(NBD_KIND, "nbd", "cachetd");
static struct registered cachet = IN_MODULE(CACHET_KIND, "cachet", "cachetd");

static struct registered rbd = IN_MODULE(RBD_KIND, "rbd", "cachetd-rbd");

const struct source_kind *const source_kinds[] = {
    &http.kind, &s3.kind, &nbd.kind, &cachet.kind, &rbd.kind, NULL,
};

/* ---- Loading ------------------------------------------------------------- */

/* Held while a module is loaded, on this thread or another one, which does not
 * take it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void run_here(void *arg, void (*load)(void *what), void *what) {
  (void)arg;
  load(what);
}

static struct {
  void (*run)(void *arg, void (*load)(void *what), void *what);
  void *arg;
} loader = {.run = run_here};

void registry_load_by(void (*run)(void *arg, void (*load)(void *what),
                                  void *what),
                      void *arg) {
  loader.run = run;
  loader.arg = arg;
}

void registry_forked(void) { pthread_mutex_init(&lock, NULL); }

struct loading {
  struct registered *kind;
  struct source_fault *fault;
};

static void load(void *what) {
  struct loading *l = what;
  l->kind->code = module_load_kind(l->kind->module, l->kind->kind.name,
                                   l->kind->package, l->fault);
}

/* What failed is tried again by the next one: somebody may have installed it.
 */
static const struct source_kind *code_of(const struct source_uri *uri,
                                         struct source_fault *fault) {
  const struct source_kind *kind = source_uri_kind(source_kinds, uri->text);
  struct registered *r =
      container_of((struct source_kind *)kind, struct registered, kind);
  pthread_mutex_lock(&lock);
  if (!r->code)
    loader.run(loader.arg, load, &(struct loading){r, fault});
  const struct source_kind *code = r->code;
  pthread_mutex_unlock(&lock);
  return code;
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
