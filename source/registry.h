/* The registry of the kinds of remote sources.
 *
 * A new kind needs a file in source/, an entry in source/kinds.h, and a line in
 * registry.c.  The code of a kind is in a module (base/module.h), which is
 * loaded when the first URI with one of its schemes is checked. */
#ifndef SOURCE_REGISTRY_H
#define SOURCE_REGISTRY_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The kinds, up to NULL. */
extern const struct source_kind *const source_kinds[];

#ifdef __cplusplus
}
#endif

#endif
