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
  return error == ENODEV ? "neither a file nor a block device"
                         : strerror(error);
}

#ifdef __cplusplus
}
#endif

#endif
