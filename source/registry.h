/* The registry of the kinds of remote sources.
 *
 * A new kind needs a file in source/, an entry in source/kinds.h, and a line in
 * registry.c.  The code of a kind is in a module (source/module.h), which is
 * loaded when the first URI with one of its schemes is checked. */
#ifndef SOURCE_REGISTRY_H
#define SOURCE_REGISTRY_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The kinds, up to NULL. */
extern const struct source_kind *const source_kinds[];

/* Sets which thread loads modules, if not every thread may map code: `run`
 * makes a thread that may do so call load(what), and waits until it has ended.
 * Before this call, the calling thread loads them.  To be called while nobody
 * checks or opens a URI. */
void registry_load_by(void (*run)(void *arg, void (*load)(void *what),
                                  void *what),
                      void *arg);

/* To be called in a child process, by its only thread: another thread, which
 * does not exist in the child, may have been loading a module when the process
 * forked. */
void registry_forked(void);

#ifdef __cplusplus
}
#endif

#endif
