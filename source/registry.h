/* The registry: which kinds of remote sources there are.
 *
 * A new kind is a file in source/, what is known of it in source/kinds.h, and a
 * line in registry.c.  The code of a kind is in a module (source/module.h),
 * which the first URI of its schemes that is checked has loaded. */
#ifndef SOURCE_REGISTRY_H
#define SOURCE_REGISTRY_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Up to NULL. */
extern const struct source_kind *const source_kinds[];

/* Who loads modules, where not every thread may map code: `run` has one that
 * may call load(what), and waits for the end of that.  Until this is said, the
 * calling thread does it.  While nobody checks or opens. */
void registry_load_by(void (*run)(void *arg, void (*load)(void *what),
                                  void *what),
                      void *arg);

#ifdef __cplusplus
}
#endif

#endif
