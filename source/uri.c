#include "source/uri.h"

#include <string.h>
#include <strings.h>

static bool kind_has_scheme(const struct source_kind *kind, const char *text,
                            size_t len) {
  for (const char *const *s = kind->schemes; *s; s++)
    if (strlen(*s) == len && strncasecmp(*s, text, len) == 0)
      return true;
  return false;
}

const struct source_kind *
source_uri_kind(const struct source_kind *const *kinds, const char *text) {
  size_t len = strcspn(text, ":");
  if (!text[len])
    return NULL;
  for (; *kinds; kinds++)
    if (kind_has_scheme(*kinds, text, len))
      return *kinds;
  return NULL;
}

bool source_uri_has_option(const struct source_kind *kind, const char *key) {
  for (const char *const *o = kind->options; *o; o++)
    if (strcmp(*o, key) == 0)
      return true;
  return false;
}
