/* A module: a shared object with the code of some kinds of sources and the
 * libraries that they need.  It is loaded when one of them is used.
 *
 * It has one symbol, `cachetd_source_module`.  Code that a kind shares with its
 * program (source/reactor.h, base/) is linked into both, and has no state
 * except what it is given.  So code of the module reads structs of the program,
 * and both must be of the same version. */
#ifndef SOURCE_MODULE_H
#define SOURCE_MODULE_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct source_module {
  const char *version; /* of the program that it belongs to; the first field in
                          every version */
  const struct source_kind *const *kinds; /* up to NULL */
};

extern const struct source_module cachetd_source_module
    __attribute__((visibility("default")));

/* Loads the module of that name, if it is not loaded, and finds the kind in it.
 * The module stays loaded, because its libraries have state of the process.
 *
 * To be called on a thread that may map code.  NULL, with `fault` set:
 * `package` is the package that the message names. */
const struct source_kind *module_load_kind(const char *module, const char *kind,
                                           const char *package,
                                           struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif
