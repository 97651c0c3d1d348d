#include "client/sources_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <cachet/cachet.h>

#define OBJECT "libcachet-client-sources.so.1"

/* It stays: its thread runs in it, and what it loads has state that is for the
 * process. */
static const struct sources_calls *load(struct source_fault *fault) {
  void *object = dlopen(OBJECT, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  const struct sources_calls *calls =
      object ? dlsym(object, "cachet_client_sources") : NULL;
  if (!calls) {
    const char *reason = dlerror();
    snprintf(fault->text, sizeof fault->text,
             "it needs a part of the library: %s",
             reason ? reason : OBJECT " is not it");
  }
  return calls;
}

const struct sources_calls *sources_library_find(struct source_fault *fault) {
  const struct sources_calls *calls = load(fault);
  if (!calls || strcmp(calls->version, CACHET_VERSION_STRING) == 0)
    return calls;
  snprintf(fault->text, sizeof fault->text,
           OBJECT " is of version %.20s, the library of %s", calls->version,
           CACHET_VERSION_STRING);
  return NULL;
}
