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

/* Whether an authority ends like HOST:PORT, or has no port.  One that does not
 * is the beginning of a user and a password with a / in it, which is wrong, and
 * secret nevertheless. */
static bool has_right_port(const char *authority, size_t len) {
  const char *colon = memrchr(authority, ':', len);
  if (!colon || memchr(colon, ']', len - (size_t)(colon - authority)))
    return true; /* or a colon of an IPv6 address */
  size_t port_len = len - (size_t)(colon + 1 - authority);
  return strspn(colon + 1, "0123456789") >= port_len;
}

char *source_uri_shown(const char *text) {
  char *shown = strndup(text, strcspn(text, "?#"));
  char *authority = shown ? strstr(shown, "://") : NULL;
  if (!authority)
    return shown;
  authority += strlen("://");
  size_t len = strcspn(authority, "/");
  if (!memchr(authority, '@', len) && !has_right_port(authority, len))
    len = strlen(authority);
  char *at = memrchr(authority, '@', len);
  if (at)
    memmove(authority, at + 1, strlen(at + 1) + 1);
  return shown;
}
