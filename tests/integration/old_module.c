/* A module of a version that never was. */
#include "base/module.h"
#include "source/remote.h"

static const struct source_kind *const kinds[] = {NULL};

const struct module_object cachetd_module = {"0.0.1", "source-http", kinds,
                                             NULL};
