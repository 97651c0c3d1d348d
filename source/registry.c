#include "source/registry.h"

#include <stddef.h>

#include "source/http.h"
#include "source/nbd.h"
#include "source/s3.h"

const struct source_kind *const source_kinds[] = {
    &http_source_kind,
    &s3_source_kind,
    &nbd_source_kind,
    NULL,
};
