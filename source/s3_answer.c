#include "source/s3_answer.h"

#include <errno.h>
#include <string.h>

#define BEGIN "<Code>"
#define END "</Code>"

static const struct code {
  const char *name;
  struct s3_meaning meaning;
} codes[] = {
    {"AccessDenied", {-EACCES, "access is denied", S3_NO_REMEDY}},
    {"AuthorizationHeaderMalformed",
     {-EACCES, "the region is another one: set region=", S3_NO_REMEDY}},
    {"ExpiredToken",
     {-EACCES, "the credentials have expired", S3_NEW_CREDENTIALS}},
    {"InternalError",
     {-EREMOTEIO, "the server has an internal error", S3_NO_REMEDY}},
    {"InvalidAccessKeyId",
     {-EACCES, "the server does not know the access key", S3_NEW_CREDENTIALS}},
    {"InvalidToken",
     {-EACCES, "the session token is no good", S3_NEW_CREDENTIALS}},
    {"NoSuchBucket", {-ENOENT, "there is no such bucket", S3_NO_REMEDY}},
    {"NoSuchKey", {-ENOENT, "there is no such object", S3_NO_REMEDY}},
    {"NoSuchVersion", {-ENOENT, "there is no such version", S3_NO_REMEDY}},
    {"PermanentRedirect",
     {-EPROTO, "the bucket is at another endpoint: set region= or endpoint=",
      S3_NO_REMEDY}},
    {"RequestTimeTooSkewed",
     {-EAGAIN, "the clock is wrong by more than the server allows",
      S3_SET_CLOCK}},
    {"RequestTimeout", {-EAGAIN, "the server gave up waiting", S3_NO_REMEDY}},
    {"ServiceUnavailable",
     {-EAGAIN, "the server asks to be asked later", S3_NO_REMEDY}},
    {"SignatureDoesNotMatch",
     {-EACCES, "the secret key is wrong", S3_NEW_CREDENTIALS}},
    {"SlowDown",
     {-EAGAIN, "the server asks to be asked less often", S3_NO_REMEDY}},
    {"Throttling",
     {-EAGAIN, "the server asks to be asked less often", S3_NO_REMEDY}},
    {"TokenRefreshRequired",
     {-EACCES, "the credentials have expired", S3_NEW_CREDENTIALS}},
};

struct s3_meaning s3_answer_judge(const char *body, size_t len) {
  const char *begin = memmem(body, len, BEGIN, strlen(BEGIN));
  if (begin) {
    begin += strlen(BEGIN);
    size_t rest = len - (size_t)(begin - body);
    const char *end = memmem(begin, rest, END, strlen(END));
    size_t code_len = end ? (size_t)(end - begin) : 0;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++)
      if (code_len == strlen(codes[i].name) &&
          memcmp(begin, codes[i].name, code_len) == 0)
        return codes[i].meaning;
  }
  return (struct s3_meaning){0};
}
