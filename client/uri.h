/* Image addresses: what cachet_open() and the command take.
 *
 * Parsing allocates what it returns and touches nothing else, but for the
 * default socket, which is looked up where no socket is named. */
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
  URI_SOURCE, /* `source` is a remote one, with its `options`; `path` is what is
                 shown of it */
};

struct uri {
  enum uri_kind kind;
  char *path;
  char *host;
  char *image;           /* "": the daemon's only one */
  char *ca, *cert, *key; /* files; NULL: none is named */
  uint16_t port;
  char *source; /* may hold secrets */
  struct source_option *options;
  size_t n_options;
  uint32_t fetch_size; /* 0: as its kind of source says */
  struct window window;
};

/* Parses a URI or a bare path.  CACHET_E_INVAL for what is neither. */
enum cachet_status uri_parse(const char *text, struct uri *out,
                             struct cachet_error *err);

static inline bool uri_is_of_daemon(const struct uri *u) {
  return u->kind == URI_UNIX || u->kind == URI_TCP || u->kind == URI_TLS;
}

/* Of a daemon's image. */
enum cachet_status uri_copy(const struct uri *u, struct uri *out);

/* A zeroed one is left alone. */
void uri_fini(struct uri *u);

/* Where a daemon listens, for messages: the socket's path, or HOST:PORT. */
void uri_print_place(const struct uri *u, char *buf, size_t len);

#ifdef __cplusplus
}
#endif

#endif
