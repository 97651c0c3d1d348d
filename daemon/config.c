#include "daemon/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_uri.h"
#include "base/hex.h"
#include "daemon/limits.h"
#include "source/uri.h"

#define DEFAULT_CACHE_SIZE (256ull << 20)
#define DEFAULT_PAGE_SIZE 4096u
#define MAX_FETCH_SIZE (4u << 20)
#define MAX_MAX_REQUESTS 1024u
/* More workers than this gain nothing: they are limited by the memory bus. */
#define MAX_DEFAULT_WORKERS 8
#define MAX_MAX_AGE_S 1000000000u
#define MAX_DRAIN_TIMEOUT_S 1000000u /* in milliseconds it is an int */

/* ---- The settings of the daemon ------------------------------------------ */

static int set_cache_size(struct config *config, const char *value, char *why) {
  return config_value_size_or_percent(value, &config->cache_size,
                                      &config->cache_percent, why);
}

static int set_min_size(struct config *config, const char *value, char *why) {
  uint64_t size;
  int r = config_value_size(value, &size, why);
  if (r == 0 && size == 0)
    return config_value_refuse(why, "\"%.100s\": no cache at all", value);
  if (r == 0)
    config->min_size = size;
  return r;
}

static int set_shrink(struct config *config, const char *value, char *why) {
  return config_value_yes_no(value, &config->shrinks, why);
}

static int set_page_size(struct config *config, const char *value, char *why) {
  return config_value_page_size(value, &config->page_size, why);
}

static int set_share(struct config *config, const char *value, char *why) {
  bool share;
  int r = config_value_on_off(value, &share, why);
  if (r == 0)
    config->share = share;
  return r;
}

static int set_workers(struct config *config, const char *value, char *why) {
  if (!config_value_count(value, CONFIG_MAX_WORKERS, &config->n_workers))
    return config_value_refuse(why, "\"%.100s\": not a number from 1 to %d",
                               value, CONFIG_MAX_WORKERS);
  return 0;
}

static int set_log_level(struct config *config, const char *value, char *why) {
  int level = log_level_parse(value);
  if (level < 0)
    return config_value_refuse(
        why, "\"%.100s\": not error, warn, info or debug", value);
  config->log_level = (enum log_level)level;
  return 0;
}

static int add_listen(struct config *config, const char *value, char *why) {
  if (config->n_listen == CONFIG_MAX_LISTEN)
    return config_value_refuse(why, "\"%.100s\": more than %d addresses", value,
                               CONFIG_MAX_LISTEN);
  struct address *to = &config->listen[config->n_listen];
  int r = address_parse(value, to, why, CONFIG_WHY_LEN);
  if (r == 0 && to->generic.sa_family == AF_UNIX)
    r = config_value_path(to->un.sun_path, value,
                          &config->origins[CONFIG_LISTEN], why);
  if (r == 0)
    config->listen_origins[config->n_listen++] = config->origins[CONFIG_LISTEN];
  return r;
}

static void clear_listen(struct config *config) { config->n_listen = 0; }

static int set_insecure(struct config *config, const char *value, char *why) {
  return config_value_yes_no(value, &config->insecure, why);
}

static int set_drain_timeout(struct config *config, const char *value,
                             char *why) {
  unsigned s = 0;
  if (strcmp(value, "0") != 0 &&
      !config_value_count(value, MAX_DRAIN_TIMEOUT_S, &s))
    return config_value_refuse(
        why, "\"%.100s\": not a number of seconds from 0 to %u", value,
        MAX_DRAIN_TIMEOUT_S);
  config->drain_timeout_s = s;
  return 0;
}

static int set_tls_file(const struct config *config, unsigned setting,
                        const char *value, char **to, char *why) {
  if (!*value)
    return config_value_refuse(why, "\"\": it names no file");
  int r = config_value_path(value, value, &config->origins[setting], why);
  if (r < 0)
    return r;
  char *path = strdup(value);
  if (!path)
    return -ENOMEM;
  free(*to);
  *to = path;
  return 0;
}

static int set_tls_certificate(struct config *config, const char *value,
                               char *why) {
  return set_tls_file(config, CONFIG_TLS_CERTIFICATE, value,
                      &config->tls.certificate, why);
}

static int set_tls_key(struct config *config, const char *value, char *why) {
  return set_tls_file(config, CONFIG_TLS_KEY, value, &config->tls.key, why);
}

static int set_tls_client_ca(struct config *config, const char *value,
                             char *why) {
  return set_tls_file(config, CONFIG_TLS_CLIENT_CA, value,
                      &config->tls.client_ca, why);
}

