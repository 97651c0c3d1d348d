/* The module of images that other daemons serve. */
#include "base/version.h"
#include "source/module.h"
#include "source/parent.h"

static const struct source_kind *const kinds[] = {
    &parent_source_kind,
    NULL,
};

const struct source_module cachetd_source_module = {CACHETD_VERSION, kinds};
