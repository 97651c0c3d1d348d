#include "daemon/config.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_CACHE_SIZE (256ull << 20)
#define DEFAULT_PAGE_SIZE 4096u
/* More workers than this gain nothing: they are limited by the memory bus. */
#define MAX_DEFAULT_WORKERS 8
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
    return config_value_refuse_text(why, value, "no cache at all");
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
    return config_value_refuse_text(why, value, "not a number from 1 to %d",
                                    CONFIG_MAX_WORKERS);
  return 0;
}

static int set_log_level(struct config *config, const char *value, char *why) {
  int level = log_level_parse(value);
  if (level < 0)
    return config_value_refuse_text(why, value,
                                    "not error, warn, info or debug");
  config->log_level = (enum log_level)level;
  return 0;
}

static int add_listen(struct config *config, const char *value, char *why) {
  if (config->n_listen == CONFIG_MAX_LISTEN)
    return config_value_refuse_text(why, value, "more than %d addresses",
                                    CONFIG_MAX_LISTEN);
  struct address *to = &config->listen[config->n_listen];
  int r = address_parse(value, to, why, CONFIG_WHY_LEN);
  if (r == 0 && to->generic.sa_family == AF_UNIX)
    r = config_value_check_path(to->un.sun_path, value,
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
    return config_value_refuse_text(why, value,
                                    "not a number of seconds from 0 to %u",
                                    MAX_DRAIN_TIMEOUT_S);
  config->drain_timeout_s = s;
  return 0;
}

static int set_tls_file(const struct config *config, unsigned setting,
                        const char *value, char **to, char *why) {
  if (!*value)
    return config_value_refuse(why, "\"\": it names no file");
  return config_value_path(value, value, &config->origins[setting], to, why);
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
    return config_value_refuse_text(
        why, value, "it must be unix:PATH, or tcp: on loopback");
  if (r == 0 && a.generic.sa_family == AF_UNIX)
    r = config_value_check_path(a.un.sun_path, value,
                                &config->origins[CONFIG_METRICS], why);
  if (r == 0)
    config->metrics = a;
  return r;
}

static int add_directory(struct config *config, const char *value, char *why) {
  if (*value != '/')
    return config_value_refuse_text(why, value,
                                    "a directory is named from / on");
  if (config->n_directories == CONFIG_MAX_DIRECTORIES)
    return config_value_refuse_text(why, value, "more than %d directories",
                                    CONFIG_MAX_DIRECTORIES);
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
  if (image->huge)
    return CONFIG_HUGE_PAGE;
  return image->page_size ? image->page_size : config->page_size;
}

bool config_uses_tls(const struct config *config) {
  for (size_t i = 0; i < config->n_listen; i++)
    if (config->listen[i].is_tls)
      return true;
  return false;
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