static int set_tls_require_client(struct config *config, const char *value,
                                  char *why) {
  return config_value_yes_no(value, &config->tls.requires_client, why);
}

static void clear_rule(struct rule **rule) {
  rule_unref(*rule);
  *rule = NULL;
}

static int add_allow(struct config *config, const char *value, char *why) {
  return config_value_add_rule(&config->allow, value, why);
}

static void clear_allow(struct config *config) { clear_rule(&config->allow); }

static int add_admin_allow(struct config *config, const char *value,
                           char *why) {
  return config_value_add_rule(&config->admin, value, why);
}

static void clear_admin_allow(struct config *config) {
  clear_rule(&config->admin);
}

/* A peer of it learns the names of all images, and nothing encrypts it. */
static int set_metrics(struct config *config, const char *value, char *why) {
  char advice[CONFIG_WHY_LEN];
  struct address a;
  int r = address_parse(value, &a, why, CONFIG_WHY_LEN);
  if (r == 0 && (a.is_tls || address_check(&a, advice, sizeof advice) < 0))
    return config_value_refuse(
        why, "\"%.100s\": it must be unix:PATH, or tcp: on loopback", value);
  if (r == 0 && a.generic.sa_family == AF_UNIX)
    r = config_value_path(a.un.sun_path, value,
                          &config->origins[CONFIG_METRICS], why);
  if (r == 0)
    config->metrics = a;
  return r;
}

static int add_directory(struct config *config, const char *value, char *why) {
  if (*value != '/')
    return config_value_refuse(
        why, "\"%.100s\": a directory is named from / on", value);
  if (config->n_directories == CONFIG_MAX_DIRECTORIES)
    return config_value_refuse(why, "\"%.100s\": more than %d directories",
                               value, CONFIG_MAX_DIRECTORIES);
  size_t len = strlen(value);
  while (len > 1 && value[len - 1] == '/')
    len--;
  char *path = strndup(value, len);
  if (!path)
    return -ENOMEM;
  config->directories[config->n_directories++] = path;
  return 0;
}

static void clear_directories(struct config *config) {
  while (config->n_directories > 0)
    free(config->directories[--config->n_directories]);
}

const struct config_setting config_settings[] = {
    [CONFIG_CACHE_SIZE] = {"cache", "size", "cache-size", set_cache_size, NULL},
    [CONFIG_MIN_SIZE] = {"cache", "min-size", "min-size", set_min_size, NULL},
    [CONFIG_SHRINK] = {"cache", "shrink-on-pressure", "shrink-on-pressure",
                       set_shrink, NULL},
    [CONFIG_PAGE_SIZE] = {"cache", "page-size", "page-size", set_page_size,
                          NULL},
    [CONFIG_SHARE] = {"cache", "share", "share", set_share, NULL},
    [CONFIG_WORKERS] = {"cache", "workers", "workers", set_workers, NULL},
    [CONFIG_LISTEN] = {"listen", "address", "listen", add_listen, clear_listen},
    [CONFIG_INSECURE] = {"listen", "insecure", "insecure", set_insecure, NULL},
    [CONFIG_DRAIN_TIMEOUT] = {"listen", "drain-timeout", "drain-timeout",
                              set_drain_timeout, NULL},
    [CONFIG_TLS_CERTIFICATE] = {"tls", "certificate", "tls-certificate",
                                set_tls_certificate, NULL},
    [CONFIG_TLS_KEY] = {"tls", "key", "tls-key", set_tls_key, NULL},
    [CONFIG_TLS_CLIENT_CA] = {"tls", "client-ca", "tls-client-ca",
                              set_tls_client_ca, NULL},
    [CONFIG_TLS_REQUIRE_CLIENT] = {"tls", "require-client-certificate",
                                   "tls-require-client-certificate",
                                   set_tls_require_client, NULL},
    [CONFIG_DIRECTORY] = {"images", "directory", "directory", add_directory,
                          clear_directories},
    [CONFIG_ALLOW] = {"images", "allow", "allow", add_allow, clear_allow},
    [CONFIG_ADMIN_ALLOW] = {"admin", "allow", "admin-allow", add_admin_allow,
                            clear_admin_allow},
    [CONFIG_METRICS] = {"metrics", "address", "metrics", set_metrics, NULL},
    [CONFIG_LOG_LEVEL] = {"log", "level", "log-level", set_log_level, NULL},
};

/* ---- The settings of an image -------------------------------------------- */

/* Makes a path of `source`, or what is to be shown of a URI, in memory from
 * malloc(3).  `*kind` is the URI's, or NULL. */
