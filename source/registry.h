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

/* Says which thread loads modules, where not every one may map code: `run` has
 * one that may call load(what), and waits for the end of that.  Until this is
 * said, the calling thread does it.  While nobody checks or opens. */
void registry_load_by(void (*run)(void *arg, void (*load)(void *what),
                                  void *what),
                      void *arg);

/* In a child process, whose only thread this is: another one, which is not
 * here, may have been loading when it forked. */
void registry_forked(void);

#ifdef __cplusplus
}
#endif

#endif
