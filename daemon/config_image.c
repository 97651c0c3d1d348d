#include "daemon/config_image.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/file_uri.h"
#include "base/hex.h"
#include "base/shown_uri.h"
#include "source/uri.h"

#define MAX_FETCH_SIZE (4u << 20)
#define MAX_MAX_REQUESTS 1024u
#define MAX_MAX_AGE_S 1000000000u

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
    return r == -EINVAL ? config_value_refuse_text(why, source, "%s", reason)
                        : r;
  }
  *out = scheme ? shown_uri_of(source) : strdup(source);
  if (!*out)
    return -ENOMEM;
  if (scheme && image->kinds)
    *kind = source_uri_kind(image->kinds, source);
  if (scheme && !*kind)
    return config_value_refuse_text(
        why, source,
        "there is no source for the scheme \"%.*s\"; a "
        "path with a colon begins with / or ./",
        (int)(scheme > 32 ? 32 : scheme), source);
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
    r = config_value_refuse_text(why, value, "it names no source");
  if (r == 0 && !kind)
    r = config_value_path(path, value, &image->origins[setting], &path, why);
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

static int set_image_huge(struct config_image *image, const char *value,
                          char *why) {
  return config_value_on_off(value, &image->huge, why);
}

static int set_fetch_size(struct config_image *image, const char *value,
                          char *why) {
  return config_value_page_size(value, &image->fetch_size.least, why);
}

static int set_fetch_size_max(struct config_image *image, const char *value,
                              char *why) {
  return config_value_power(value, MAX_FETCH_SIZE, &image->fetch_size.most,
                            why);
}

static int set_max_requests(struct config_image *image, const char *value,
                            char *why) {
  if (!config_value_count(value, MAX_MAX_REQUESTS, &image->max_requests))
    return config_value_refuse_text(why, value, "not a number from 1 to %u",
                                    MAX_MAX_REQUESTS);
  return 0;
}

static int set_max_age(struct config_image *image, const char *value,
                       char *why) {
  if (!config_value_count(value, MAX_MAX_AGE_S, &image->max_age_s))
    return config_value_refuse_text(
        why, value, "not a number of seconds from 1 to %u", MAX_MAX_AGE_S);
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
    return config_value_refuse_text(
        why, value,
        "an image of no bytes; without length it reaches "
        "to the end");
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
    return config_value_refuse_text(
        why, value,
        "not a hash in hex, of 64 digits, or of 128 for "
        "SHA-512");
  memcpy(image->verity.root, root, sizeof root);
  image->verity.root_len = len / 2;
  return 0;
}

static int set_sha256(struct config_image *image, const char *value,
                      char *why) {
  uint8_t hash[CONFIG_SHA256_LEN] = {0};
  if (strlen(value) != 2 * sizeof hash || !hex_parse(value, hash, sizeof hash))
    return config_value_refuse_text(why, value,
                                    "not a hash in hex, of 64 digits");
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
    return config_value_refuse_text(why, value, "not a multiple of 512");
  if (r == 0)
    image->verity.tree_offset = offset;
  return r;
}

/* ---- Whether it was changed ---------------------------------------------- */

static bool same_text(const char *a, const char *b) {
  return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool same_options(const struct config_image *a,
                         const struct config_image *b) {
  const struct source_uri x = config_image_uri(a), y = config_image_uri(b);
  bool same = x.n_options == y.n_options;
  for (size_t i = 0; same && i < x.n_options; i++)
    same = strcmp(x.options[i].key, y.options[i].key) == 0 &&
           strcmp(x.options[i].value, y.options[i].value) == 0;
  return same;
}

static bool same_source(const struct config_image *a,
                        const struct config_image *b) {
  return same_text(a->path, b->path) && same_text(a->uri, b->uri) &&
         (!a->uri || same_options(a, b));
}

static bool same_max_age(const struct config_image *a,
                         const struct config_image *b) {
  return a->max_age_s == b->max_age_s;
}

static bool same_fetch_size(const struct config_image *a,
                            const struct config_image *b) {
  const struct source_fetch_size x = config_image_fetch_size(a),
                                 y = config_image_fetch_size(b);
  return x.least == y.least && x.most == y.most;
}

static bool same_max_requests(const struct config_image *a,
                              const struct config_image *b) {
  return a->max_requests == b->max_requests;
}

static bool same_window(const struct config_image *a,
                        const struct config_image *b) {
  return a->window.offset == b->window.offset &&
         a->window.length == b->window.length;
}

static bool same_verity(const struct config_image *a,
                        const struct config_image *b) {
  const struct config_verity *x = &a->verity, *y = &b->verity;
  return x->root_len == y->root_len &&
         memcmp(x->root, y->root, x->root_len) == 0 &&
         same_text(x->tree_path, y->tree_path) &&
         same_text(x->tree_uri, y->tree_uri) &&
         x->tree_offset == y->tree_offset && x->is_whole == y->is_whole &&
         memcmp(x->sha256, y->sha256, sizeof x->sha256) == 0 &&
         config_image_has_tree(a) == config_image_has_tree(b);
}

#define SETTING(number, key, set, is_same)                                     \
  [CONFIG_IMAGE_##number] = {key, set, is_same},
const struct config_image_setting config_image_settings[] = {
    CONFIG_IMAGE_SETTINGS(SETTING)};
#undef SETTING

bool config_image_is_same(const struct config_image *a,
                          const struct config_image *b) {
  for (size_t i = 0; i < CONFIG_N_IMAGE_SETTINGS; i++) {
    const struct config_image_setting *s = &config_image_settings[i];
    if (s->is_same && !s->is_same(a, b))
      return false;
  }
  return true;
}

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

/* ---- An image ------------------------------------------------------------ */

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
  rule_unref(image->allow);
  image->allow = NULL;
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

bool config_image_name_is_valid(const char *name, size_t len) {
  if (len == 0 || len > CONFIG_NAME_MAX)
    return false;
  for (size_t i = 0; i < len; i++)
    if (!name[i] ||
        (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i])))
      return false;
  return true;
}

bool config_image_is_verified(const struct config_image *image) {
  return image->verity.root_len || image->verity.is_whole;
}

bool config_image_has_tree(const struct config_image *image) {
  return !image->verity.tree_path &&
         image->origins[CONFIG_IMAGE_VERITY_OFFSET].line;
}

struct source_fetch_size
config_image_fetch_size(const struct config_image *image) {
  struct source_fetch_size size = image->fetch_size;
  if (image->kind && !size.least)
    size.least = image->kind->fetch_size;
  if (image->kind && !size.most)
    size.most = MAX_FETCH_SIZE;
  return size;
}
