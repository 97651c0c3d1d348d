/* What libcachet-client-sources.so.1 is: remote sources for the library to
 * find.
 *
 * They share one reactor, which is begun by the first that is opened, and stays
 * for as long as the process does.  A child process has none of it: the first
 * that it opens begins another.  What a child has inherited is left as it is:
 * its descriptors are the parent's, too. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cachet/cachet.h>

#include "base/module.h"
#include "base/shown_uri.h"
#include "client/sources_library.h"
#include "source/reactor.h"
#include "source/registry.h"
#include "source/retrying.h"
#include "source/uri.h"

extern const struct sources_calls cachet_client_sources;

/* ---- The reactor --------------------------------------------------------- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct reactor *reactor; /* guarded by lock; NULL: none has begun */

/* In the child there is this thread alone. */
static void forget(void) {
  pthread_mutex_init(&lock, NULL);
  reactor = NULL;
  module_forked();
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget); }

static int find_reactor(struct reactor **out) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  int r = 0;
  pthread_once(&once, watch_forks);
  pthread_mutex_lock(&lock);
  if (!reactor)
    r = reactor_new(&reactor);
  *out = reactor;
  pthread_mutex_unlock(&lock);
  return r;
}

/* ---- Opening ------------------------------------------------------------- */

static int check_options(const struct source_kind *kind,
                         const struct source_uri *uri,
                         struct source_fault *fault) {
  for (size_t i = 0; i < uri->n_options; i++)
    if (!source_uri_has_option(kind, uri->options[i].key))
      return remote_fault(fault, -EINVAL, "%.64s: it is no option of %s",
                          uri->options[i].key, kind->name);
  return 0;
}

/* Takes `below` over, also on failure. */
static int retry(struct reactor *r, const char *text, struct source *below,
                 struct source **out) {
  const struct retrying_clock clock = retrying_clock_of(r);
  char *shown = shown_uri_of(text);
  struct retrying *retrying = shown ? retrying_new(&clock, shown, NULL) : NULL;
  int failed = retrying ? retrying_source_new(retrying, below, out) : -ENOMEM;
  if (failed)
    below->ops->close(below);
  retrying_unref(retrying);
  free(shown);
  return failed;
}

static int open_source(const struct source_uri *uri,
                       const struct timespec *deadline, struct source **out,
                       struct source_fault *fault) {
  struct reactor *r;
  struct source *below;
  const struct source_kind *kind = source_uri_kind(source_kinds, uri->text);
  if (!kind)
    return remote_fault(fault, -EINVAL, "there is no source for its scheme");
  int failed = check_options(kind, uri, fault);
  if (failed)
    return failed;
  failed = find_reactor(&r);
  if (failed)
    return remote_fault(fault, failed, "begin the thread of remote sources: %s",
                        strerror(-failed));
  failed = kind->open(r, uri, deadline, &below, fault);
  if (!failed)
    failed = retry(r, uri->text, below, out);
  if (!failed)
    (*out)->fetch_size.least = kind->fetch_size;
  return failed;
}

CACHET_API const struct sources_calls cachet_client_sources = {
    .version = CACHET_VERSION_STRING,
    .open = open_source,
};
