#include "source/registry.h"

#include <stddef.h>

const struct source_kind *const source_kinds[] = {
    NULL,
};
