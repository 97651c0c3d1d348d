/* Who asks S3: keys, from where the usual tools have them.
 *
 * They are looked for as those tools do: a profile that is named is of the
 * files; without one it is the variables AWS_ACCESS_KEY_ID,
 * AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, and then the profile
 * $AWS_PROFILE, or "default".  The file is $AWS_SHARED_CREDENTIALS_FILE, or
 * ~/.aws/credentials. */
#ifndef SOURCE_S3_CREDENTIALS_H
#define SOURCE_S3_CREDENTIALS_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct s3_credentials {
  char *access_key, *secret_key;
  char *token; /* NULL: there is none */
};

/* Where to look.  NULL: as above. */
struct s3_credentials_place {
  const char *profile, *file;
};

/* Reads a file, perhaps.  0; or a negative errno, with `*why` for people, which
 * is never freed: -ENOKEY if there are no keys. */
int s3_credentials_load(const struct s3_credentials_place *place,
                        struct s3_credentials *out, const char **why);

void s3_credentials_fini(struct s3_credentials *c);

/* The value of a key of a profile, "[NAME]" or "[profile NAME]", in such a
 * file. In memory from malloc(3); NULL: there is none, or no memory. */
char *s3_credentials_find(const char *text, const char *profile,
                          const char *key);

#ifdef __cplusplus
}
#endif

#endif
