/* A module of a version that never was. */
#include <stddef.h>

#include "source/module.h"

static const struct source_kind *const kinds[] = {NULL};

const struct source_module cachetd_source_module = {"0.0.1", kinds};
