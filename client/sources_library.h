/* Remote sources for the library, which are in a shared object of their own: a
 * program that opens no URI of one has no thread of the library's, and loads no
 * event loop.  The code of each kind is loaded by that one, when it is used
 * (source/registry.h).
 *
 * The object has one symbol, `cachet_client_sources`, a struct sources_calls.
 *
 * Any thread. */
#ifndef CLIENT_SOURCES_LIBRARY_H
#define CLIENT_SOURCES_LIBRARY_H

#include <time.h>

#include "cache/source.h"
#include "source/remote.h"

struct sources_calls {
  const char *version; /* of the library that it belongs to */

  /* Opens a source, and waits for it until `deadline` (CLOCK_MONOTONIC) at
   * most.  What is open tries again what fails (source/retrying.h).  0, or a
   * negative errno with `fault` set: -EINVAL for a URI or options that are
   * wrong, -ENOSYS where the code of its kind is not there. */
  int (*open)(const struct source_uri *uri, const struct timespec *deadline,
              struct source **out, struct source_fault *fault);
};

/* Finds them, and loads the object if need be.  NULL: `fault` is set. */
const struct sources_calls *sources_library_find(struct source_fault *fault);

#endif
