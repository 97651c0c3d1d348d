#include "client/uri.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/file_uri.h"
#include "base/percent.h"
#include "base/shown_uri.h"
#include "base/size.h"
#include "client/error.h"
#include "source/file.h"
#include "source/kinds.h"

#define SYSTEM_SOCKET "/run/cachetd/cachetd.sock"

/* A piece of the text under parsing; not terminated. */
struct piece {
  const char *at;
  size_t len;
};

static struct piece piece_of(const char *from, const char *to) {
  return (struct piece){from, (size_t)(to - from)};
}

/* ---- Errors -------------------------------------------------------------- */

/* Says why a URI is refused.  A reason has no text of the URI but its scheme
 * and the keys of its query: uri_parse() puts before it what may be shown. */
#define refuse(err, ...) error_set(err, CACHET_E_INVAL, 0, __VA_ARGS__)

static enum cachet_status no_memory(struct cachet_error *err) {
  return error_set(err, CACHET_E_NOMEM, 0, "no memory for a URI");
}

/* ---- Percent-decoding ---------------------------------------------------- */

/* `what` is the part that is decoded, or its key. */
static enum cachet_status decode(struct piece in, const char *what, char **out,
                                 struct cachet_error *err) {
  *out = percent_decode(in.at, in.len);
  if (*out)
    return CACHET_OK;
  if (errno == ENOMEM)
    return no_memory(err);
  return refuse(err,
                "%.60s: a %% must be followed by two hex digits, other than 00",
                what);
}

/* ---- Parts --------------------------------------------------------------- */

static enum cachet_status set_image(struct uri *u, struct piece in,
                                    struct cachet_error *err) {
  if (memchr(in.at, '#', in.len))
    return refuse(err, "it has no fragment: # is written %%23");
  enum cachet_status status = decode(in, "the image's name", &u->image, err);
  if (status == CACHET_OK && strchr(u->image, '/'))
    return refuse(err, "the name of an image has no /");
  if (status == CACHET_OK && strlen(u->image) > URI_IMAGE_MAX_LEN)
    return refuse(err, "the image's name is longer than %d bytes",
                  URI_IMAGE_MAX_LEN);
  return status;
}

/* Takes over `path`, which may begin with `unix:`, as what the daemon listens
 * on does. */
static enum cachet_status set_socket(struct uri *u, char *path,
                                     struct cachet_error *err) {
  struct sockaddr_un address;
  free(u->path);
  u->path = path;
  if (!path)
    return no_memory(err);
  if (!strncmp(path, "unix:", 5))
    memmove(path, path + 5, strlen(path + 5) + 1);
  if (!*path)
    return refuse(err, "the path of the socket is empty");
  /* Messages show a path whole. */
  if (file_uri_scheme_len(path) || strstr(path, "://"))
    return refuse(err, "the socket is a URI, and has to be a path");
  if (strlen(path) >= sizeof address.sun_path)
    return refuse(err, "the path of the socket is longer than %zu bytes",
                  sizeof address.sun_path - 1);
  return CACHET_OK;
}

/* The address of the daemon if the URI names none. */
static char *default_socket(void) {
  const char *named = secure_getenv("CACHET_SOCKET");
  if (named && *named)
    return strdup(named);
  const char *dir = secure_getenv("XDG_RUNTIME_DIR");
  char *path = NULL;
  if (dir && *dir) {
    if (asprintf(&path, "%s/cachetd.sock", dir) < 0)
      return NULL;
    if (access(path, F_OK) == 0)
      return path;
    free(path);
  }
  return strdup(SYSTEM_SOCKET);
}

static enum cachet_status parse_number(const char *key, const char *text,
                                       uint64_t *out,
                                       struct cachet_error *err) {
  if (size_parse(text, out) < 0)
    return refuse(err, "%s: not a number of bytes", key);
  return CACHET_OK;
}

/* The keys of a query: `socket` where there is one, files for TLS, and the
 * window. */
enum query_key {
  QUERY_SOCKET,
  QUERY_CA,
  QUERY_CERT,
  QUERY_KEY,
  QUERY_OFFSET,
  QUERY_LENGTH,
  QUERY_N_KEYS
};

static const char *const query_keys[] = {"socket", "ca",     "cert",
                                         "key",    "offset", "length"};

