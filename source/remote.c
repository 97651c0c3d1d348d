#include "source/remote.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int remote_fault(struct source_fault *fault, int status, const char *format,
                 ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(fault->text, sizeof fault->text, format, args);
  va_end(args);
  return status;
}

int remote_no_memory(struct source_fault *fault) {
  return remote_fault(fault, -ENOMEM, "%s", strerror(ENOMEM));
}

int remote_check_path(const char *key, const char *path,
                      struct source_fault *fault) {
  return path[0] == '/'
             ? 0
             : remote_fault(fault, -EINVAL,
                            "%s: it is no path from the root on", key);
}
