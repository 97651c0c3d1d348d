#include "daemon/config_check.h"

#include <stddef.h>

#include "daemon/config_tree.h"
#include "source/uri.h"

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
  return config_image_has_tree(image) ? 0 : check_tree(image, why);
}

int config_check_source(const struct config_image *image,
                        struct config_origin *origin,
                        char why[CONFIG_WHY_LEN]) {
  struct source_fault fault = {.text = ""};
  int r = check_options(image, origin, why);
  if (r == 0)
    r = check_verity(image, origin, why);
  if (r < 0)
    return r;
  if (!image->kind && image->max_requests) {
    *origin = image->origins[CONFIG_IMAGE_MAX_REQUESTS];
    return config_value_refuse(
        why, "max-requests: it is for remote sources, and not for files");
  }
  if (!image->kind)
    return 0;
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

/* A cache holds back a part of its size, and needs some for page states.  So
 * one page needs the room of two, and more if it is small.  0, or -EINVAL with
 * the reason in `why`. */
static int check_room(const struct config *config, uint32_t page_size,
                      char *why) {
  bool shrinks =
      config->shrinks && config_least_size(config) < config->cache_size;
  uint64_t least = shrinks ? config_least_size(config) : config->cache_size;
  if (least >= 2ull * page_size)
    return 0;
  return config_value_refuse(
      why, "a cache of %llu bytes%s is less than two pages of %u bytes",
      (unsigned long long)least, shrinks ? ", to which it may shrink," : "",
      page_size);
}

int config_check_page_size(const struct config *config,
                           const struct config_image *image,
                           char why[CONFIG_WHY_LEN]) {
  if (image->huge && image->page_size && image->page_size != CONFIG_HUGE_PAGE)
    return config_value_refuse(
        why,
        "image \"%s\": huge = on makes pages of 2M, and page-size is %uK; "
        "remove one",
        image->name, image->page_size >> 10);
  char room[CONFIG_WHY_LEN];
  if (check_room(config, config_page_size(config, image), room) == 0)
    return 0;
  return config_value_refuse(why, "image \"%s\": %s", image->name, room);
}

/* ---- Rules of several values --------------------------------------------- */

/* Says it of an image that has a page size of its own: check_sizes() says it of
 * the others. */
static void check_image_pages(const struct config *config,
                              const struct config_image *image,
                              struct config_errors *errors) {
  unsigned setting = image->huge ? CONFIG_IMAGE_HUGE : CONFIG_IMAGE_PAGE_SIZE;
  const struct config_origin *origin = &image->origins[setting];
  const char *key = config_image_settings[setting].key;
  char why[CONFIG_WHY_LEN];
  if ((!image->page_size && !image->huge) ||
      config_check_page_size(config, image, why) == 0)
    return;
  if (origin->file)
    config_errors_add(errors, "%s:%u: %s: %s", origin->file, origin->line, key,
                      why);
  else
    config_errors_add(errors, "--image: %s: %s", key, why);
}

static void check_source(const struct config_image *image,
                         struct config_errors *errors) {
  struct config_origin origin;
  char why[CONFIG_WHY_LEN];
  if (config_check_source(image, &origin, why) == 0)
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

/* Names the value that was chosen, and the page size if that is the only one.
 */
static void check_sizes(const struct config *config,
                        struct config_errors *errors) {
  bool by_pages = !config->origins[CONFIG_CACHE_SIZE].line;
  unsigned setting = by_pages ? CONFIG_PAGE_SIZE : CONFIG_CACHE_SIZE;
  char place[CONFIG_PLACE_LEN], why[CONFIG_WHY_LEN];
  if (config->shrinks && config->origins[CONFIG_MIN_SIZE].line &&
      config->min_size < config->cache_size)
    setting = CONFIG_MIN_SIZE;
  if (check_room(config, config->page_size, why) == 0)
    return;
  config_print_place(setting, &config->origins[setting], place);
  config_errors_add(errors, "%s: %s", place, why);
}

static void refuse_listen(const struct config_origin *origin, const char *why,
                          struct config_errors *errors) {
  char place[CONFIG_PLACE_LEN];
  config_print_place(CONFIG_LISTEN, origin, place);
  config_errors_add(errors, "%s: %s", place, why);
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
