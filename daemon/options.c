#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_uri.h"
#include "base/shown_uri.h"
#include "daemon/cache_size.h"
#include "daemon/config_check.h"
#include "daemon/config_file.h"
#include "daemon/memory_limit.h"
#include "source/uri.h"

const char options_usage[] =
    "usage: cachetd [--image [NAME=]SOURCE] ... [--directory DIRECTORY] ...\n"
    "               [--listen ADDRESS] ...\n"
    "               [--insecure yes|no] [--drain-timeout SECONDS]\n"
    "               [--tls-certificate FILE]\n"
    "               [--tls-key FILE] [--tls-client-ca FILE]\n"
    "               [--tls-require-client-certificate yes|no]\n"
    "               [--allow RULE] ... [--admin-allow RULE] ...\n"
    "               [--cache-size SIZE] [--shrink-on-pressure yes|no]\n"
    "               [--min-size SIZE] [--page-size SIZE] [--share on|off]\n"
    "               [--workers N] [--metrics ADDRESS] [--log-level LEVEL]\n"
    "               [--config FILE] [--check-config] [--version] [--help]\n"
    "\n"
    "  --image [NAME=]SOURCE  serve SOURCE, a path or a URI, as NAME "
    "(default:\n"
    "                         the last part of SOURCE); may be repeated.\n"
    "                         Options may follow SOURCE:\n"
    "                         ,share=on|off         --share of this image\n"
    "                         ,warm=yes             read it into the cache at "
    "start\n"
    "                         ,max-age=SECONDS      read older pages again\n"
    "                         ,page-size=SIZE       --page-size of this image\n"
    "                         ,huge=on              pages of 2M, in the "
    "kernel's huge pages\n"
    "                         ,fetch-size=SIZE      the least that a miss "
    "reads\n"
    "                         ,fetch-size-max=SIZE  the most, when read in "
    "sequence\n"
    "                         ,max-requests=N       reads of a remote source "
    "in flight\n"
    "                         ,offset=SIZE          serve a part of SOURCE,\n"
    "                         ,length=SIZE          from a byte on, so many "
    "bytes\n"
    "                         ,verity-root=HEX      serve only bytes that "
    "match a\n"
    "                                               hash tree with this root,\n"
    "                         ,verity-tree=SOURCE   which is here "
    "(SOURCE.verity),\n"
    "                         ,verity-offset=SIZE   from this byte on\n"
    "                         ,sha256=HEX           serve only bytes of an "
    "image\n"
    "                                               with this hash\n"
    "                         ,allow=RULE           --allow of this image\n"
    "  --directory DIRECTORY  serve each file in DIRECTORY by its name; open "
    "it\n"
    "                         when a client names it; may be repeated\n"
    "  --listen ADDRESS       unix:PATH, tcp:HOST:PORT (loopback only), or\n"
    "                         tls:HOST:PORT; tcp: is 127.0.0.1:10819, and\n"
    "                         tls: 127.0.0.1:10820; may be repeated\n"
    "  --insecure yes|no      allow tcp: addresses that other hosts reach "
    "(no)\n"
    "  --drain-timeout SECONDS\n"
    "                         after SIGTERM wait so long for clients to leave "
    "(0)\n"
    "  --tls-certificate FILE the daemon's certificate, in PEM\n"
    "  --tls-key FILE         its key, if that is in another file\n"
    "  --tls-client-ca FILE   authorities that sign clients' certificates\n"
    "  --tls-require-client-certificate yes|no\n"
    "                         refuse clients without a certificate (yes)\n"
    "  --allow RULE           the readers of images: any, uid:N, user:NAME,\n"
    "                         gid:N, group:NAME or cert:NAME (default: every\n"
    "                         process of this host that reaches a socket); may "
    "be\n"
    "                         repeated\n"
    "  --admin-allow RULE     the peers that may change things, beside root "
    "and\n"
    "                         the daemon's user (default: the group of a Unix\n"
    "                         socket may invalidate); may be repeated\n"
    "  --cache-size SIZE      memory for pages (256M), or N% of what the "
    "machine\n"
    "                         and the control group allow\n"
    "  --shrink-on-pressure yes|no\n"
    "                         shrink the cache while memory is short (no)\n"
    "  --min-size SIZE        but not below this (a quarter of the cache's "
    "size)\n"
    "  --page-size SIZE       a power of two from 4K to 2M (4K)\n"
    "  --share on|off         let local clients map the cache's memory (on)\n"
    "  --workers N            threads that serve connections (one for each\n"
    "                         processor, at most 8)\n"
    "  --metrics ADDRESS      answer /metrics, /livez and /readyz over HTTP, "
    "at\n"
    "                         unix:PATH, or tcp:HOST:PORT on loopback\n"
    "  --log-level LEVEL      error, warn, info (the default) or debug\n"
    "  --config FILE          read FILE and FILE.d/*.conf, in place of\n"
    "                         /etc/cachetd/cachetd.conf, which need not exist\n"
    "  --check-config         check the configuration and exit\n"
    "  --version              print the version and exit\n"
    "  --help                 print this text and exit\n"
    "\n"
    "SIZE takes K, M, G and T, powers of 1024.  Options override the file.\n"
    "See cachetd(8) and cachetd.conf(5).\n";

