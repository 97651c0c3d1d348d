/* URIs of images, for cachet_open() and the command.
 *
 * Parsing allocates its result and reads nothing else, except that it looks up
 * the default socket if the URI names no socket. */
#ifndef CLIENT_URI_H
#define CLIENT_URI_H

#include <stdbool.h>
#include <stdint.h>

#include <cachet/cachet.h>

#include "base/window.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

#define URI_DEFAULT_PORT 10819
#define URI_DEFAULT_TLS_PORT 10820
#define URI_IMAGE_MAX_LEN 255
#define URI_MAX_OPTIONS 32

enum uri_kind {
  URI_FILE,   /* `path` */
  URI_UNIX,   /* `path` is the socket, `image` the name there */
  URI_TCP,    /* `host`, `port`, `image` */
  URI_TLS,    /* the same, and `ca`, `cert`, `key` */
  URI_SOURCE, /* `source` is a remote one, with its `options`; `path` is the
                 part of it that messages show */
};

struct uri {
  enum uri_kind kind;
  char *path;
  char *host;
  char *image;           /* "": the daemon's only one */
  char *ca, *cert, *key; /* files; NULL: none is given */
  uint16_t port;
  char *source; /* may hold secrets */
  struct source_option *options;
  size_t n_options;
  uint32_t fetch_size; /* 0: the default of the kind of source */
  struct window window;
};

/* Parses a URI or a path.  CACHET_E_INVAL: the text is neither. */
enum cachet_status uri_parse(const char *text, struct uri *out,
                             struct cachet_error *err);

/* Makes the paths of the socket and of the certificates absolute, because the
 * process may change its directory and they are looked up again at each
 * connection.  The path of a socket that would get too long for an address
 * stays relative. */
enum cachet_status uri_keep_directory(struct uri *u, struct cachet_error *err);

static inline bool uri_is_of_daemon(const struct uri *u) {
  return u->kind == URI_UNIX || u->kind == URI_TCP || u->kind == URI_TLS;
}

/* Copies the URI of a daemon's image. */
enum cachet_status uri_copy(const struct uri *u, struct uri *out);

/* Frees a URI.  A zeroed one is ignored. */
void uri_fini(struct uri *u);

/* Prints the address of a daemon for messages: the path of its socket, or
 * HOST:PORT. */
void uri_print_place(const struct uri *u, char *buf, size_t len);

#ifdef __cplusplus
}
#endif

#endif