static int parse_source(const struct config_image *image, const char *source,
                        char **out, const struct source_kind **kind,
                        char *why) {
  const char *reason;
  size_t scheme = file_uri_scheme_len(source);
  *kind = NULL;
  if (file_uri_is(source)) {
    int r = file_uri_path(source, out, &reason);
    return r == -EINVAL
               ? config_value_refuse(why, "\"%.100s\": %s", source, reason)
               : r;
  }
  *out = scheme ? source_uri_shown(source) : strdup(source);
  if (!*out)
    return -ENOMEM;
  if (scheme && image->kinds)
    *kind = source_uri_kind(image->kinds, source);
  if (scheme && !*kind)
    return config_value_refuse(
        why,
        "\"%.100s\": there is no source for the scheme \"%.*s\"; a "
        "path with a colon begins with / or ./",
        *out, (int)(scheme > 32 ? 32 : scheme), source);
  return 0;
}

/* Takes a path or a URI, in place of the one before. */
static int take_source(struct config_image *image, unsigned setting,
                       const char *value, char **to_path, char **to_uri,
                       const struct source_kind **to_kind, char *why) {
  char *path = NULL, *uri = NULL;
  const struct source_kind *kind;
  int r = parse_source(image, value, &path, &kind, why);
  if (r == 0 && !*path)
    r = config_value_refuse(why, "\"%.100s\": it names no source", value);
  if (r == 0 && !kind)
    r = config_value_path(path, value, &image->origins[setting], why);
  if (r == 0 && kind && !(uri = strdup(value)))
    r = -ENOMEM;
  if (r < 0) {
    free(path);
    return r;
  }
  free(*to_path);
  free(*to_uri);
  *to_path = path;
  *to_uri = uri;
  *to_kind = kind;
  return 0;
}

static int set_source(struct config_image *image, const char *value,
                      char *why) {
  return take_source(image, CONFIG_IMAGE_SOURCE, value, &image->path,
                     &image->uri, &image->kind, why);
}

static int set_image_share(struct config_image *image, const char *value,
                           char *why) {
  bool share;
  int r = config_value_on_off(value, &share, why);
  if (r == 0)
    image->share = share ? SHARE_ON : SHARE_OFF;
  return r;
}

static int set_image_warm(struct config_image *image, const char *value,
                          char *why) {
  return config_value_yes_no(value, &image->warm, why);
}

static int set_image_page_size(struct config_image *image, const char *value,
                               char *why) {
  return config_value_page_size(value, &image->page_size, why);
}

static int set_fetch_size(struct config_image *image, const char *value,
                          char *why) {
  return config_value_page_size(value, &image->fetch_size, why);
}

static int set_fetch_size_max(struct config_image *image, const char *value,
                              char *why) {
  return config_value_power(value, MAX_FETCH_SIZE, &image->fetch_size_max, why);
}

static int set_max_requests(struct config_image *image, const char *value,
                            char *why) {
  if (!config_value_count(value, MAX_MAX_REQUESTS, &image->max_requests))
    return config_value_refuse(why, "\"%.100s\": not a number from 1 to %u",
                               value, MAX_MAX_REQUESTS);
  return 0;
}

static int set_max_age(struct config_image *image, const char *value,
                       char *why) {
  if (!config_value_count(value, MAX_MAX_AGE_S, &image->max_age_s))
    return config_value_refuse(
        why, "\"%.100s\": not a number of seconds from 1 to %u", value,
        MAX_MAX_AGE_S);
  return 0;
}

static int set_offset(struct config_image *image, const char *value,
                      char *why) {
  return config_value_file_size(value, &image->window.offset, why);
}

static int set_length(struct config_image *image, const char *value,
                      char *why) {
  uint64_t length = 0; /* gcc does not see that it is set where r is 0 */
  int r = config_value_file_size(value, &length, why);
  if (r == 0 && length == 0)
    return config_value_refuse(
        why,
        "\"%.100s\": an image of no bytes; without length it reaches "
        "to the end",
        value);
  if (r == 0)
    image->window.length = length;
  return r;
}

/* In place of what was given before. */
static int set_image_allow(struct config_image *image, const char *value,
                           char *why) {
  struct rule *rule = NULL;
  int r = config_value_add_rule(&rule, value, why);
  if (r < 0)
    return r;
  rule_unref(image->allow);
  image->allow = rule;
  return 0;
}

static int set_verity_root(struct config_image *image, const char *value,
                           char *why) {
  uint8_t root[CONFIG_MAX_ROOT] = {0};
  size_t len = strlen(value);
  if ((len != 64 && len != 128) || !hex_parse(value, root, len / 2))
    return config_value_refuse(
        why,
        "\"%.140s\": not a hash in hex, of 64 digits, or of 128 for "
        "SHA-512",
        value);
  memcpy(image->verity.root, root, sizeof root);
  image->verity.root_len = len / 2;
  return 0;
}

