/* The module of what speaks HTTP, which stands on libcurl. */
#include "base/module.h"
#include "base/version.h"
#include "source/http.h"
#include "source/s3.h"

static const struct source_kind *const kinds[] = {
    &http_source_kind,
    &s3_source_kind,
    NULL,
};

const struct module_object cachetd_module = {CACHETD_VERSION, "source-http",
                                             kinds, NULL};