/* Takes over `value`. */
static enum cachet_status set_file(char **to, enum query_key key, char *value,
                                   struct cachet_error *err) {
  *to = value;
  return *value ? CACHET_OK : refuse(err, "%s= names no file", query_keys[key]);
}

/* Takes over `value`. */
static enum cachet_status set_key(struct uri *u, enum query_key key,
                                  char *value, struct cachet_error *err) {
  switch (key) {
  case QUERY_SOCKET:
    return set_socket(u, value, err);
  case QUERY_CA:
    return set_file(&u->ca, key, value, err);
  case QUERY_CERT:
    return set_file(&u->cert, key, value, err);
  case QUERY_KEY:
    return set_file(&u->key, key, value, err);
  default:
    break;
  }
  if (!value)
    return no_memory(err);
  enum cachet_status status = parse_number(
      query_keys[key], value,
      key == QUERY_OFFSET ? &u->window.offset : &u->window.length, err);
  free(value);
  return status;
}

static bool has_key(enum uri_kind kind, enum query_key key) {
  if (key == QUERY_SOCKET)
    return kind == URI_UNIX;
  if (key == QUERY_CA || key == QUERY_CERT || key == QUERY_KEY)
    return kind == URI_TLS;
  return true;
}

static enum query_key key_of(const struct uri *u, struct piece name) {
  enum query_key key = 0;
  while (key < QUERY_N_KEYS &&
         (!has_key(u->kind, key) || strlen(query_keys[key]) != name.len ||
          memcmp(query_keys[key], name.at, name.len) != 0))
    key++;
  return key;
}

/* One or more KEY=VALUE, joined by `&`, each key once. */
static enum cachet_status parse_query(struct uri *u, const char *query,
                                      struct cachet_error *err) {
  bool is_set[QUERY_N_KEYS] = {false};
  for (;;) {
    const char *end = strchrnul(query, '&');
    const char *equals = memchr(query, '=', (size_t)(end - query));
    if (!equals)
      return refuse(err, "behind the ? is KEY=VALUE, joined by &");
    enum query_key key = key_of(u, piece_of(query, equals));
    if (key == QUERY_N_KEYS)
      return refuse(err, "unknown key \"%.*s\" behind the ?",
                    (int)(equals - query < 60 ? equals - query : 60), query);
    if (is_set[key])
      return refuse(err, "%s= is given twice", query_keys[key]);
    is_set[key] = true;
    char *value;
    enum cachet_status status =
        decode(piece_of(equals + 1, end), query_keys[key], &value, err);
    if (status == CACHET_OK)
      status = set_key(u, key, value, err);
    if (status != CACHET_OK || !*end)
      return status;
    query = end + 1;
  }
}

static enum cachet_status parse_port(struct uri *u, struct piece in,
                                     struct cachet_error *err) {
  unsigned port = 0;
  for (size_t i = 0; i < in.len; i++) {
    if (!isdigit((unsigned char)in.at[i]) || port > UINT16_MAX)
      port = UINT16_MAX + 1u;
    else
      port = port * 10 + (unsigned)(in.at[i] - '0');
  }
  if (port == 0 || port > UINT16_MAX)
    return refuse(err, "the port is not a number from 1 to %d", UINT16_MAX);
  u->port = (uint16_t)port;
  return CACHET_OK;
}

/* HOST, HOST:PORT, [IPV6], [IPV6]:PORT */
static enum cachet_status parse_authority(struct uri *u, struct piece in,
                                          struct cachet_error *err) {
  const char *end = in.at + in.len;
  struct piece host;
  const char *after;
  if (memchr(in.at, '@', in.len))
    return refuse(err, "no user and no password stand before the host");
  if (memchr(in.at, '#', in.len))
    return refuse(err, "behind the host is :PORT or /IMAGE, and no #");
  if (in.len && *in.at == '[') {
    const char *close = memchr(in.at, ']', in.len);
    if (!close)
      return refuse(err, "\"[\" without \"]\"");
    host = piece_of(in.at + 1, close);
    after = close + 1;
  } else {
    const char *colon = memchr(in.at, ':', in.len);
    after = colon ? colon : end;
    host = piece_of(in.at, after);
  }
  if (!host.len)
    return refuse(err, "it has no host");
  if (after < end && *after != ':')
    return refuse(err, "only :PORT may follow the ] of a host");
  u->port = u->kind == URI_TLS ? URI_DEFAULT_TLS_PORT : URI_DEFAULT_PORT;
  enum cachet_status status = decode(host, "the host", &u->host, err);
  if (status == CACHET_OK && strchr(u->host, '@'))
    return refuse(err, "no name of a host has an @");
  if (status == CACHET_OK && after < end)
    status = parse_port(u, piece_of(after + 1, end), err);
  return status;
}