static int set_sha256(struct config_image *image, const char *value,
                      char *why) {
  uint8_t hash[CONFIG_SHA256_LEN] = {0};
  if (strlen(value) != 2 * sizeof hash || !hex_parse(value, hash, sizeof hash))
    return config_value_refuse(
        why, "\"%.100s\": not a hash in hex, of 64 digits", value);
  memcpy(image->verity.sha256, hash, sizeof hash);
  image->verity.is_whole = true;
  return 0;
}

static int set_verity_tree(struct config_image *image, const char *value,
                           char *why) {
  struct config_verity *v = &image->verity;
  return take_source(image, CONFIG_IMAGE_VERITY_TREE, value, &v->tree_path,
                     &v->tree_uri, &v->tree_kind, why);
}

static int set_verity_offset(struct config_image *image, const char *value,
                             char *why) {
  uint64_t offset = 0; /* gcc does not see that it is set where r is 0 */
  int r = config_value_file_size(value, &offset, why);
  if (r == 0 && offset % 512)
    return config_value_refuse(why, "\"%.100s\": not a multiple of 512", value);
  if (r == 0)
    image->verity.tree_offset = offset;
  return r;
}

const struct config_image_setting config_image_settings[] = {
    [CONFIG_IMAGE_SOURCE] = {"source", set_source},
    [CONFIG_IMAGE_SHARE] = {"share", set_image_share},
    [CONFIG_IMAGE_WARM] = {"warm", set_image_warm},
    [CONFIG_IMAGE_MAX_AGE] = {"max-age", set_max_age},
    [CONFIG_IMAGE_PAGE_SIZE] = {"page-size", set_image_page_size},
    [CONFIG_IMAGE_FETCH_SIZE] = {"fetch-size", set_fetch_size},
    [CONFIG_IMAGE_FETCH_SIZE_MAX] = {"fetch-size-max", set_fetch_size_max},
    [CONFIG_IMAGE_MAX_REQUESTS] = {"max-requests", set_max_requests},
    [CONFIG_IMAGE_OFFSET] = {"offset", set_offset},
    [CONFIG_IMAGE_LENGTH] = {"length", set_length},
    [CONFIG_IMAGE_ALLOW] = {"allow", set_image_allow},
    [CONFIG_IMAGE_VERITY_ROOT] = {"verity-root", set_verity_root},
    [CONFIG_IMAGE_VERITY_TREE] = {"verity-tree", set_verity_tree},
    [CONFIG_IMAGE_VERITY_OFFSET] = {"verity-offset", set_verity_offset},
    [CONFIG_IMAGE_SHA256] = {"sha256", set_sha256},
};

/* ---- What an image has for its source alone ------------------------------ */

static bool is_known_option(const struct source_kind *const *kinds,
                            const char *key) {
  for (; kinds && *kinds; kinds++)
    if (source_uri_has_option(*kinds, key))
      return true;
  return false;
}

/* The place of the option of that key, which may be the next one. */
static size_t find_option(const struct config_source_options *options,
                          const char *key) {
  size_t i = 0;
  while (i < options->n && strcmp(options->all[i].key, key) != 0)
    i++;
  return i;
}

static int put_option(struct config_source_options *options, size_t i,
                      const char *key, const char *value,
                      struct config_origin origin) {
  struct source_option made = {.key = strdup(key), .value = strdup(value)};
  if (!made.key || !made.value) {
    free((char *)made.key);
    free((char *)made.value);
    return -ENOMEM;
  }
  if (i < options->n) {
    free((char *)options->all[i].key);
    free((char *)options->all[i].value);
  } else {
    options->n++;
  }
  options->all[i] = made;
  options->origins[i] = origin;
  return 0;
}

int config_image_set_option(struct config_image *image, const char *key,
                            const char *value, struct config_origin origin,
                            char why[CONFIG_WHY_LEN]) {
  if (!is_known_option(image->kinds, key))
    return -ENOENT;
  if (!image->options)
    image->options = calloc(1, sizeof *image->options);
  if (!image->options)
    return -ENOMEM;
  size_t i = find_option(image->options, key);
  if (i == CONFIG_MAX_SOURCE_OPTIONS)
    return config_value_refuse(why, "more than %d options of a source",
                               CONFIG_MAX_SOURCE_OPTIONS);
  if (i < image->options->n && image->options->origins[i].file == origin.file)
    return config_value_refuse(why, "it is given twice; remove one");
  return put_option(image->options, i, key, value, origin);
}

