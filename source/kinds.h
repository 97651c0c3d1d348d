/* What is known of each kind of source without its code, for which its module
 * has to be loaded (source/registry.h): all members of a struct source_kind but
 * its calls.  The kind and the registry are made of the same words. */
#ifndef SOURCE_KINDS_H
#define SOURCE_KINDS_H

#include "source/remote.h"

/* A list up to NULL, for a struct at file scope. */
#define KIND_WORDS(...)                                                        \
  (const char *const[]) { __VA_ARGS__, NULL }

/* Of all that speak HTTP. */
#define HTTP_OPTION_NAMES "ca", "connections", "attempt-timeout", "watch"
#define HTTP_FETCH_SIZE (512 << 10)

#define HTTP_SCHEMES "http", "https"
#define HTTP_KIND                                                              \
  .name = "http", .schemes = KIND_WORDS(HTTP_SCHEMES),                         \
  .options = KIND_WORDS(HTTP_OPTION_NAMES), .fetch_size = HTTP_FETCH_SIZE

#define S3_SCHEMES "s3"
#define S3_KIND                                                                \
  .name = "s3", .schemes = KIND_WORDS(S3_SCHEMES),                             \
  .options = KIND_WORDS(HTTP_OPTION_NAMES, "endpoint", "region", "path-style", \
                        "profile", "credentials", "anonymous"),                \
  .fetch_size = HTTP_FETCH_SIZE

#define NBD_SCHEMES "nbd", "nbds", "nbd+unix", "nbds+unix"

#define NBD_KIND                                                               \
  .name = "nbd", .schemes = KIND_WORDS(NBD_SCHEMES),                           \
  .options =                                                                   \
      KIND_WORDS("tls-certificates", "tls-psk-file", "attempt-timeout"),       \
  .fetch_size = 128 << 10

#define CACHET_KIND                                                            \
  .name = "cachet", .schemes = KIND_WORDS("cachet", "cachets", "cachet+unix"), \
  .options = KIND_WORDS("parents", "ca", "cert", "key", "attempt-timeout"),    \
  .fetch_size = 128 << 10

#define RBD_SCHEMES "rbd"
#define RBD_KIND                                                               \
  .name = "rbd", .schemes = KIND_WORDS(RBD_SCHEMES),                           \
  .options = KIND_WORDS("conf", "id", "keyring", "attempt-timeout"),           \
  .fetch_size = 128 << 10

/* Of all that the library opens in its process. */
#define REMOTE_SCHEMES HTTP_SCHEMES, S3_SCHEMES, NBD_SCHEMES, RBD_SCHEMES

#endif
