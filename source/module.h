/* A module: a shared object with the code of kinds of sources, and the
 * libraries that it stands on.  It is loaded when one of them is used.
 *
 * It has one symbol, `cachetd_source_module`.  What a kind shares with its
 * program (source/reactor.h, base/) is linked into both: that code has no state
 * of its own, but what it is given.  So a struct of the program's is read by
 * code of the module's, and both have to be of the same version. */
#ifndef SOURCE_MODULE_H
#define SOURCE_MODULE_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct source_module {
  const char *version; /* of the program that it belongs to; first, whatever the
                          version */
  const struct source_kind *const *kinds; /* up to NULL */
};

extern const struct source_module cachetd_source_module
    __attribute__((visibility("default")));

/* Loads the module of that name, unless it is there, and finds the kind in it.
 * It stays: libraries that it stands on have state that is for the process.
 *
 * On a thread that may map code.  NULL, with `fault` set: `package` is what
 * people are told to install. */
const struct source_kind *module_load_kind(const char *module, const char *kind,
                                           const char *package,
                                           struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif
