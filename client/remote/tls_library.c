#include "client/remote/tls_library.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <cachet/cachet.h>

#define OBJECT "libcachet-client-tls.so.1"

/* NULL, but in a program that has it linked in. */
extern const struct tls_library cachet_client_tls
    __attribute__((weak, visibility("default")));

/* It stays: what OpenSSL does at the end of the process is in it. */
static const struct tls_library *load(char why[TLS_WHY_LEN]) {
  void *object = dlopen(OBJECT, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  const struct tls_library *library =
      object ? dlsym(object, "cachet_client_tls") : NULL;
  if (!library) {
    const char *reason = dlerror();
    snprintf(why, TLS_WHY_LEN, "TLS needs a part of the library: %s",
             reason ? reason : OBJECT " is not it");
  }
  return library;
}

const struct tls_makers *tls_library_find(char why[TLS_WHY_LEN]) {
  const struct tls_library *library = &cachet_client_tls;
  if (!library)
    library = load(why);
  if (!library)
    return NULL;
  if (strcmp(library->version, CACHET_VERSION_STRING) == 0)
    return library->makers;
  snprintf(why, TLS_WHY_LEN, OBJECT " is of version %.20s, the library of %s",
           library->version, CACHET_VERSION_STRING);
  return NULL;
}
