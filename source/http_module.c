/* The module of what speaks HTTP, which stands on libcurl. */
#include "base/version.h"
#include "source/http.h"
#include "source/module.h"
#include "source/s3.h"

static const struct source_kind *const kinds[] = {
    &http_source_kind,
    &s3_source_kind,
    NULL,
};

const struct source_module cachetd_source_module = {CACHETD_VERSION, kinds};
