/* Files of credentials, as the usual tools have them: "[NAME]", and lines of
 * "key = value".  They are read by threads that may wait. */
#ifndef SOURCE_S3_PROFILES_H
#define SOURCE_S3_PROFILES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct s3_credentials;
struct s3_credentials_place;

/* The keys of the place's profile.  0; -ENOKEY if there is no file, or none of
 * its keys is of that profile; or another negative errno, with `*why` for
 * people, which is never freed. */
int s3_profiles_load(const struct s3_credentials_place *place,
                     struct s3_credentials *out, const char **why);

/* The value of a key of a profile, "[NAME]" or "[profile NAME]", in such a
 * file.  In memory from malloc(3); NULL: there is none, or no memory. */
char *s3_profiles_find(const char *text, const char *profile, const char *key);

/* All of a small file, which s3_wipe() frees.  NULL, with errno set. */
char *s3_profiles_read_file(const char *path, size_t *out_len);

#ifdef __cplusplus
}
#endif

#endif
