#include "client/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* By -status; CACHET_OK first.  In step with enum cachet_status. */
static const char *const failure_names[] = {
    "success",
    "invalid argument",
    "past the end of the image",
    "out of memory",
    "input/output error",
    "no such image",
    "not permitted",
    "no connection to the daemon",
    "protocol error",
    "timed out",
    "too many slices held",
    "handle of the parent process",
    "cancelled",
    "the image changed",
    "not supported",
};

const char *cachet_strerror(enum cachet_status status) {
  int number = (int)status;
  int n_names = (int)(sizeof failure_names / sizeof failure_names[0]);
  if (number == CACHET_END)
    return "end of the image";
  if (number > 0 || number <= -n_names)
    return "unknown status";
  return failure_names[-number];
}

enum cachet_status error_set(struct cachet_error *e, enum cachet_status code,
                             int sys_errno, const char *format, ...) {
  if (!e)
    return code;
  /* The arguments may point into the message that is replaced. */
  struct cachet_error made = {.code = code, .sys_errno = sys_errno};
  va_list args;
  va_start(args, format);
  int len = vsnprintf(made.message, sizeof made.message, format, args);
  va_end(args);
  if (sys_errno && len >= 0 && (size_t)len < sizeof made.message) {
    char text[128];
    snprintf(made.message + len, sizeof made.message - (size_t)len, ": %s",
             strerror_r(sys_errno, text, sizeof text));
  }
  *e = made;
  return code;
}

enum cachet_status error_from_errno(int sys_errno) {
  switch (sys_errno) {
  case 0:
    return CACHET_OK;
  case ENOENT:
  case ENOTDIR:
    return CACHET_E_NOIMAGE;
  case EACCES:
  case EPERM:
    return CACHET_E_ACCESS;
  case ENOMEM:
    return CACHET_E_NOMEM;
  case ESTALE:
    return CACHET_E_CHANGED;
  case EFBIG:
  case EOVERFLOW:
    return CACHET_E_UNSUPPORTED;
  case EINVAL:
  case EISDIR: /* what an image can never be */
  case ENODEV:
  case ENAMETOOLONG:
    return CACHET_E_INVAL;
  default:
    return CACHET_E_IO;
  }
}
