/* The library's remote sources, in a shared object of their own: a program that
 * opens no URI of one has no thread of the library, and loads no event loop.
 * That object loads the code of each kind of source when it is used
 * (source/registry.h).
 *
 * The object has one symbol, `cachet_client_sources`, a struct sources_calls.
 *
 * Any thread may call it. */
#ifndef CLIENT_SOURCES_LIBRARY_H
#define CLIENT_SOURCES_LIBRARY_H

#include <time.h>

#include "cache/source.h"
#include "source/remote.h"

struct sources_calls {
  const char *version; /* of the library that it belongs to */

  /* Opens a source, and waits for it at most until `deadline`
   * (CLOCK_MONOTONIC).  An open source repeats reads that fail
   * (source/retrying.h). 0, or a negative errno with `fault` set: -EINVAL if
   * the URI or the options are wrong, -ENOSYS if the code of the kind is
   * missing. */
  int (*open)(const struct source_uri *uri, const struct timespec *deadline,
              struct source **out, struct source_fault *fault);
};

/* Finds the calls, and loads the object if necessary.  NULL: `fault` is set. */
const struct sources_calls *sources_library_find(struct source_fault *fault);

#endif