static void free_options(struct config_source_options *options) {
  for (size_t i = 0; options && i < options->n; i++) {
    free((char *)options->all[i].key);
    free((char *)options->all[i].value);
  }
  free(options);
}

struct source_uri config_image_uri(const struct config_image *image) {
  return (struct source_uri){
      .text = image->uri,
      .options = image->options ? image->options->all : NULL,
      .n_options = image->options ? image->options->n : 0};
}

/* An option of another kind of source than the image has. */
static int check_options(const struct config_image *image,
                         struct config_origin *origin, char *why) {
  const struct config_source_options *options = image->options;
  for (size_t i = 0; options && i < options->n; i++) {
    const char *key = options->all[i].key;
    if (image->kind && source_uri_has_option(image->kind, key))
      continue;
    *origin = options->origins[i];
    return config_value_refuse(why, "%.64s: it is no option of %s", key,
                               image->kind ? image->kind->name : "a file");
  }
  return 0;
}

const char *config_relative_path(const struct config_image *image) {
  const struct config_verity *v = &image->verity;
  if (!image->uri && image->path[0] != '/')
    return image->path;
  return v->tree_path && !v->tree_uri && v->tree_path[0] != '/' ? v->tree_path
                                                                : NULL;
}

bool config_image_is_verified(const struct config_image *image) {
  return image->verity.root_len || image->verity.is_whole;
}

bool config_tree_is_inside(const struct config_image *image) {
  return !image->verity.tree_path &&
         image->origins[CONFIG_IMAGE_VERITY_OFFSET].line;
}

char *config_image_tree(const struct config_image *image,
                        const struct source_kind **kind) {
  const struct config_verity *v = &image->verity;
  const char *beside = image->uri ? image->uri : image->path;
  size_t len = strcspn(beside, image->uri ? "?#" : "");
  char *made;
  if (v->tree_path) {
    *kind = v->tree_kind;
    return strdup(v->tree_uri ? v->tree_uri : v->tree_path);
  }
  *kind = image->kind;
  if (asprintf(&made, "%.*s.verity%s", (int)len, beside, beside + len) < 0)
    return NULL;
  return made;
}

/* The URIs of a list, which spaces or commas separate, with ".verity" behind
 * their paths.  NULL: there is no memory. */
static char *trees_beside(const char *list) {
  static const char separators[] = ", \t";
  char *made = NULL;
  size_t made_len;
  FILE *out = open_memstream(&made, &made_len);
  if (!out)
    return NULL;
  for (list += strspn(list, separators); *list;
       list += strspn(list, separators)) {
    size_t len = strcspn(list, separators), path = strcspn(list, "?#, \t");
    fprintf(out, "%.*s.verity%.*s ", (int)path, list, (int)(len - path),
            list + path);
    list += len;
  }
  bool is_whole = !ferror(out);
  if (fclose(out) == 0 && is_whole)
    return made;
  free(made);
  return NULL;
}

int config_tree_init(struct config_tree *tree,
                     const struct config_image *image) {
  *tree = (struct config_tree){.kind = NULL};
  tree->text = config_image_tree(image, &tree->kind);
  if (!tree->text)
    return -ENOMEM;
  tree->uri.text = tree->text;
  const struct source_uri of_image = config_image_uri(image);
  if (tree->kind != image->kind || !of_image.n_options)
    return 0;
  tree->options = calloc(of_image.n_options, sizeof tree->options[0]);
  if (!tree->options)
    return -ENOMEM;
  for (size_t i = 0; i < of_image.n_options; i++) {
    struct source_option *o = &tree->options[tree->uri.n_options];
    *o = of_image.options[i];
    if (strcmp(o->key, "parents") == 0) {
      if (image->verity.tree_path)
        continue;
      if (!(o->value = tree->parents = trees_beside(o->value)))
        return -ENOMEM;
    }
    tree->uri.n_options++;
  }
  tree->uri.options = tree->options;
  return 0;
}

void config_tree_fini(struct config_tree *tree) {
  free(tree->text);
  free(tree->parents);
  free(tree->options);
}

static int check_tree(const struct config_image *image, char *why) {
  struct source_fault fault = {.text = ""};
  struct config_tree tree;
  int r = config_tree_init(&tree, image);
  if (r < 0)
    r = config_value_refuse(why, "verity-tree: out of memory");
  else if (tree.kind && tree.kind->check(&tree.uri, &fault) < 0)
    r = config_value_refuse(why, "verity-tree: %s", fault.text);
  config_tree_fini(&tree);
  return r;
}

