/* Where an object of S3 is: what an s3: URI and its options come to.  Pure
 * functions, but for variables of the environment. */
#ifndef SOURCE_S3_ADDRESS_H
#define SOURCE_S3_ADDRESS_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Strings in memory from malloc(3). */
struct s3_address {
  char *region;
  char *scheme;  /* "http" or "https" */
  char *host;    /* with the port, if it is not the scheme's */
  char *path;    /* encoded, with the bucket if that stands there */
  char *version; /* NULL: the newest */
  char *url;
};

/* 0; -EINVAL or -ENOMEM, with `fault` set. */
int s3_address_take(const struct source_uri *uri, struct s3_address *out,
                    struct source_fault *fault);

void s3_address_fini(struct s3_address *a);

#ifdef __cplusplus
}
#endif

#endif