/* ---- Schemes ------------------------------------------------------------- */

static enum cachet_status parse_file(struct uri *u, const char *text,
                                     struct cachet_error *err) {
  const char *why = "", *question = strchrnul(text, '?');
  u->kind = URI_FILE;
  char *file = strndup(text, (size_t)(question - text));
  int r = file ? file_uri_path(file, &u->path, &why) : -ENOMEM;
  free(file);
  if (r == -ENOMEM)
    return no_memory(err);
  if (r < 0)
    return refuse(err, "%s", why);
  return *question ? parse_query(u, question + 1, err) : CACHET_OK;
}

static enum cachet_status parse_unix(struct uri *u, const char *rest,
                                     struct cachet_error *err) {
  u->kind = URI_UNIX;
  if (strncmp(rest, "///", 3) != 0)
    return refuse(err, "it is written cachet+unix:///IMAGE");
  const char *image = rest + 3;
  const char *question = strchrnul(image, '?');
  enum cachet_status status = set_image(u, piece_of(image, question), err);
  if (status == CACHET_OK && *question)
    status = parse_query(u, question + 1, err);
  if (status != CACHET_OK || u->path)
    return status;
  return set_socket(u, default_socket(), err);
}

/* What follows the scheme of a URI whose kind is known. */
static enum cachet_status parse_host(struct uri *u, const char *rest,
                                     struct cachet_error *err) {
  const char *scheme = u->kind == URI_TLS ? "cachets" : "cachet";
  if (strncmp(rest, "//", 2) != 0)
    return refuse(err, "it is written %s://HOST[:PORT]/IMAGE", scheme);
  const char *host = rest + 2, *question = strchrnul(host, '?');
  const char *slash = memchr(host, '/', (size_t)(question - host));
  const char *image = slash ? slash + 1 : question;
  enum cachet_status status =
      parse_authority(u, piece_of(host, slash ? slash : question), err);
  if (status == CACHET_OK)
    status = set_image(u, piece_of(image, question), err);
  if (status == CACHET_OK && *question)
    status = parse_query(u, question + 1, err);
  return status;
}

static enum cachet_status parse_tcp(struct uri *u, const char *rest,
                                    struct cachet_error *err) {
  u->kind = URI_TCP;
  return parse_host(u, rest, err);
}

static enum cachet_status parse_tls(struct uri *u, const char *rest,
                                    struct cachet_error *err) {
  u->kind = URI_TLS;
  enum cachet_status status = parse_host(u, rest, err);
  if (status == CACHET_OK && u->key && !u->cert)
    return refuse(err, "key= is of no use without cert=");
  return status;
}

/* ---- Remote sources ------------------------------------------------------ */

static bool has_option(const struct uri *u, struct piece name) {
  for (size_t i = 0; i < u->n_options; i++)
    if (strlen(u->options[i].key) == name.len &&
        memcmp(u->options[i].key, name.at, name.len) == 0)
      return true;
  return false;
}

static enum cachet_status add_option(struct uri *u, struct piece name,
                                     struct piece value,
                                     struct cachet_error *err) {
  struct source_option *grown =
      realloc(u->options, (u->n_options + 1) * sizeof *grown);
  if (!grown)
    return no_memory(err);
  u->options = grown;
  struct source_option *added = &grown[u->n_options];
  char *key = strndup(name.at, name.len), *decoded = NULL;
  enum cachet_status status =
      key ? decode(value, key, &decoded, err) : no_memory(err);
  if (status != CACHET_OK) {
    free(key);
    return status;
  }
  *added = (struct source_option){.key = key, .value = decoded};
  u->n_options++;
  return CACHET_OK;
}