static int check_verity(const struct config_image *image,
                        struct config_origin *origin, char *why) {
  static const unsigned needs_root[] = {CONFIG_IMAGE_VERITY_TREE,
                                        CONFIG_IMAGE_VERITY_OFFSET};
  const struct config_origin *origins = image->origins;
  for (size_t i = 0; i < sizeof needs_root / sizeof needs_root[0]; i++)
    if (origins[needs_root[i]].line &&
        !origins[CONFIG_IMAGE_VERITY_ROOT].line) {
      *origin = origins[needs_root[i]];
      return config_value_refuse(why, "%s: it needs verity-root, the root hash",
                                 config_image_settings[needs_root[i]].key);
    }
  *origin = origins[CONFIG_IMAGE_MAX_AGE];
  if (config_image_is_verified(image) && image->max_age_s)
    return config_value_refuse(
        why, "max-age: an image that is verified cannot change");
  *origin = origins[CONFIG_IMAGE_SHA256];
  if (image->verity.root_len && image->verity.is_whole)
    return config_value_refuse(
        why, "sha256: beside verity-root it is not needed; remove "
             "one");
  if (!image->verity.root_len)
    return 0;
  *origin = origins[CONFIG_IMAGE_VERITY_TREE].line
                ? origins[CONFIG_IMAGE_VERITY_TREE]
                : origins[CONFIG_IMAGE_VERITY_ROOT];
  return config_tree_is_inside(image) ? 0 : check_tree(image, why);
}

int config_image_check_source(const struct config_image *image,
                              struct config_origin *origin,
                              char why[CONFIG_WHY_LEN]) {
  struct source_fault fault = {.text = ""};
  int r = check_options(image, origin, why);
  if (r == 0)
    r = check_verity(image, origin, why);
  if (r < 0 || !image->kind)
    return r;
  if (image->max_age_s) {
    *origin = image->origins[CONFIG_IMAGE_MAX_AGE];
    return config_value_refuse(why, "max-age: it is for files, and not for %s",
                               image->kind->name);
  }
  const struct source_uri uri = config_image_uri(image);
  *origin = image->origins[CONFIG_IMAGE_SOURCE];
  return image->kind->check(&uri, &fault) < 0
             ? config_value_refuse(why, "source: %s", fault.text)
             : 0;
}

/* ---- A configuration ----------------------------------------------------- */

void config_init(struct config *config) {
  *config = (struct config){.cache_size = DEFAULT_CACHE_SIZE,
                            .page_size = DEFAULT_PAGE_SIZE,
                            .share = true,
                            .tls.requires_client = true,
                            .log_level = LEVEL_INFO};
}

void config_fini(struct config *config) {
  for (size_t i = 0; i < config->n_images; i++)
    config_image_fini(&config->images[i]);
  for (size_t i = 0; i < config->n_files; i++)
    free(config->files[i]);
  clear_directories(config);
  free(config->images);
  free(config->files);
  free(config->tls.certificate);
  free(config->tls.key);
  free(config->tls.client_ca);
  rule_unref(config->allow);
  rule_unref(config->admin);
  const struct source_kind *const *kinds = config->kinds;
  config_init(config);
  config->kinds = kinds;
}

const char *config_add_file(struct config *config, const char *path) {
  char **grown =
      realloc(config->files, (config->n_files + 1) * sizeof *config->files);
  if (!grown)
    return NULL;
  config->files = grown;
  char *copy = strdup(path);
  if (copy)
    grown[config->n_files++] = copy;
  return copy;
}

int config_set(struct config *config, unsigned setting, const char *value,
               struct config_origin origin, char why[CONFIG_WHY_LEN]) {
  const struct config_setting *s = &config_settings[setting];
  if (s->clear && config->origins[setting].file != origin.file)
    s->clear(config);
  config->origins[setting] = origin;
  return s->set(config, value, why);
}

void config_image_init(struct config_image *image,
                       const struct source_kind *const *kinds) {
  *image = (struct config_image){
      .kinds = kinds, .share = SHARE_AS_ALL, .window = WINDOW_WHOLE};
}

void config_image_fini(struct config_image *image) {
  free(image->path);
  free(image->uri);
  free(image->verity.tree_path);
  free(image->verity.tree_uri);
  free_options(image->options);
  image->path = image->uri = NULL;
  image->verity = (struct config_verity){.root_len = 0};
  image->options = NULL;
  clear_rule(&image->allow);
}

void config_image_move(struct config_image *to, struct config_image *from) {
  *to = *from;
  from->path = from->uri = NULL;
  from->verity = (struct config_verity){.root_len = 0};
  from->options = NULL;
  from->allow = NULL;
}

