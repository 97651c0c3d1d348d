#include "client/debug.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LINE_LEN = 640 }; /* a message of 255 bytes, and two names */

static unsigned n_handles; /* atomic; relaxed: numbers, nothing more */

void debug_init(struct debug *d, const char *image) {
  const char *value = secure_getenv("CACHET_DEBUG");
  *d = (struct debug){.image = image};
  if (value && !strcmp(value, "1"))
    d->id = __atomic_add_fetch(&n_handles, 1, __ATOMIC_RELAXED);
}

/* Like vsnprintf(), but says how much is there. */
static size_t __attribute__((format(printf, 3, 0)))
print(char *buf, size_t len, const char *format, va_list args) {
  int n = vsnprintf(buf, len, format, args);
  if (n < 0)
    return 0;
  return (size_t)n < len ? (size_t)n : len - 1;
}

static size_t __attribute__((format(printf, 3, 4)))
print_head(char *buf, size_t len, const char *format, ...) {
  va_list args;
  va_start(args, format);
  size_t n = print(buf, len, format, args);
  va_end(args);
  return n;
}

void debug_write(const struct debug *d, const char *format, ...) {
  char line[LINE_LEN];
  int saved_errno = errno;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  size_t n = print_head(line, sizeof line - 1,
                        "cachet[%u] %lld.%03ld \"%.180s\": ", d->id,
                        (long long)t.tv_sec, t.tv_nsec / 1000000, d->image);
  va_list args;
  va_start(args, format);
  n += print(line + n, sizeof line - 1 - n, format, args);
  va_end(args);
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
      line[i] = '?';
  line[n++] = '\n';
  /* Without a standard error there is nowhere to report a failure to. */
  (void)!write(STDERR_FILENO, line, n);
  errno = saved_errno;
}
