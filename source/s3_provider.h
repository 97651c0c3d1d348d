/* Providers of keys for a while: asks STS, the agent of a container, or the
 * metadata service of an instance of EC2.
 *
 * These calls wait, until `deadline` (base/deadline.h) at most: they are for a
 * thread that may.  0; -ENOKEY if the environment names no such provider, or it
 * has nothing for us; or another negative errno; with `*why` for people, which
 * is never freed and has no secrets. */
#ifndef SOURCE_S3_PROVIDER_H
#define SOURCE_S3_PROVIDER_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct s3_credentials;
struct s3_credentials_place;

/* Keys of AWS_ROLE_ARN for the token in AWS_WEB_IDENTITY_TOKEN_FILE, from the
 * STS of the place's region, or AWS_ENDPOINT_URL_STS, or AWS_ENDPOINT_URL. */
int s3_provider_web_identity(const struct s3_credentials_place *place,
                             int64_t deadline, struct s3_credentials *out,
                             const char **why);

/* Those of AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI; with the word
 * in AWS_CONTAINER_AUTHORIZATION_TOKEN, or in a file that ..._TOKEN_FILE names.
 * By http: it is asked on this machine alone. */
int s3_provider_container(int64_t deadline, struct s3_credentials *out,
                          const char **why);

/* Those of the instance's role, by the second version of the service: at
 * http://169.254.169.254, or AWS_EC2_METADATA_SERVICE_ENDPOINT, unless
 * AWS_EC2_METADATA_DISABLED is "true". */
int s3_provider_instance(int64_t deadline, struct s3_credentials *out,
                         const char **why);

#ifdef __cplusplus
}
#endif

#endif
