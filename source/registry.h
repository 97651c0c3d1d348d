/* The registry: which kinds of remote sources there are.
 *
 * A new kind is a file in source/, and a line in registry.c. */
#ifndef SOURCE_REGISTRY_H
#define SOURCE_REGISTRY_H

#include "source/remote.h"

/* Up to NULL. */
extern const struct source_kind *const source_kinds[];

#endif
