/* The module of verified sources, which stands on OpenSSL's libcrypto. */
#include <openssl/crypto.h>
#include <openssl/evp.h>

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

/* OpenSSL reads its configuration when it is first used, and maps the providers
 * that this names.  Threads of the pool, which hash, may not map code. */
static void prepare(void) {
  OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL);
  EVP_MD_free(EVP_MD_fetch(NULL, "SHA256", NULL));
}

const struct module_object cachetd_module = {CACHETD_VERSION, "source-verified",
                                             &verifier, prepare};
