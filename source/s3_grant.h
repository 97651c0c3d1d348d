/* Keys that were given for a while: what the metadata service of EC2 and the
 * agents of containers say, in JSON, and STS, in XML.  Pure functions; the text
 * is a stranger's. */
#ifndef SOURCE_S3_GRANT_H
#define SOURCE_S3_GRANT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct s3_credentials;

/* 0; or a negative errno with `*why` for people, which is never freed: -EPROTO
 * if the text has no keys. */
int s3_grant_of_json(const char *text, size_t len, struct s3_credentials *out,
                     const char **why);
int s3_grant_of_xml(const char *text, size_t len, struct s3_credentials *out,
                    const char **why);

/* The seconds since 1970 of "2026-11-26T13:50:00Z", perhaps with a fraction; 0:
 * it is none. */
int64_t s3_grant_time(const char *text);

#ifdef __cplusplus
}
#endif

#endif
