/* Credentials for S3: keys, from where the usual tools have them.
 *
 * They are looked for as those tools do.  A profile or a file that is named is
 * where they are, and nowhere else.  Without one it is the first of these that
 * there is:
 *
 *   1  the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
 *      AWS_SESSION_TOKEN;
 *   2  a web identity, the file AWS_WEB_IDENTITY_TOKEN_FILE, for which STS
 *      gives keys of the role AWS_ROLE_ARN;
 *   3  the profile $AWS_PROFILE, or "default", of the file
 *      $AWS_SHARED_CREDENTIALS_FILE, or ~/.aws/credentials;
 *   4  the agent of a container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or
 *      AWS_CONTAINER_CREDENTIALS_FULL_URI;
 *   5  the metadata service of an instance of EC2.
 *
 * One that is there, and fails, is an error: the next one would be somebody
 * else. */
#ifndef SOURCE_S3_CREDENTIALS_H
#define SOURCE_S3_CREDENTIALS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct s3_credentials {
  char *access_key, *secret_key;
  char *token;       /* NULL: there is none */
  int64_t expires_s; /* seconds since 1970; 0: nobody said when */
};

/* Where to look.  NULL: as above. */
struct s3_credentials_place {
  const char *profile, *file;
  const char *region; /* whose STS it is */
  const char *ca;     /* a file of certificates, for STS; NULL: the system's */
};

/* Reads files and asks servers, until `deadline` (base/deadline.h) at most: for
 * a thread that may wait.  A file may take longer.  0; or a negative errno,
 * with
 * `*why` for people, which is never freed and has no secrets: -ENOKEY if there
 * are no keys. */
int s3_credentials_load(const struct s3_credentials_place *place,
                        int64_t deadline, struct s3_credentials *out,
                        const char **why);

/* Whether there are keys, of printable characters: they become headers.  0; or
 * -ENOKEY or -EPROTO with `*why` as above, and then they are gone. */
int s3_credentials_check(struct s3_credentials *c, const char **why);

bool s3_credentials_same(const struct s3_credentials *a,
                         const struct s3_credentials *b);

/* Leaves no secret in memory that is free. */
void s3_credentials_fini(struct s3_credentials *c);

/* Frees what may be secret; NULL is fine. */
void s3_wipe(char *text, size_t len);

/* A variable of the environment that is set and not empty, or NULL. */
const char *s3_variable(const char *name);

#ifdef __cplusplus
}
#endif

#endif
