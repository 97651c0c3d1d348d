#include "client/command/address.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/file_uri.h"
#include "base/percent.h"

bool address_is_file(const char *text) {
  return *text && (!file_uri_scheme_len(text) || file_uri_is(text));
}

static bool has_scheme(const char *uri, const char *scheme) {
  size_t len = strlen(scheme);
  return file_uri_scheme_len(uri) == len && !strncasecmp(uri, scheme, len);
}

bool address_is_of_daemon(const char *text) {
  return has_scheme(text, "cachet+unix") || has_scheme(text, "cachet") ||
         has_scheme(text, "cachets");
}

/* Where the image begins and ends in a URI; false: it is no daemon's. */
static bool find_image(const char *uri, const char **begin, const char **end) {
  const char *rest = uri + file_uri_scheme_len(uri) + 1;
  if (has_scheme(uri, "cachet+unix") && !strncmp(rest, "///", 3)) {
    *begin = rest + 3;
  } else if ((has_scheme(uri, "cachet") || has_scheme(uri, "cachets")) &&
             !strncmp(rest, "//", 2)) {
    *begin = rest + 2 + strcspn(rest + 2, "/?");
    *begin += **begin == '/';
  } else {
    return false;
  }
  *end = strchrnul(*begin, '?');
  return true;
}

/* `image` is encoded. */
static char *put_image(const char *uri, const char *image) {
  const char *begin, *end;
  char *made;
  if (!find_image(uri, &begin, &end))
    return strdup(uri);
  const char *slash = begin[-1] == '/' ? "" : "/"; /* cachet://HOST */
  if (asprintf(&made, "%.*s%s%s%s", (int)(begin - uri), uri, slash, image,
               end) < 0)
    return NULL;
  return made;
}

/* `socket` and `image` are encoded. */
static char *make_unix(const char *socket, const char *image) {
  char *made;
  if (asprintf(&made, "cachet+unix:///%s%s%s", image, socket ? "?socket=" : "",
               socket ? socket : "") < 0)
    return NULL;
  return made;
}

char *address_make(const char *socket, const char *uri, const char *image) {
  char *encoded = percent_encode(image), *made = NULL;
  char *encoded_socket = socket ? percent_encode(socket) : NULL;
  if (encoded && uri)
    made = put_image(uri, encoded);
  else if (encoded && (encoded_socket || !socket))
    made = make_unix(encoded_socket, encoded);
  free(encoded);
  free(encoded_socket);
  return made;
}
