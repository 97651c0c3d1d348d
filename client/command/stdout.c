#include "client/command/stdout.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int first_errno;

static bool output_failed(void) {
  if (!first_errno)
    first_errno = errno ? errno : EIO;
  return false;
}

void stdout_print(const char *format, ...) {
  va_list args;
  va_start(args, format);
  if (vprintf(format, args) < 0)
    output_failed();
  va_end(args);
}

void stdout_name(const char *name) {
  for (; *name; name++) {
    bool control = (unsigned char)*name < ' ' || *name == 0x7f;
    stdout_print("%c", control ? '?' : *name);
  }
}

void stdout_json_string(const char *text) {
  stdout_print("\"");
  for (; *text; text++) {
    if (*text == '"' || *text == '\\')
      stdout_print("\\%c", *text);
    else if ((unsigned char)*text < ' ')
      stdout_print("\\u%04x", (unsigned)*text);
    else
      stdout_print("%c", *text);
  }
  stdout_print("\"");
}

bool stdout_bytes(const void *bytes, size_t len) {
  const char *at = bytes;
  while (len) {
    ssize_t n = write(STDOUT_FILENO, at, len);
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return output_failed();
    at += n;
    len -= (size_t)n;
  }
  return true;
}

int stdout_end(void) {
  errno = 0;
  if (fflush(stdout) != 0 || ferror(stdout))
    output_failed();
  /* Some file systems tell of a full disk only now. */
  errno = 0;
  if (close(STDOUT_FILENO) < 0 && errno != EBADF)
    output_failed();
  if (!first_errno)
    return 0;
  fprintf(stderr, "cachet: standard output: %s\n", strerror(first_errno));
  return 1;
}
