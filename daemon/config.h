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
 * A new setting is a line in `config_settings` or `config_image_settings`, and
 * the function that it names. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/window.h"
#include "daemon/config_errors.h"
#include "daemon/config_value.h"
#include "daemon/log.h"
#include "daemon/net/address.h"
#include "daemon/rule.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CONFIG_NAME_MAX 64               /* bytes of an image's name */
#define CONFIG_PLACE_LEN (PATH_MAX + 64) /* of where one stands */

enum {
  CONFIG_MAX_IMAGES = 4096,
  CONFIG_MAX_DIRECTORIES = 64,
  CONFIG_MAX_LISTEN = 16,
  CONFIG_MAX_SOURCE_OPTIONS = 32,
  CONFIG_MAX_WORKERS = 64,
};

enum config_share { SHARE_AS_ALL, SHARE_ON, SHARE_OFF };

/* The settings of an image, by their line in config_image_settings. */
enum {
  CONFIG_IMAGE_SOURCE,
  CONFIG_IMAGE_SHARE,
  CONFIG_IMAGE_WARM,
  CONFIG_IMAGE_MAX_AGE,
  CONFIG_IMAGE_PAGE_SIZE,
  CONFIG_IMAGE_FETCH_SIZE,
  CONFIG_IMAGE_FETCH_SIZE_MAX,
  CONFIG_IMAGE_MAX_REQUESTS,
  CONFIG_IMAGE_OFFSET,
  CONFIG_IMAGE_LENGTH,
  CONFIG_IMAGE_ALLOW,
  CONFIG_IMAGE_VERITY_ROOT,
  CONFIG_IMAGE_VERITY_TREE,
  CONFIG_IMAGE_VERITY_OFFSET,
  CONFIG_IMAGE_SHA256,
  CONFIG_N_IMAGE_SETTINGS,
};

/* What a reload could not do for an image, because memory or descriptors were
 * missing: the next reload does it. */
enum config_due { DUE_NOTHING, DUE_ADD, DUE_REPLACE };

/* The settings of an image that only its source uses. */
struct config_source_options {
  struct source_option all[CONFIG_MAX_SOURCE_OPTIONS]; /* ours */
  struct config_origin origins[CONFIG_MAX_SOURCE_OPTIONS];
  size_t n;
};

#define CONFIG_MAX_ROOT 64 /* bytes of a root hash: those of SHA-512 */
#define CONFIG_SHA256_LEN 32

/* How an image's bytes are verified. */
struct config_verity {
  uint8_t root[CONFIG_MAX_ROOT];
  size_t root_len; /* 0: it is not verified */
  /* The source of its hash tree, if one was given: as for the image. */
  char *tree_path, *tree_uri;
  const struct source_kind *tree_kind;
  bool is_whole; /* they are verified by `sha256` of the whole image */
  uint8_t sha256[CONFIG_SHA256_LEN];
  uint64_t tree_offset; /* the byte at which the tree begins; without
                           `tree_path`, if given, a byte of the image itself */
};

struct config_image {
  char name[CONFIG_NAME_MAX + 1];
  char *path; /* decoded; of a URI the part that may be shown.  Never NULL in a
                 checked config */
  char *uri;  /* of its source, with secrets; NULL: it is a file */
  const struct source_kind *kind;         /* of the URI; NULL: a file */
  const struct source_kind *const *kinds; /* all known kinds; or NULL */
  struct config_source_options *options;  /* or NULL */
  enum config_share share;
  bool warm;           /* it is read into the cache when it is opened */
  unsigned max_age_s;  /* older pages are read again; 0: not given */
  uint32_t page_size;  /* 0: that of the cache */
  uint32_t fetch_size; /* the least that a miss reads; 0: the kind's default */
  uint32_t fetch_size_max; /* to which that grows; 0: not given */
  unsigned max_requests;   /* in flight at its source; 0: not given */
  struct window window;    /* the part of the file that is served */
  struct rule *allow;      /* of its readers; NULL: not given */
  struct config_verity verity;
  struct config_origin origin; /* of the image: its last section, or option */
  struct config_origin origins[CONFIG_N_IMAGE_SETTINGS];
  enum config_due due; /* the reloader's */
};

