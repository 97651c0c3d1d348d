/* The configuration, as one struct: configuration files (config_file.c) and the
 * command line (options.c) set the same values by the same functions.
 *
 *   C1  A later value replaces an earlier one: a file replaces the values of
 *       files before it, and the command line replaces the values of files.  A
 *       list is replaced as a whole.
 *   C2  Each given value has an origin: the file and the line, or the argument.
 *       Messages about the value name its origin.
 *   C3  A refused value leaves the previous value in place, but sets the
 *       origin: so it is not reported as missing in addition.
 *
 * The settings of an image are in config_image.h, and the rules that concern
 * several values in config_check.h.
 *
 * A new setting needs a number in the enum of settings, a member of `struct
 * config`, its default in config_init(), and a line in `config_settings`.  The
 * line names the function that checks and sets the value.  config_check()
 * (config_check.c) checks rules that concern several values.  reloader.c
 * decides what a reload does with a change of the setting. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/config_image.h"
#include "daemon/config_value.h"
#include "daemon/log.h"
#include "daemon/net/address.h"
#include "daemon/rule.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CONFIG_PLACE_LEN (PATH_MAX + 64) /* of where one stands */

enum {
  CONFIG_MAX_IMAGES = 4096,
  CONFIG_MAX_DIRECTORIES = 64,
  CONFIG_MAX_LISTEN = 16,
  CONFIG_MAX_WORKERS = 64,
};

/* The settings of the daemon, by their line in config_settings. */
enum {
  CONFIG_CACHE_SIZE,
  CONFIG_MIN_SIZE,
  CONFIG_SHRINK,
  CONFIG_PAGE_SIZE,
  CONFIG_SHARE,
  CONFIG_WORKERS,
  CONFIG_LISTEN,
  CONFIG_INSECURE,
  CONFIG_DRAIN_TIMEOUT,
  CONFIG_TLS_CERTIFICATE,
  CONFIG_TLS_KEY,
  CONFIG_TLS_CLIENT_CA,
  CONFIG_TLS_REQUIRE_CLIENT,
  CONFIG_DIRECTORY,
  CONFIG_ALLOW,
  CONFIG_ADMIN_ALLOW,
  CONFIG_METRICS,
  CONFIG_LOG_LEVEL,
  CONFIG_N_SETTINGS,
};

/* Paths of files in PEM.  NULL: none is given. */
struct config_tls {
  char *certificate;
  char *key; /* NULL: it is in `certificate` */
  char *
      client_ca; /* in a checked config not NULL if it is required of clients */
  bool requires_client; /* each client must show a certificate */
};

struct config {
  const struct source_kind *const *kinds; /* of remote sources; or NULL */
  struct config_image *images;
  size_t n_images;
  char *directories[CONFIG_MAX_DIRECTORIES]; /* whose files are images; none
                                                but / ends in a slash */
  size_t n_directories;
  struct address listen[CONFIG_MAX_LISTEN];
  struct config_origin listen_origins[CONFIG_MAX_LISTEN];
  size_t n_listen;          /* 0: the default socket, or inherited ones */
  bool insecure;            /* allows addresses that address_check() refuses */
  unsigned drain_timeout_s; /* before the daemon stops; 0: it does not drain */
  struct config_tls tls;
  struct rule *allow;     /* of images without a rule of their own; or NULL */
  struct rule *admin;     /* of changes; or NULL */
  struct address metrics; /* for HTTP; none if its `len` is 0 */
  uint64_t cache_size;
  uint64_t fitted_size;   /* the size at start, for which limits_fit_cache()
                             was called; 0: this is the start */
  uint64_t min_size;      /* 0: a quarter of cache_size */
  bool shrinks;           /* on memory pressure, down to min_size */
  unsigned cache_percent; /* of the memory limit; 0: cache_size was given */
  uint32_t page_size;
  bool share;         /* local clients may read the mirrors themselves */
  unsigned n_workers; /* 0: by the number of processors */
  enum log_level log_level;
  struct config_origin origins[CONFIG_N_SETTINGS];
  char **files; /* names of the files that were read; origins point to them */
  size_t n_files;
};

/* One setting: its section and key in a file, and its option. */
struct config_setting {
  const char *section, *key;
  const char *option; /* without its hyphens */
  int (*set)(struct config *config, const char *value, char *why);
  void (*clear)(struct config *config); /* of a list; else NULL */
};

extern const struct config_setting config_settings[CONFIG_N_SETTINGS];

/* Sets each value to its default. */
void config_init(struct config *config);
void config_fini(struct config *config);

/* Stores the name of a file that is read from now on, for origins.  NULL: out
 * of memory. */
const char *config_add_file(struct config *config, const char *path);

/* Sets the setting of that number.  0; -EINVAL with the reason in `why`, which
 * begins with the value; -ENOMEM. */
int config_set(struct config *config, unsigned setting, const char *value,
               struct config_origin origin, char why[CONFIG_WHY_LEN]);

/* The image of that name, or NULL. */
struct config_image *config_find_image(struct config *config, const char *name);

/* Adds an image whose name is not in use.  From here the config owns what the
 * image owned.  0; -EINVAL with the reason in `why`; -ENOMEM. */
int config_add_image(struct config *config, struct config_image *image,
                     char why[CONFIG_WHY_LEN]);

/* Removes the image of that name, if there is one. */
void config_remove_image(struct config *config, const char *name);

/* The size to which the cache may shrink. */
static inline uint64_t config_least_size(const struct config *config) {
  return config->min_size ? config->min_size : config->cache_size / 4;
}

/* How many threads serve connections: the given number, or one by
 * processors. */
unsigned config_workers(const struct config *config);

/* The origin of a setting, for the beginning of a message: the file, line and
 * key, or the option. */
void config_print_place(unsigned setting, const struct config_origin *origin,
                        char place[CONFIG_PLACE_LEN]);

/* Whether local clients may read this image's memory themselves. */
bool config_shares(const struct config *config,
                   const struct config_image *image);

/* The size of the pages of this image. */
uint32_t config_page_size(const struct config *config,
                          const struct config_image *image);

/* Whether it listens for TLS. */
bool config_uses_tls(const struct config *config);

/* The setting that a socket for TLS needs and the configuration lacks, or
 * NULL. */
const char *config_tls_missing(const struct config *config);

#ifdef __cplusplus
}
#endif

#endif
