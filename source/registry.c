#include "source/registry.h"

#include <stddef.h>

#include "source/http.h"

const struct source_kind *const source_kinds[] = {
    &http_source_kind,
    NULL,
};