/* One or more KEY=VALUE, joined by `&`, each key once. */
static enum cachet_status parse_options(struct uri *u, const char *text,
                                        struct cachet_error *err) {
  for (;;) {
    const char *end = strchrnul(text, '&');
    const char *equals = memchr(text, '=', (size_t)(end - text));
    struct piece name = piece_of(text, equals ? equals : text);
    if (!name.len)
      return refuse(err, "an option behind the # is KEY=VALUE");
    if (has_option(u, name))
      return refuse(err, "%.*s= is given twice",
                    (int)(name.len < 60 ? name.len : 60), name.at);
    if (u->n_options == URI_MAX_OPTIONS)
      return refuse(err, "more than %d options", URI_MAX_OPTIONS);
    enum cachet_status status =
        add_option(u, name, piece_of(equals + 1, end), err);
    if (status != CACHET_OK || !*end)
      return status;
    text = end + 1;
  }
}

static enum cachet_status take_fetch_size(struct uri *u, const char *value,
                                          struct cachet_error *err) {
  uint64_t size;
  enum cachet_status status = parse_number("fetch-size", value, &size, err);
  if (status != CACHET_OK)
    return status;
  if ((size & (size - 1)) || size < 4096 || size > 2 << 20)
    return refuse(err, "fetch-size: not a power of two from 4K to 2M");
  u->fetch_size = (uint32_t)size;
  return CACHET_OK;
}

static void free_option(struct source_option *o) {
  free((char *)o->key);
  free((char *)o->value);
}

/* Takes the options out that are for the library, not for the source. */
static enum cachet_status take_own_options(struct uri *u,
                                           struct cachet_error *err) {
  enum cachet_status status = CACHET_OK;
  for (size_t i = 0; i < u->n_options && status == CACHET_OK;) {
    struct source_option *o = &u->options[i];
    if (strcmp(o->key, "offset") == 0) {
      status = parse_number(o->key, o->value, &u->window.offset, err);
    } else if (strcmp(o->key, "length") == 0) {
      status = parse_number(o->key, o->value, &u->window.length, err);
    } else if (strcmp(o->key, "fetch-size") == 0) {
      status = take_fetch_size(u, o->value, err);
    } else {
      i++;
      continue;
    }
    free_option(o);
    *o = u->options[--u->n_options];
  }
  return status;
}

/* Moves the window out of a query: the rest is the server's.  `query` is behind
 * the `?`, at the end of a URI. */
static enum cachet_status take_window(struct uri *u, char *query,
                                      struct cachet_error *err) {
  enum cachet_status status = CACHET_OK;
  bool is_set[QUERY_N_KEYS] = {false};
  char *to = query;
  for (char *word, *rest = query; (word = strsep(&rest, "&"));) {
    char *equals = strchrnul(word, '=');
    enum query_key key = key_of(u, piece_of(word, equals));
    if (key == QUERY_N_KEYS || !*equals) {
      size_t len = strlen(word);
      if (to > query)
        *to++ = '&';
      memmove(to, word, len);
      to += len;
    } else if (is_set[key]) {
      return refuse(err, "%s= is given twice", query_keys[key]);
    } else {
      is_set[key] = true;
      status = set_key(u, key, strdup(equals + 1), err);
      if (status != CACHET_OK)
        return status;
    }
  }
  *to = '\0';
  if (to == query)
    query[-1] = '\0';
  return status;
}

/* Parses the URI of a source.  If it has a `#`, the window follows that, and
 * the whole query is for the server. */
static enum cachet_status parse_source(struct uri *u, const char *text,
                                       struct cachet_error *err) {
  const char *hash = strchrnul(text, '#');
  u->kind = URI_SOURCE;
  u->source = strndup(text, (size_t)(hash - text));
  u->path = shown_uri_of(text);
  if (!u->source || !u->path)
    return no_memory(err);
  char *query = strchr(u->source, '?');
  enum cachet_status status = CACHET_OK;
  if (*hash)
    status = parse_options(u, hash + 1, err);
  else if (query)
    status = take_window(u, query + 1, err);
  return status == CACHET_OK ? take_own_options(u, err) : status;
}

static bool is_remote_scheme(const char *text, size_t len) {
  static const char *const schemes[] = {REMOTE_SCHEMES};
  for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
    if (strlen(schemes[i]) == len && !strncasecmp(schemes[i], text, len))
      return true;
  return false;
}

/* -------------------------------------------------------------------------- */