int config_image_set(struct config_image *image, unsigned setting,
                     const char *value, struct config_origin origin,
                     char why[CONFIG_WHY_LEN]) {
  image->origins[setting] = origin;
  return config_image_settings[setting].set(image, value, why);
}

bool config_name_is_valid(const char *name, size_t len) {
  if (len == 0 || len > CONFIG_NAME_MAX)
    return false;
  for (size_t i = 0; i < len; i++)
    if (!name[i] ||
        (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i])))
      return false;
  return true;
}

struct config_image *config_find_image(struct config *config,
                                       const char *name) {
  for (size_t i = 0; i < config->n_images; i++)
    if (strcmp(config->images[i].name, name) == 0)
      return &config->images[i];
  return NULL;
}

int config_add_image(struct config *config, struct config_image *image,
                     char why[CONFIG_WHY_LEN]) {
  assert(!config_find_image(config, image->name));
  if (config->n_images == CONFIG_MAX_IMAGES)
    return config_value_refuse(why, "more than %d images", CONFIG_MAX_IMAGES);
  size_t n = config->n_images;
  if ((n & (n - 1)) == 0) { /* there is room up to the next power of two */
    struct config_image *grown =
        realloc(config->images, (n ? 2 * n : 1) * sizeof *grown);
    if (!grown)
      return -ENOMEM;
    config->images = grown;
  }
  config_image_move(&config->images[config->n_images++], image);
  return 0;
}

void config_remove_image(struct config *config, const char *name) {
  struct config_image *image = config_find_image(config, name);
  if (!image)
    return;
  config_image_fini(image);
  size_t after = (size_t)(config->images + --config->n_images - image);
  memmove(image, image + 1, after * sizeof *image);
}

unsigned config_workers(const struct config *config) {
  long n = config->n_workers;
  if (n == 0) {
    n = sysconf(_SC_NPROCESSORS_ONLN);
    n = n < 1 ? 1 : n > MAX_DEFAULT_WORKERS ? MAX_DEFAULT_WORKERS : n;
  }
  return (unsigned)n;
}

bool config_shares(const struct config *config,
                   const struct config_image *image) {
  return image->share == SHARE_ON ||
         (image->share == SHARE_AS_ALL && config->share);
}

uint32_t config_page_size(const struct config *config,
                          const struct config_image *image) {
  return image->page_size ? image->page_size : config->page_size;
}

uint32_t config_fetch_size(const struct config_image *image) {
  if (image->fetch_size || !image->kind)
    return image->fetch_size;
  return image->kind->fetch_size;
}

uint32_t config_fetch_size_max(const struct config_image *image) {
  if (image->fetch_size_max || !image->kind)
    return image->fetch_size_max;
  return MAX_FETCH_SIZE;
}

int config_check_page_size(const struct config *config,
                           const struct config_image *image,
                           char why[CONFIG_WHY_LEN]) {
  uint32_t most = limits_default().piece_len;
  if (most < config->page_size)
    most = config->page_size;
  if (image->page_size > most)
    return config_value_refuse(
        why,
        "image \"%s\": pages of %u bytes are larger than %u; give all "
        "images such pages, by page-size in [cache]",
        image->name, image->page_size, most);
  if (config_page_size(config, image) > config->cache_size)
    return config_value_refuse(
        why,
        "image \"%s\": a cache of %llu bytes is less than one page of "
        "%u bytes",
        image->name, (unsigned long long)config->cache_size,
        config_page_size(config, image));
  return 0;
}

bool config_uses_tls(const struct config *config) {
  for (size_t i = 0; i < config->n_listen; i++)
    if (config->listen[i].is_tls)
      return true;
  return false;
}

/* ---- What no value shows by itself --------------------------------------- */

/* Says it of an image that has a page size of its own: check_sizes() says it of
 * the others. */
static void check_image_pages(const struct config *config,
                              const struct config_image *image,
                              struct config_errors *errors) {
  const struct config_origin *origin = &image->origins[CONFIG_IMAGE_PAGE_SIZE];
  char why[CONFIG_WHY_LEN];
  if (!image->page_size || config_check_page_size(config, image, why) == 0)
    return;
  if (origin->file)
    config_errors_add(errors, "%s:%u: page-size: %s", origin->file,
                      origin->line, why);
  else
    config_errors_add(errors, "--image: page-size: %s", why);
}

static void check_source(const struct config_image *image,
                         struct config_errors *errors) {
  struct config_origin origin;
  char why[CONFIG_WHY_LEN];
  if (config_image_check_source(image, &origin, why) == 0)
    return;
  if (origin.file)
    config_errors_add(errors, "%s:%u: %s", origin.file, origin.line, why);
  else
    config_errors_add(errors, "--image: image \"%s\": %s", image->name, why);
}

