/* The module of RBD, which stands on librbd and librados. */
#include "base/version.h"
#include "source/module.h"
#include "source/rbd.h"

static const struct source_kind *const kinds[] = {
    &rbd_source_kind,
    NULL,
};

const struct source_module cachetd_source_module = {CACHETD_VERSION, kinds};