static enum cachet_status parse(struct uri *u, const char *text,
                                struct cachet_error *err) {
  static const struct {
    const char *name;
    enum cachet_status (*parse)(struct uri *, const char *,
                                struct cachet_error *);
  } schemes[] = {
      {"cachet+unix", parse_unix},
      {"cachet", parse_tcp},
      {"cachets", parse_tls},
  };
  size_t len = file_uri_scheme_len(text);
  if (file_uri_is(text))
    return parse_file(u, text, err);
  if (!len) {
    u->kind = URI_FILE;
    u->path = strdup(text);
    return u->path ? CACHET_OK : no_memory(err);
  }
  for (size_t i = 0; i < sizeof schemes / sizeof schemes[0]; i++)
    if (strlen(schemes[i].name) == len &&
        !strncasecmp(schemes[i].name, text, len))
      return schemes[i].parse(u, text + len + 1, err);
  if (is_remote_scheme(text, len))
    return parse_source(u, text, err);
  return refuse(err, "unknown scheme \"%.*s:\" (a path begins with ./)",
                (int)(len < 60 ? len : 60), text);
}

/* Puts before a reason what may be shown of the URI that it refuses. */
static enum cachet_status name_uri(const char *text, struct cachet_error *err) {
  char *shown = err ? shown_uri_of(text) : NULL;
  if (shown)
    error_set(err, CACHET_E_INVAL, 0, "bad URI \"%.100s\": %s", shown,
              err->message);
  else if (err)
    no_memory(err);
  free(shown);
  return err ? err->code : CACHET_E_INVAL;
}

enum cachet_status uri_parse(const char *text, struct uri *out,
                             struct cachet_error *err) {
  struct uri u = {.window = WINDOW_WHOLE};
  if (!text || !*text)
    return refuse(err, "an empty URI");
  enum cachet_status status = parse(&u, text, err);
  if (status == CACHET_OK && u.kind == URI_FILE && !*u.path)
    status = refuse(err, "an empty path");
  if (status == CACHET_OK)
    *out = u;
  else
    uri_fini(&u);
  return status == CACHET_E_INVAL ? name_uri(text, err) : status;
}

/* Makes a path absolute, or leaves it if it would get longer than `max_len`.
 * False: no memory. */
static bool make_absolute(char **path, size_t max_len) {
  char *spare = *path ? file_source_absolute(*path) : NULL;
  if (!spare)
    return !*path;
  if (strlen(spare) <= max_len) {
    char *whole = spare;
    spare = *path;
    *path = whole;
  }
  free(spare);
  return true;
}

enum cachet_status uri_keep_directory(struct uri *u, struct cachet_error *err) {
  struct sockaddr_un address;
  bool has_memory = make_absolute(&u->ca, SIZE_MAX) &&
                    make_absolute(&u->cert, SIZE_MAX) &&
                    make_absolute(&u->key, SIZE_MAX) &&
                    (u->kind != URI_UNIX ||
                     make_absolute(&u->path, sizeof address.sun_path - 1));
  return has_memory ? CACHET_OK : no_memory(err);
}

static bool copy_text(const char *text, char **to) {
  *to = text ? strdup(text) : NULL;
  return *to || !text;
}

enum cachet_status uri_copy(const struct uri *u, struct uri *out) {
  assert(uri_is_of_daemon(u));
  struct uri copy = {.kind = u->kind, .port = u->port, .window = u->window};
  bool copied =
      copy_text(u->path, &copy.path) && copy_text(u->host, &copy.host) &&
      copy_text(u->image, &copy.image) && copy_text(u->ca, &copy.ca) &&
      copy_text(u->cert, &copy.cert) && copy_text(u->key, &copy.key);
  if (!copied) {
    uri_fini(&copy);
    return CACHET_E_NOMEM;
  }
  *out = copy;
  return CACHET_OK;
}

void uri_fini(struct uri *u) {
  free(u->path);
  free(u->host);
  free(u->image);
  free(u->ca);
  free(u->cert);
  free(u->key);
  free(u->source);
  for (size_t i = 0; i < u->n_options; i++)
    free_option(&u->options[i]);
  free(u->options);
  *u = (struct uri){0};
}

void uri_print_place(const struct uri *u, char *buf, size_t len) {
  bool v6 = u->host && strchr(u->host, ':');
  if (!u->host)
    snprintf(buf, len, "%s", u->path);
  else
    snprintf(buf, len, "%s%s%s:%u", v6 ? "[" : "", u->host, v6 ? "]" : "",
             u->port);
}
