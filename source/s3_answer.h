/* What S3 says about an error: its code, which stands in a body of XML, tells
 * more than the status of HTTP.  Pure functions; the body is a stranger's. */
#ifndef SOURCE_S3_ANSWER_H
#define SOURCE_S3_ANSWER_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum s3_remedy {
  S3_NO_REMEDY,
  S3_SET_CLOCK,       /* ours and the server's differ: its Date has the time */
  S3_NEW_CREDENTIALS, /* these are no good any more */
};

struct s3_meaning {
  int status;      /* negative; 0: what the status of HTTP says */
  const char *why; /* for people; NULL likewise */
  enum s3_remedy remedy;
};

/* The body may be cut short, and need not be XML. */
struct s3_meaning s3_answer_judge(const char *body, size_t len);

#ifdef __cplusplus
}
#endif

#endif