/* The other settings, by their line in config_settings. */
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

/* One setting of an image: a key of its section.  On the command line it may
 * follow the source, unless it is the source. */
struct config_image_setting {
  const char *key;
  int (*set)(struct config_image *image, const char *value, char *why);
};

extern const struct config_image_setting
    config_image_settings[CONFIG_N_IMAGE_SETTINGS];

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
int config_image_set(struct config_image *image, unsigned setting,
                     const char *value, struct config_origin origin,
                     char why[CONFIG_WHY_LEN]);

/* Sets an option of the image's source.  Likewise; -ENOENT: no kind of source
 * knows the key. */
int config_image_set_option(struct config_image *image, const char *key,
                            const char *value, struct config_origin origin,
                            char why[CONFIG_WHY_LEN]);

/* Checks the source as far as that is possible without opening it.  0; -EINVAL
 * with the reason in `why`, and in `*origin` that of the wrong setting. */
int config_image_check_source(const struct config_image *image,
                              struct config_origin *origin,
                              char why[CONFIG_WHY_LEN]);

/* The URI and options of its source, which is remote; the strings stay the
 * image's. */
struct source_uri config_image_uri(const struct config_image *image);

/* A path in the configuration of the image that is relative to the working
 * directory; NULL: there is none. */
const char *config_relative_path(const struct config_image *image);

/* The source of the hash tree of a verified image, which is not in the image
 * itself: a path, or a URI of `*kind`, in memory from malloc(3).  By default it
 * is that of the image with ".verity" appended.  NULL: out of memory. */
char *config_image_tree(const struct config_image *image,
                        const struct source_kind **kind);

/* The source of the tree: it has the image's options if it is of the same kind.
 * Further parents have the tree beside their images, or do not have it if the
 * configuration names its source. */
struct config_tree {
  const struct source_kind *kind; /* NULL: it is a file */
  struct source_uri uri;
  /* What `uri` points to. */
  char *text, *parents;
  struct source_option *options;
};

/* 0 or -ENOMEM; config_tree_fini() is due in any case. */
int config_tree_init(struct config_tree *tree,
                     const struct config_image *image);
void config_tree_fini(struct config_tree *tree);

bool config_image_is_verified(const struct config_image *image);

/* Whether the tree is in the image itself. */
bool config_tree_is_inside(const struct config_image *image);

/* Makes an image without a name or a source; its source may be of one of the
 * kinds. */
void config_image_init(struct config_image *image,
                       const struct source_kind *const *kinds);
void config_image_fini(struct config_image *image);

/* Whether an image may have this name; the text need not end in a NUL. */
bool config_name_is_valid(const char *name, size_t len);

/* The image of that name, or NULL. */
struct config_image *config_find_image(struct config *config, const char *name);

/* Moves an image: `from` owns nothing afterwards. */
void config_image_move(struct config_image *to, struct config_image *from);

/* Adds an image whose name is not in use.  From here the config owns what the
 * image owned.  0; -EINVAL with the reason in `why`; -ENOMEM. */
int config_add_image(struct config *config, struct config_image *image,
                     char why[CONFIG_WHY_LEN]);

/* Removes the image of that name, if there is one. */
void config_remove_image(struct config *config, const char *name);

/* Checks rules that concern several values. */
void config_check(const struct config *config, struct config_errors *errors);

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

/* The least that a miss of this image reads, and the size to which that grows,
 * as in `struct source`. */
uint32_t config_fetch_size(const struct config_image *image);
uint32_t config_fetch_size_max(const struct config_image *image);

/* Checks the page size of an image: a piece of an answer must have room for a
 * page.  0; -EINVAL with the reason in `why`. */
int config_check_page_size(const struct config *config,
                           const struct config_image *image,
                           char why[CONFIG_WHY_LEN]);

/* Whether it listens for TLS. */
bool config_uses_tls(const struct config *config);

/* The setting that a socket for TLS needs and the configuration lacks, or
 * NULL. */
const char *config_tls_missing(const struct config *config);

#ifdef __cplusplus
}
#endif

#endif
