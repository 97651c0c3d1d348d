/* The module of NBD, which stands on libnbd. */
#include "base/module.h"
#include "base/version.h"
#include "source/nbd.h"

static const struct source_kind *const kinds[] = {
    &nbd_source_kind,
    NULL,
};

const struct module_object cachetd_module = {CACHETD_VERSION, "source-nbd",
                                             kinds, NULL};
