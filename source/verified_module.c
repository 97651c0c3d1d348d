/* The module of verified sources, which stands on OpenSSL's libcrypto. */
#include "base/module.h"
#include "base/version.h"
#include "source/verifier.h"

static const struct verifier verifier = {
    .open = verified_source_open,
    .open_by_digests = verified_source_by_digests,
    .free_digests = digests_free,
    .hashing_begin = hashing_begin,
    .hashing_state = hashing_state,
    .hashing_status = hashing_status,
    .hashing_source = hashing_source,
    .hashing_take = hashing_take,
    .hashing_end = hashing_end,
};

const struct module_object cachetd_module = {CACHETD_VERSION, &verifier};
