#include "base/percent.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/hex.h"

/* The byte that the three characters at `text` stand for; 0: they are fewer, or
 * no escape. */
static char escaped(const char *text, size_t len) {
  int byte = len > 2 ? hex_byte(text + 1) : -1;
  return byte < 0 ? '\0' : (char)byte;
}

char *percent_decode(const char *text, size_t len) {
  char *decoded = malloc(len + 1), *to = decoded;
  if (!decoded)
    return NULL;
  for (size_t i = 0; i < len; i++) {
    char c = text[i];
    if (c == '%') {
      c = escaped(text + i, len - i);
      i += 2;
    }
    if (c == '\0') {
      free(decoded);
      errno = EINVAL;
      return NULL;
    }
    *to++ = c;
  }
  *to = '\0';
  return decoded;
}

static bool is_plain(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
         (c >= '0' && c <= '9') || (c && strchr("-._~/", c));
}

char *percent_encode(const char *text) {
  char *encoded = malloc(3 * strlen(text) + 1), *to = encoded;
  if (!encoded)
    return NULL;
  for (; *text; text++) {
    unsigned char c = (unsigned char)*text;
    if (is_plain(*text)) {
      *to++ = *text;
      continue;
    }
    *to++ = '%';
    *to++ = "0123456789ABCDEF"[c >> 4];
    *to++ = "0123456789ABCDEF"[c & 15];
  }
  *to = '\0';
  return encoded;
}