static void check_images(const struct config *config,
                         struct config_errors *errors) {
  /* Where something is wrong already it may have been an image. */
  if (config->n_images + config->n_directories == 0 &&
      !config_errors_any(errors))
    config_errors_add(errors, "no image to serve; write --image SOURCE, or "
                              "[image NAME] in a configuration file, or "
                              "directory = DIRECTORY in [images]");
  for (size_t i = 0; i < config->n_images; i++) {
    const struct config_image *image = &config->images[i];
    if (!image->origins[CONFIG_IMAGE_SOURCE].line)
      config_errors_add(errors,
                        "%s:%u: image \"%s\" has no source; write "
                        "source = PATH",
                        image->origin.file, image->origin.line, image->name);
    else
      check_source(image, errors);
    check_image_pages(config, image, errors);
  }
}

void config_print_place(unsigned setting, const struct config_origin *origin,
                        char place[CONFIG_PLACE_LEN]) {
  const struct config_setting *s = &config_settings[setting];
  if (origin->file)
    snprintf(place, CONFIG_PLACE_LEN, "%s:%u: %s", origin->file, origin->line,
             s->key);
  else
    snprintf(place, CONFIG_PLACE_LEN, "--%s", s->option);
}

/* Names the value that was chosen, and the page size if that is the only one.
 */
static void check_sizes(const struct config *config,
                        struct config_errors *errors) {
  bool by_pages = !config->origins[CONFIG_CACHE_SIZE].line;
  unsigned setting = by_pages ? CONFIG_PAGE_SIZE : CONFIG_CACHE_SIZE;
  char place[CONFIG_PLACE_LEN];
  if (config->cache_size >= config->page_size)
    return;
  config_print_place(setting, &config->origins[setting], place);
  config_errors_add(errors,
                    "%s: a cache of %llu bytes is less than one page of %u "
                    "bytes",
                    place, (unsigned long long)config->cache_size,
                    config->page_size);
}

static void refuse_listen(const struct config_origin *origin, const char *why,
                          struct config_errors *errors) {
  char place[CONFIG_PLACE_LEN];
  config_print_place(CONFIG_LISTEN, origin, place);
  config_errors_add(errors, "%s: %s", place, why);
}

const char *config_tls_missing(const struct config *config) {
  const struct config_tls *tls = &config->tls;
  if (!tls->certificate)
    return "TLS needs a certificate; write certificate = FILE in [tls]";
  if (tls->requires_client && !tls->client_ca)
    return "clients have to show a certificate, and none is known to sign "
           "them; write client-ca = FILE in [tls], or "
           "require-client-certificate = no for anybody to read every image";
  return NULL;
}

static void check_listen(const struct config *config,
                         struct config_errors *errors) {
  char err[CONFIG_WHY_LEN];
  const struct config_origin *named = config->origins;
  const char *tls_why = config_tls_missing(config);
  if (named[CONFIG_TLS_CERTIFICATE].line && !config->tls.certificate)
    tls_why = NULL; /* the file was refused */
  if (named[CONFIG_TLS_CLIENT_CA].line && !config->tls.client_ca)
    tls_why = NULL;
  for (size_t i = 0; i < config->n_listen; i++) {
    const struct address *a = &config->listen[i];
    const struct config_origin *origin = &config->listen_origins[i];
    if (!config->insecure && address_check(a, err, sizeof err) < 0)
      refuse_listen(origin, err, errors);
    if (a->is_tls && tls_why) {
      refuse_listen(origin, tls_why, errors);
      tls_why = NULL; /* once is enough */
    }
    for (size_t j = 0; j < i; j++)
      if (address_is_same(&config->listen[j], a)) {
        refuse_listen(origin, "the address is given twice", errors);
        break;
      }
  }
}

static void check_min_size(const struct config *config,
                           struct config_errors *errors) {
  char place[CONFIG_PLACE_LEN];
  if (config->min_size <= config->cache_size)
    return;
  config_print_place(CONFIG_MIN_SIZE, &config->origins[CONFIG_MIN_SIZE], place);
  config_errors_add(errors,
                    "%s: %llu bytes are more than the cache's size of %llu",
                    place, (unsigned long long)config->min_size,
                    (unsigned long long)config->cache_size);
}

void config_check(const struct config *config, struct config_errors *errors) {
  check_listen(config, errors);
  check_images(config, errors);
  check_sizes(config, errors);
  check_min_size(config, errors);
}
