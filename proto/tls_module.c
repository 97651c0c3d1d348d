/* The daemon's module of TLS, which stands on OpenSSL. */
#include "base/module.h"
#include "base/version.h"
#include "proto/tls.h"

const struct module_object cachetd_module = {CACHETD_VERSION, "tls",
                                             &tls_makers, NULL};
