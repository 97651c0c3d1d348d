/* Images that cannot be opened: what is said of them. */
#ifndef DAEMON_MISSING_H
#define DAEMON_MISSING_H

#include <errno.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Why, in words, for the errno that a source gave. */
static inline const char *missing_reason(int error) {
  switch (error) {
  case ENODEV:
    return "neither a file nor a block device";
  case ETIMEDOUT:
    return "it takes too long";
  default:
    return strerror(error);
  }
}

#ifdef __cplusplus
}
#endif

#endif