/* An option that gives a value. */
struct option_given {
  unsigned setting; /* its number, or OPTION_IMAGE */
  const char *value;
  unsigned argument; /* its number */
};

/* Writes the reason and returns -EINVAL. */
__attribute__((format(printf, 2, 3))) static int fail(char *err,
                                                      const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(err, OPTIONS_ERROR_LEN, format, args);
  va_end(args);
  return -EINVAL;
}

/* What may be shown of [NAME=]SOURCE[,OPTION...], in memory from malloc(3):
 * nothing of what follows the source, and of a URI not all.  NULL: no memory.
 */
static char *show_image(const char *argument) {
  const char *equals = strchr(argument, '=');
  bool named = equals && config_image_name_is_valid(
                             argument, (size_t)(equals - argument));
  size_t name_len = named ? (size_t)(equals + 1 - argument) : 0;
  char *source = shown_uri_of(argument + name_len), *shown = NULL;
  if (source && asprintf(&shown, "%.*s%.*s", (int)name_len, argument,
                         (int)strcspn(source, ","), source) < 0)
    shown = NULL;
  free(source);
  return shown;
}

/* ---- Reading the arguments ----------------------------------------------- */

/* Beside the settings, which have their numbers: no characters, so that none is
 * mistaken for a short option. */
enum {
  OPTION_SETTING = 256,
  OPTION_IMAGE = OPTION_SETTING + CONFIG_N_SETTINGS,
  OPTION_CONFIG,
  OPTION_CHECK_CONFIG,
  OPTION_VERSION,
  OPTION_HELP,
};

