/* Images at s3: URIs: s3://BUCKET/KEY[?versionId=VERSION], percent-encoded.
 *
 * An object of S3, or of a server that speaks as it does.  It is HTTP
 * (source/http_source.h) with signed requests.  Options, beside those of HTTP:
 * `endpoint`, an http: or https: URL without a path, in place of Amazon's;
 * `region`; `path-style`, whether the bucket stands in the path, as it does at
 * an endpoint unless that is said, or in the name of the host; `profile` and
 * `credentials`, a file, see source/s3_credentials.h; `anonymous`, not to sign.
 */
#ifndef SOURCE_S3_H
#define SOURCE_S3_H

#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

extern const struct source_kind s3_source_kind;

#ifdef __cplusplus
}
#endif

#endif
