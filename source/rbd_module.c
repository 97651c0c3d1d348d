/* The module of RBD, which stands on librbd and librados. */
#include "base/module.h"
#include "base/version.h"
#include "source/rbd.h"

static const struct source_kind *const kinds[] = {
    &rbd_source_kind,
    NULL,
};

const struct module_object cachetd_module = {CACHETD_VERSION, "source-rbd",
                                             kinds, NULL};