static const struct option other_options[] = {
    {"image", required_argument, NULL, OPTION_IMAGE},
    {"config", required_argument, NULL, OPTION_CONFIG},
    {"check-config", no_argument, NULL, OPTION_CHECK_CONFIG},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

enum { N_OTHER_OPTIONS = sizeof other_options / sizeof other_options[0] };

static void
list_options(struct option to[CONFIG_N_SETTINGS + N_OTHER_OPTIONS]) {
  for (int i = 0; i < CONFIG_N_SETTINGS; i++)
    to[i] = (struct option){config_settings[i].option, required_argument, NULL,
                            OPTION_SETTING + i};
  memcpy(to + CONFIG_N_SETTINGS, other_options, sizeof other_options);
}

/* Says what is wrong with an argument, which may have a URI in it. */
static int refuse_argument(const char *argument, const char *ends,
                           const char *why, char *err) {
  char *shown = show_image(argument);
  if (!shown)
    return fail(err, "%s", why);
  shown[strcspn(shown, ends)] = '\0';
  int r = fail(err, "%.100s: %s", shown, why);
  free(shown);
  return r;
}

static int take_option(struct options *options, int option, int argument,
                       const char *word, char *err) {
  switch (option) {
  case OPTION_CONFIG:
    options->config_file = optarg;
    return *optarg ? 0 : fail(err, "--config: it names no file");
  case OPTION_CHECK_CONFIG:
    options->action = OPTIONS_CHECK_CONFIG;
    return 0;
  case OPTION_VERSION:
    options->action = OPTIONS_SHOW_VERSION;
    return 0;
  case OPTION_HELP:
    options->action = OPTIONS_SHOW_HELP;
    return 0;
  case ':':
    return fail(err, "%.100s: it needs an argument", word);
  case '?':
    return refuse_argument(word, "=", "no such option", err);
  default:
    options->given[options->n_given++] =
        (struct option_given){.setting = (unsigned)option - OPTION_SETTING,
                              .value = optarg,
                              .argument = (unsigned)argument};
    return 0;
  }
}

/* A reload reads the file again, when the daemon has left its directory. */
static int find_config_file(struct options *options, char *err) {
  const char *path = options->config_file;
  const struct config_origin origin = {.directory = options->directory};
  char why[CONFIG_WHY_LEN];
  if (!path)
    return 0;
  int r = config_value_path(path, path, &origin, &options->whole_path, why);
  if (r == -ENOMEM)
    fail(err, "out of memory");
  else if (r < 0)
    fail(err, "--config: %.250s", why);
  else
    options->config_file = options->whole_path;
  return r;
}

int options_parse(struct options *options, int argc, char *const argv[],
                  char err[OPTIONS_ERROR_LEN]) {
  struct option known[CONFIG_N_SETTINGS + N_OTHER_OPTIONS];
  list_options(known);
  *options = (struct options){
      .given = calloc((size_t)argc + 1, sizeof *options->given)};
  if (!options->given) {
    fail(err, "out of memory");
    return -ENOMEM;
  }
  options->directory = getcwd(NULL, 0);
  optind = 0; /* glibc: begin anew, for a caller that calls twice */
  for (;;) {
    int at = optind ? optind : 1;
    int option = getopt_long(argc, argv, "+:", known, NULL);
    if (option < 0)
      break;
    int r = take_option(options, option, at, argv[at], err);
    if (r < 0)
      return r;
  }
  return optind < argc
             ? refuse_argument(argv[optind], "",
                               "not an option; images are given by --image",
                               err)
             : find_config_file(options, err);
}

void options_fini(struct options *options) {
  free(options->directory);
  options->directory = NULL;
  free(options->whole_path);
  options->whole_path = NULL;
  free(options->given);
  options->given = NULL;
  options->n_given = 0;
}

/* ---- --image ------------------------------------------------------------- */

static int add_to_list(char *why, int len, const char *key) {
  return len < CONFIG_WHY_LEN
             ? len + snprintf(why + len, CONFIG_WHY_LEN - (size_t)len,
                              " %s=", key)
             : len;
}

/* What may follow such a source, as a list. */
static int refuse_image_option(const struct config_image *image,
                               const char *source, const char *key, char *why) {
  const struct source_kind *kind = source_uri_kind(image->kinds, source);
  int len = snprintf(why, CONFIG_WHY_LEN,
                     "unknown image option \"%.64s\"; there are", key);
  for (const char *const *o = kind ? kind->options : NULL; o && *o; o++)
    len = add_to_list(why, len, *o);
  for (int i = 0; i < CONFIG_N_IMAGE_SETTINGS; i++)
    if (i != CONFIG_IMAGE_SOURCE)
      len = add_to_list(why, len, config_image_settings[i].key);
  if (!kind && len < CONFIG_WHY_LEN)
    snprintf(why + len, CONFIG_WHY_LEN - (size_t)len,
             "; a comma in a path is written file: with %%2C");
  return -EINVAL;
}

/* One for the source alone. */
static int set_source_option(struct config_image *image, const char *source,
                             char *option, size_t key_len,
                             struct config_origin origin, char *why) {
  char value_why[CONFIG_WHY_LEN];
  if (option[key_len] != '=')
    return refuse_image_option(image, source, option, why);
  option[key_len] = '\0';
  int r = config_image_set_option(image, option, option + key_len + 1, origin,
                                  value_why);
  if (r == -ENOENT)
    return refuse_image_option(image, source, option, why);
  if (r == -EINVAL)
    snprintf(why, CONFIG_WHY_LEN, "%.32s: %.320s", option, value_why);
  return r;
}

/* KEY=VALUE, which is the caller's to spoil, of an image from `source`. */
static int set_image_option(struct config_image *image, const char *source,
                            char *option, struct config_origin origin,
                            char *why) {
  char value_why[CONFIG_WHY_LEN];
  size_t key_len = strcspn(option, "=");
  for (unsigned i = 0; i < CONFIG_N_IMAGE_SETTINGS; i++) {
    const char *key = config_image_settings[i].key;
    if (i == CONFIG_IMAGE_SOURCE || option[key_len] != '=' ||
        strlen(key) != key_len || memcmp(key, option, key_len) != 0)
      continue;
    if (image->origins[i].line) {
      snprintf(why, CONFIG_WHY_LEN, "%s is given twice", key);
      return -EINVAL;
    }
    int r = config_image_set(image, i, option + key_len + 1, origin, value_why);
    if (r == -EINVAL)
      snprintf(why, CONFIG_WHY_LEN, "%.32s: %.320s", key, value_why);
    return r;
  }
  return set_source_option(image, source, option, key_len, origin, why);
}

/* What follows a comma in a URI may be the rest of a password. */
static int refuse_rest(char *why) {
  snprintf(why, CONFIG_WHY_LEN,
           "behind a comma is KEY=VALUE; a comma in a URI is written %%2C");
  return -EINVAL;
}

/* [NAME=]SOURCE, in `copy`, which is the caller's to spoil.  `image` is the
 * caller's to free. */
static int parse_image_copy(struct config_image *image, char *copy,
                            struct config_origin origin, char *why) {
  char *equals = strchr(copy, '=');
  bool named =
      equals && config_image_name_is_valid(copy, (size_t)(equals - copy));
  char *source = named ? equals + 1 : copy;
  char *options = strchr(source, ',');
  int r = 0;
  bool has_uri = strchr(source, ':');
  if (options)
    *options++ = '\0';
  for (char *o; r == 0 && options && (o = strsep(&options, ","));)
    r = has_uri && !strchr(o, '=')
            ? refuse_rest(why)
            : set_image_option(image, source, o, origin, why);
  if (r == 0)
    r = config_image_set(image, CONFIG_IMAGE_SOURCE, source, origin, why);
  if (r < 0)
    return r;
  const char *name = copy;
  size_t name_len = named ? (size_t)(equals - copy) : 0;
  if (!named) {
    const char *slash = strrchr(image->path, '/');
    name = slash ? slash + 1 : image->path;
    name_len = strlen(name);
  }
  if (!config_image_name_is_valid(name, name_len)) {
    snprintf(why, CONFIG_WHY_LEN,
             "\"%.70s\" cannot be its name, which takes 1 to %d of A-Z a-z 0-9 "
             ". _ -; write --image NAME=SOURCE",
             name, CONFIG_NAME_MAX);
    return -EINVAL;
  }
  memcpy(image->name, name, name_len);
  image->name[name_len] = '\0';
  return 0;
}

/* Adds it, or puts it in the place of one of that name that a file has. */
static int put_image(struct config *config, struct config_image *image,
                     char *why) {
  struct config_image *same = config_find_image(config, image->name);
  if (!same)
    return config_add_image(config, image, why);
  if (!same->origin.file) {
    snprintf(why, CONFIG_WHY_LEN,
             "the name \"%s\" is used twice; write --image NAME=SOURCE",
             image->name);
    return -EINVAL;
  }
  config_image_fini(same);
  config_image_move(same, image);
  return 0;
}

static int apply_image(struct config *config, const char *argument,
                       struct config_origin origin, char *why) {
  struct config_image image;
  char *copy = strdup(argument);
  if (!copy)
    return -ENOMEM;
  config_image_init(&image, config->kinds);
  image.origin = origin;
  int r = parse_image_copy(&image, copy, origin, why);
  if (r == 0)
    r = put_image(config, &image, why);
  config_image_fini(&image);
  free(copy);
  return r;
}

int options_parse_image(struct config_image *image,
                        const struct source_kind *const *kinds,
                        const char *name, const char *source,
                        char why[CONFIG_WHY_LEN]) {
  struct config_origin wrong;
  const struct config_origin origin = {.line = 1};
  char *copy;
  config_image_init(image, kinds);
  if (!config_image_name_is_valid(name, strlen(name))) {
    snprintf(why, CONFIG_WHY_LEN, "a name takes 1 to %d of A-Z a-z 0-9 . _ -",
             CONFIG_NAME_MAX);
    return -EINVAL;
  }
  if (asprintf(&copy, "%s=%s", name, source) < 0)
    return -ENOMEM;
  image->origin = origin;
  int r = parse_image_copy(image, copy, origin, why);
  free(copy);
  return r == 0 ? config_check_source(image, &wrong, why) : r;
}

/* ---- The configuration --------------------------------------------------- */

static void add_image_error(const char *argument, const char *why,
                            struct config_errors *errors) {
  char *shown = show_image(argument);
  config_errors_add(errors, "--image %.200s: %s", shown ? shown : "", why);
  free(shown);
}

void options_apply(const struct options *options, struct config *config,
                   struct config_errors *errors) {
  for (size_t i = 0; i < options->n_given; i++) {
    const struct option_given *given = &options->given[i];
    struct config_origin origin = {.line = given->argument,
                                   .directory = options->directory};
    char why[CONFIG_WHY_LEN];
    bool is_image = given->setting == OPTION_IMAGE - OPTION_SETTING;
    int r = is_image
                ? apply_image(config, given->value, origin, why)
                : config_set(config, given->setting, given->value, origin, why);
    if (r == -ENOMEM)
      config_errors_add(errors, "out of memory");
    else if (r < 0 && is_image)
      add_image_error(given->value, why, errors);
    else if (r < 0)
      config_errors_add(errors, "--%s: %s",
                        config_settings[given->setting].option, why);
  }
}

static void settle_cache_size(struct config *config,
                              struct config_errors *errors) {
  struct memory_limit limit;
  memory_limit_read("", &limit);
  if (!config_errors_any(errors))
    cache_size_settle(config, &limit, errors);
}

int options_load(const struct options *options, struct config *config,
                 struct config_errors *errors) {
  *errors = (struct config_errors){.n = 0};
  config_init(config);
  config->kinds = options->kinds;
  config->fitted_size = options->fitted_size;
  if (options->config_file)
    config_file_read_all(config, options->config_file, errors);
  else if (access(OPTIONS_DEFAULT_FILE, F_OK) == 0 || errno != ENOENT)
    config_file_read_all(config, OPTIONS_DEFAULT_FILE, errors);
  options_apply(options, config, errors);
  settle_cache_size(config, errors);
  config_check(config, errors);
  if (!config_errors_any(errors))
    return 0;
  config_fini(config);
  return -EINVAL;
}

int options_default_address(struct address *out, char err[OPTIONS_ERROR_LEN]) {
  const char *named = getenv("CACHET_SOCKET");
  if (named && *named)
    return address_unix(strncmp(named, "unix:", 5) ? named : named + 5, out,
                        err, OPTIONS_ERROR_LEN);
  const char *directory = getenv("RUNTIME_DIRECTORY");
  if (!directory || !*directory)
    directory = geteuid() == 0 ? "/run/cachetd" : getenv("XDG_RUNTIME_DIR");
  if (!directory || !*directory)
    return fail(err, "no socket to listen on: $XDG_RUNTIME_DIR is not set; "
                     "write --listen unix:PATH");
  /* systemd lists several directories with colons between; ours is first. */
  char path[4096];
  snprintf(path, sizeof path, "%.*s/cachetd.sock", (int)strcspn(directory, ":"),
           directory);
  return address_unix(path, out, err, OPTIONS_ERROR_LEN);
}
