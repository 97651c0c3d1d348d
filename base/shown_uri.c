#include "base/shown_uri.h"

#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "base/file_uri.h"

/* Where the first authority of a text begins, HOST:PORT with a user before it.
 * NULL: it is a path.  A scheme that was mistyped must not turn a URI into a
 * path, so a text that neither begins with / nor with . may have one behind
 * any //. */
static char *find_authority(char *text) {
  size_t scheme = file_uri_scheme_len(text);
  if (scheme)
    return text + scheme + 1 + strspn(text + scheme + 1, "/\\ \t");
  char *slashes = strstr(text, strchr("/.", *text) ? "://" : "//");
  return slashes ? slashes + strspn(slashes, ":/") : NULL;
}

/* Whether a URI has no host: file:///PATH, and nbd+unix:///EXPORT. */
static bool has_no_host(const char *text) {
  size_t len = file_uri_scheme_len(text);
  bool is_local = file_uri_is(text) ||
                  (len > 5 && strncasecmp(text + len - 5, "+unix", 5) == 0);
  return is_local && strncmp(text + len + 1, "///", 3) == 0;
}

/* The host behind the user and the password of an authority.  An encoded @ may
 * have been meant as one. */
static char *behind_user(char *authority, size_t len) {
  for (size_t i = len; i > 0; i--)
    if (authority[i - 1] == '@' ||
        (len - i >= 2 && strncmp(authority + i - 1, "%40", 3) == 0))
      return authority + i + (authority[i - 1] == '@' ? 0 : 2);
  return authority;
}

/* The colon before the port.  NULL: there is no port, or a right one.  A port
 * that is wrong may be a password with a / in it, or one whose @ is missing. */
static char *find_wrong_port(char *authority, size_t len) {
  char *close = *authority == '[' ? memchr(authority, ']', len) : NULL;
  char *from = close ? close : authority;
  char *colon = memchr(from, ':', len - (size_t)(from - authority));
  if (!colon)
    return NULL;
  size_t port_len = len - (size_t)(colon + 1 - authority);
  return strspn(colon + 1, "0123456789") >= port_len ? NULL : colon;
}

/* Removes the user, and a port that is wrong with all that follows it.
 * `is_cut`: the text had an @ behind its end, so that all may be the user's. */
static void hide_user(char *authority, bool is_cut) {
  size_t len = strcspn(authority, "/");
  char *host = behind_user(authority, len);
  if (find_wrong_port(host, len - (size_t)(host - authority)))
    host = behind_user(authority, strlen(authority));
  memmove(authority, host, strlen(host) + 1);
  char *wrong = find_wrong_port(authority, strcspn(authority, "/"));
  if (wrong)
    *(is_cut ? authority : wrong) = '\0';
}

/* The same where there should be none: the name of an export may have an @. */
static void hide_password(char *path) {
  char *host = behind_user(path, strcspn(path, "/"));
  if (memchr(path, ':', (size_t)(host - path)))
    memmove(path, host, strlen(host) + 1);
}

char *shown_uri_of(const char *text) {
  char *shown = strdup(text);
  char *authority = shown ? find_authority(shown) : NULL;
  if (!authority)
    return shown;
  char *end = strpbrk(authority, "?#");
  bool is_cut = end && strchr(end, '@');
  if (end)
    *end = '\0';
  if (has_no_host(shown))
    hide_password(authority);
  else
    hide_user(authority, is_cut);
  /* A text of several URIs is none, and may be shown for that. */
  while ((authority = strstr(authority, "://"))) {
    authority += strlen("://");
    hide_user(authority, is_cut);
  }
  return shown;
}
