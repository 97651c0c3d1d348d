/* The module of images that other daemons serve. */
#include "base/module.h"
#include "base/version.h"
#include "source/parent.h"

static const struct source_kind *const kinds[] = {
    &parent_source_kind,
    NULL,
};

const struct module_object cachetd_module = {CACHETD_VERSION, "source-cachet",
                                             kinds, NULL};
