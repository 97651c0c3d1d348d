/* The settings of an image: a section [image NAME], and what follows SOURCE in
 * --image and in `cachet add`.  All three use `config_image_settings`.
 *
 *   I1  A refused value leaves the previous value in place, but sets the origin
 *       of the setting (C3 in config.h).
 *   I2  An image owns its strings, its rule and the options of its source.
 *       config_image_fini() frees them, and config_image_move() hands them on.
 *   I3  A setting of 0 or NULL was not given.  A default that depends on the
 *       daemon or on the kind of the source is decided where the value is used:
 *       config_page_size(), config_image_fetch_size().
 *
 * A new setting is a line in CONFIG_IMAGE_SETTINGS, the functions that it
 * names, and a member of `struct config_image`. */
#ifndef DAEMON_CONFIG_IMAGE_H
#define DAEMON_CONFIG_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/window.h"
#include "cache/source.h"
#include "daemon/config_value.h"
#include "daemon/rule.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CONFIG_NAME_MAX 64 /* bytes of an image's name */
#define CONFIG_HUGE_PAGE (2u << 20)

enum { CONFIG_MAX_SOURCE_OPTIONS = 32 };

enum config_share { SHARE_AS_ALL, SHARE_ON, SHARE_OFF };

/* The settings of an image, a line each:
 *
 *   - its number, CONFIG_IMAGE_...;
 *   - its key in a section, and on the command line behind the source;
 *   - the function that sets it, in config_image.c;
 *   - the function that compares it in two images.  NULL: a change of it is no
 *     reason to open the source again, for the reloader takes it in place
 *     (allow), refuses it (page-size, huge), compares it itself because its
 *     default is the daemon's (share), or need not do anything (warm). */
#define CONFIG_IMAGE_SETTINGS(SETTING)                                         \
  SETTING(SOURCE, "source", set_source, same_source)                           \
  SETTING(SHARE, "share", set_image_share, NULL)                               \
  SETTING(WARM, "warm", set_image_warm, NULL)                                  \
  SETTING(MAX_AGE, "max-age", set_max_age, same_max_age)                       \
  SETTING(PAGE_SIZE, "page-size", set_image_page_size, NULL)                   \
  SETTING(HUGE, "huge", set_image_huge, NULL)                                  \
  SETTING(FETCH_SIZE, "fetch-size", set_fetch_size, same_fetch_size)           \
  SETTING(FETCH_SIZE_MAX, "fetch-size-max", set_fetch_size_max,                \
          same_fetch_size)                                                     \
  SETTING(MAX_REQUESTS, "max-requests", set_max_requests, same_max_requests)   \
  SETTING(OFFSET, "offset", set_offset, same_window)                           \
  SETTING(LENGTH, "length", set_length, same_window)                           \
  SETTING(ALLOW, "allow", set_image_allow, NULL)                               \
  SETTING(VERITY_ROOT, "verity-root", set_verity_root, same_verity)            \
  SETTING(VERITY_TREE, "verity-tree", set_verity_tree, same_verity)            \
  SETTING(VERITY_OFFSET, "verity-offset", set_verity_offset, same_verity)      \
  SETTING(SHA256, "sha256", set_sha256, same_verity)

#define CONFIG_IMAGE_NUMBER(number, key, set, is_same) CONFIG_IMAGE_##number,
enum { CONFIG_IMAGE_SETTINGS(CONFIG_IMAGE_NUMBER) CONFIG_N_IMAGE_SETTINGS };
#undef CONFIG_IMAGE_NUMBER

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
  bool warm;          /* it is read into the cache when it is opened */
  unsigned max_age_s; /* older pages are read again; 0: not given */
  uint32_t page_size; /* 0: that of the cache, or as `huge` says */
  bool huge;          /* its pages are CONFIG_HUGE_PAGE long */
  struct source_fetch_size fetch_size; /* what is 0 was not given */
  unsigned max_requests; /* in flight at its remote source; 0: not given */
  struct window window;  /* the part of the file that is served */
  struct rule *allow;    /* of its readers; NULL: not given */
  struct config_verity verity;
  struct config_origin origin; /* of the image: its last section, or option */
  struct config_origin origins[CONFIG_N_IMAGE_SETTINGS];
  enum config_due due; /* the reloader's */
};

/* One setting of an image: a key of its section.  On the command line it may
 * follow the source, unless it is the source. */
struct config_image_setting {
  const char *key;
  int (*set)(struct config_image *image, const char *value, char *why);
  bool (*is_same)(const struct config_image *a, const struct config_image *b);
};

extern const struct config_image_setting
    config_image_settings[CONFIG_N_IMAGE_SETTINGS];

/* Whether a source that was opened for one of the images serves the other as
 * well, so that a reload need not open it again. */
bool config_image_is_same(const struct config_image *a,
                          const struct config_image *b);

/* Makes an image without a name or a source; its source may be of one of the
 * kinds. */
void config_image_init(struct config_image *image,
                       const struct source_kind *const *kinds);
void config_image_fini(struct config_image *image);

/* Moves an image: `from` owns nothing afterwards. */
void config_image_move(struct config_image *to, struct config_image *from);

/* Sets the setting of that number.  0; -EINVAL with the reason in `why`, which
 * begins with the value; -ENOMEM. */
int config_image_set(struct config_image *image, unsigned setting,
                     const char *value, struct config_origin origin,
                     char why[CONFIG_WHY_LEN]);

/* Sets an option of the image's source.  Likewise; -ENOENT: no kind of source
 * knows the key. */
int config_image_set_option(struct config_image *image, const char *key,
                            const char *value, struct config_origin origin,
                            char why[CONFIG_WHY_LEN]);

/* Whether an image may have this name; the text need not end in a NUL. */
bool config_image_name_is_valid(const char *name, size_t len);

/* The URI and options of its source, which is remote; the strings stay the
 * image's. */
struct source_uri config_image_uri(const struct config_image *image);

bool config_image_is_verified(const struct config_image *image);

/* Whether its hash tree is in the image itself. */
bool config_image_has_tree(const struct config_image *image);

/* How many bytes a miss of this image reads. */
struct source_fetch_size
config_image_fetch_size(const struct config_image *image);

#ifdef __cplusplus
}
#endif

#endif
