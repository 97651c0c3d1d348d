#include "base/file_uri.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/percent.h"

size_t file_uri_scheme_len(const char *text) {
  if (!isalpha((unsigned char)text[0]))
    return 0;
  size_t len = 1;
  while (isalnum((unsigned char)text[len]) ||
         (text[len] && strchr("+.-", text[len])))
    len++;
  return text[len] == ':' ? len : 0;
}

bool file_uri_is(const char *text) { return !strncasecmp(text, "file:", 5); }

int file_uri_path(const char *uri, char **path, const char **why) {
  const char *rest = uri + 5;
  if (strpbrk(rest, "?#,")) {
    /* Options of the daemon's and of the library's begin with these. */
    *why = "in a path ? is written %3F, # is %23 and a comma is %2C";
    return -EINVAL;
  }
  if (strncmp(rest, "//localhost/", 12) == 0)
    rest += 11;
  else if (strncmp(rest, "///", 3) == 0)
    rest += 2;
  else if (strncmp(rest, "//", 2) == 0) {
    *why = "a file: URI cannot name a host";
    return -EINVAL;
  }
  *path = percent_decode(rest, strlen(rest));
  if (*path)
    return 0;
  *why = "a % must be followed by two hex digits, other than 00";
  return -errno;
}
