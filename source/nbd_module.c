/* The module of NBD, which stands on libnbd. */
#include "base/version.h"
#include "source/module.h"
#include "source/nbd.h"

static const struct source_kind *const kinds[] = {
    &nbd_source_kind,
    NULL,
};

const struct source_module cachetd_source_module = {CACHETD_VERSION, kinds};
