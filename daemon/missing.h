/* Images that cannot be opened, or no longer be read: what is said of them. */
#ifndef DAEMON_MISSING_H
#define DAEMON_MISSING_H

#include <errno.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Why one cannot be read any more, in words, for the errno that its source
 * gave. */
static inline const char *lost_reason(int error) {
  switch (error) {
  case ERANGE: /* see source/window.h */
    return "its source ends before the window of it that is served";
  case EINPROGRESS: /* see source/hashing.h */
    return "it is being read, to compare its hash";
  case EBADMSG: /* see source/verified.h */
    return "its bytes do not match their hash";
  default:
    return strerror(error);
  }
}

/* And why one cannot be opened. */
static inline const char *missing_reason(int error) {
  switch (error) {
  case ENODEV:
    return "neither a file nor a block device";
  case ETIMEDOUT:
    return "it takes too long";
  default:
    return lost_reason(error);
  }
}

#ifdef __cplusplus
}
#endif

#endif
