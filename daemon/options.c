#include "daemon/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file_uri.h"
#include "base/size.h"

#define DEFAULT_CACHE_SIZE (256ull << 20)
#define MIN_PAGE_SIZE 4096u
#define MAX_PAGE_SIZE (2u << 20)
#define MAX_MAX_AGE_S 1000000000u

const char config_usage[] =
    "usage: cachetd --image [NAME=]SOURCE ... [--listen ADDRESS] ...\n"
    "               [--cache-size SIZE] [--page-size SIZE] [--share on|off]\n"
    "               [--workers N] [--log-level LEVEL] [--version] [--help]\n"
    "\n"
    "  --image [NAME=]SOURCE  serve SOURCE, a path or file: URI, as NAME\n"
    "                         (the last part of SOURCE); may be repeated;\n"
    "                         ,share=on|off behind SOURCE: --share of this "
    "one;\n"
    "                         ,max-age=SECONDS: what is older is read again;\n"
    "                         ,offset=SIZE and ,length=SIZE: a part of it\n"
    "  --listen ADDRESS       unix:PATH, tcp:HOST:PORT (loopback only), or\n"
    "                         tcp: for 127.0.0.1:10819; may be repeated\n"
    "  --cache-size SIZE      bytes of memory for pages (256M)\n"
    "  --page-size SIZE       a power of two from 4K to 2M (4K)\n"
    "  --share on|off         whether local clients may read the cache's\n"
    "                         memory themselves (on)\n"
    "  --workers N            threads that serve connections (one for each\n"
    "                         processor, at most 8)\n"
    "  --log-level LEVEL      error, warn, info (the default) or debug\n"
    "  --version, --help      say so and exit\n"
    "\n"
    "SIZE takes K, M, G and T, powers of 1024.  See cachetd(8).\n";

/* Writes the reason and returns -EINVAL. */
__attribute__((format(printf, 2, 3))) static int fail(char *err,
                                                      const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(err, OPTIONS_ERROR_LEN, format, args);
  va_end(args);
  return -EINVAL;
}

static int parse_size_option(const char *option, const char *text,
                             uint64_t *out, char *err) {
  int r = size_parse(text, out);
  if (r == -ERANGE)
    return fail(err, "--%s %.100s: too large a number", option, text);
  if (r < 0)
    return fail(err,
                "--%s %.100s: not a size; it takes digits and K, M, G or T",
                option, text);
  return 0;
}

/* Reads a decimal number from 1 to `max`.  False: it is none. */
static bool parse_count(const char *text, unsigned max, unsigned *out) {
  char *end;
  errno = 0;
  unsigned long n = strtoul(text, &end, 10);
  if (!isdigit((unsigned char)text[0]) || *end || errno || n < 1 || n > max)
    return false;
  *out = (unsigned)n;
  return true;
}

/* ---- --image ------------------------------------------------------------- */

static bool name_is_valid(const char *name, size_t len) {
  if (len == 0 || len > CONFIG_NAME_MAX)
    return false;
  for (size_t i = 0; i < len; i++)
    if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
      return false;
  return true;
}

/* Makes a path of SOURCE, without its options, in memory from malloc(3). */
static int source_path(const char *source, char **out, char *err) {
  const char *why;
  size_t scheme = file_uri_scheme_len(source);
  int r = 0;
  *out = NULL;
  if (file_uri_is(source)) {
    r = file_uri_path(source, out, &why);
    if (r == -EINVAL)
      return fail(err, "--image %.100s: %s", source, why);
  } else if (scheme) {
    return fail(err,
                "--image %.100s: there is no source for the scheme \"%.*s\"; "
                "a path with a colon is written ./PATH",
                source, (int)(scheme > 32 ? 32 : scheme), source);
  } else {
    *out = strdup(source);
    r = *out ? 0 : -ENOMEM;
  }
  if (r == 0 && !**out)
    return fail(err, "--image: it names no source");
  return r;
}

static int parse_image_share(const char *argument, const char *value,
                             struct options_image *image, char *err) {
  image->share = strcmp(value, "on") == 0 ? SHARE_ON : SHARE_OFF;
  if (image->share == SHARE_OFF && strcmp(value, "off") != 0)
    return fail(err, "--image %.100s: share=%.64s: it must be on or off",
                argument, value);
  return 0;
}

static int parse_image_max_age(const char *argument, const char *value,
                               struct options_image *image, char *err) {
  if (!parse_count(value, MAX_MAX_AGE_S, &image->max_age_s))
    return fail(err,
                "--image %.100s: max-age=%.64s: not a number of seconds "
                "from 1 to %u",
                argument, value, MAX_MAX_AGE_S);
  return 0;
}

/* Up to what a file can have: so an offset and a length have a sum, and no
 * length is WINDOW_TO_END. */
static int parse_image_size(const char *argument, const char *name,
                            const char *value, uint64_t *out, char *err) {
  int r = size_parse(value, out);
  if (r == -ERANGE || (r == 0 && *out > INT64_MAX))
    return fail(err, "--image %.100s: %s=%.64s: too large a number", argument,
                name, value);
  if (r < 0)
    return fail(err,
                "--image %.100s: %s=%.64s: not a size; it takes digits and K, "
                "M, G or T",
                argument, name, value);
  return 0;
}

static int parse_image_offset(const char *argument, const char *value,
                              struct options_image *image, char *err) {
  return parse_image_size(argument, "offset", value, &image->window.offset,
                          err);
}

static int parse_image_length(const char *argument, const char *value,
                              struct options_image *image, char *err) {
  uint64_t length = 0;
  int r = parse_image_size(argument, "length", value, &length, err);
  if (r < 0)
    return r;
  if (length == 0)
    return fail(err,
                "--image %.100s: length=%.64s: an image of no bytes; without "
                "length it reaches to the end",
                argument, value);
  image->window.length = length;
  return 0;
}

/* What may follow SOURCE, NAME=VALUE each. */
static const struct image_option {
  const char *name;
  int (*parse)(const char *argument, const char *value,
               struct options_image *image, char *err);
} image_options[] = {
    {"share", parse_image_share},
    {"max-age", parse_image_max_age},
    {"offset", parse_image_offset},
    {"length", parse_image_length},
};

/* `*given` has a bit for each option that was there before. */
static int parse_image_option(const char *argument, const char *option,
                              struct options_image *image, unsigned *given,
                              char *err) {
  size_t name_len = strcspn(option, "=");
  for (unsigned i = 0; i < sizeof image_options / sizeof *image_options; i++) {
    const struct image_option *known = &image_options[i];
    if (option[name_len] != '=' || strlen(known->name) != name_len ||
        memcmp(known->name, option, name_len) != 0)
      continue;
    if (*given & 1u << i)
      return fail(err, "--image %.100s: %s is given twice", argument,
                  known->name);
    *given |= 1u << i;
    return known->parse(argument, option + name_len + 1, image, err);
  }
  return fail(err,
              "--image %.100s: unknown image option \"%.64s\", there are "
              "share=on|off, max-age=SECONDS, offset=SIZE and length=SIZE; a "
              "comma in a path is written file: with %%2C",
              argument, option);
}

/* Reads the options behind SOURCE, and cuts them off. */
static int parse_image_options(const char *argument, char *source,
                               struct options_image *image, char *err) {
  char *options = strchr(source, ',');
  unsigned given = 0;
  int r = 0;
  if (options)
    *options++ = '\0';
  for (char *o; r == 0 && options && (o = strsep(&options, ","));)
    r = parse_image_option(argument, o, image, &given, err);
  return r;
}

bool options_shares(const struct options *config,
                    const struct options_image *image) {
  return image->share == SHARE_ON ||
         (image->share == SHARE_AS_ALL && config->share);
}

/* `like` has the path, which is taken over, and the options. */
static int config_add_image(struct options *config, const char *name,
                            size_t name_len, struct options_image *like,
                            char *err) {
  for (size_t i = 0; i < config->n_images; i++)
    if (strlen(config->images[i].name) == name_len &&
        memcmp(config->images[i].name, name, name_len) == 0)
      return fail(err,
                  "--image: the name \"%.*s\" is used twice; write "
                  "--image NAME=SOURCE",
                  (int)name_len, name);
  if (config->n_images == CONFIG_MAX_IMAGES)
    return fail(err, "--image: more than %d images", CONFIG_MAX_IMAGES);
  struct options_image *grown =
      realloc(config->images, (config->n_images + 1) * sizeof *config->images);
  if (!grown)
    return -ENOMEM;
  config->images = grown;
  struct options_image *image = &grown[config->n_images];
  *image = *like;
  like->path = NULL;
  memcpy(image->name, name, name_len);
  image->name[name_len] = '\0';
  config->n_images++;
  return 0;
}

/* [NAME=]SOURCE, in `copy`, which is the caller's to spoil.  `like` is the
 * caller's to free. */
static int parse_image_copy(struct options *config, const char *argument,
                            char *copy, struct options_image *like, char *err) {
  char *equals = strchr(copy, '=');
  bool named = equals && name_is_valid(copy, (size_t)(equals - copy));
  char *source = named ? equals + 1 : copy;
  int r = parse_image_options(argument, source, like, err);
  if (r == 0)
    r = source_path(source, &like->path, err);
  if (r < 0)
    return r;
  const char *name = copy;
  size_t name_len = named ? (size_t)(equals - copy) : 0;
  if (!named) {
    const char *slash = strrchr(like->path, '/');
    name = slash ? slash + 1 : like->path;
    name_len = strlen(name);
  }
  if (!name_is_valid(name, name_len))
    return fail(err,
                "--image %.100s: \"%.70s\" cannot be its name, which takes "
                "1 to %d of A-Z a-z 0-9 . _ -; write --image NAME=SOURCE",
                argument, name, CONFIG_NAME_MAX);
  return config_add_image(config, name, name_len, like, err);
}

static int parse_image(struct options *config, const char *argument,
                       char *err) {
  struct options_image like = {.share = SHARE_AS_ALL, .window = WINDOW_WHOLE};
  char *copy = strdup(argument);
  if (!copy)
    return -ENOMEM;
  int r = parse_image_copy(config, argument, copy, &like, err);
  free(like.path);
  free(copy);
  return r;
}

/* ---- The other options --------------------------------------------------- */

static int parse_listen(struct options *config, const char *argument,
                        char *err) {
  if (config->n_listen == CONFIG_MAX_LISTEN)
    return fail(err, "--listen: more than %d addresses", CONFIG_MAX_LISTEN);
  int r = address_parse(argument, &config->listen[config->n_listen], err,
                        OPTIONS_ERROR_LEN);
  if (r == 0)
    config->n_listen++;
  return r;
}

static int parse_page_size(struct options *config, const char *argument,
                           char *err) {
  uint64_t size;
  int r = parse_size_option("page-size", argument, &size, err);
  if (r < 0)
    return r;
  if (size < MIN_PAGE_SIZE || size > MAX_PAGE_SIZE || (size & (size - 1)))
    return fail(err, "--page-size %.100s: not a power of two from 4K to 2M",
                argument);
  config->page_size = (uint32_t)size;
  return 0;
}

static int parse_workers(struct options *config, const char *argument,
                         char *err) {
  if (!parse_count(argument, CONFIG_MAX_WORKERS, &config->n_workers))
    return fail(err, "--workers %.100s: not a number from 1 to %d", argument,
                CONFIG_MAX_WORKERS);
  return 0;
}

static int parse_share(struct options *config, const char *argument,
                       char *err) {
  config->share = strcmp(argument, "on") == 0;
  if (!config->share && strcmp(argument, "off") != 0)
    return fail(err, "--share %.100s: it must be on or off", argument);
  return 0;
}

static int parse_log_level(struct options *config, const char *argument,
                           char *err) {
  int level = log_level_parse(argument);
  if (level < 0)
    return fail(err, "--log-level %.100s: not error, warn, info or debug",
                argument);
  config->log_level = (enum log_level)level;
  return 0;
}

enum {
  OPTION_IMAGE = 256, /* no character, so not mistaken for a short one */
  OPTION_LISTEN,
  OPTION_CACHE_SIZE,
  OPTION_PAGE_SIZE,
  OPTION_SHARE,
  OPTION_WORKERS,
  OPTION_LOG_LEVEL,
  OPTION_VERSION,
  OPTION_HELP,
};

static const struct option options[] = {
    {"image", required_argument, NULL, OPTION_IMAGE},
    {"listen", required_argument, NULL, OPTION_LISTEN},
    {"cache-size", required_argument, NULL, OPTION_CACHE_SIZE},
    {"page-size", required_argument, NULL, OPTION_PAGE_SIZE},
    {"share", required_argument, NULL, OPTION_SHARE},
    {"workers", required_argument, NULL, OPTION_WORKERS},
    {"log-level", required_argument, NULL, OPTION_LOG_LEVEL},
    {"version", no_argument, NULL, OPTION_VERSION},
    {"help", no_argument, NULL, OPTION_HELP},
    {NULL, 0, NULL, 0},
};

static int parse_option(struct options *config, int option, const char *word,
                        char *err) {
  switch (option) {
  case OPTION_IMAGE:
    return parse_image(config, optarg, err);
  case OPTION_LISTEN:
    return parse_listen(config, optarg, err);
  case OPTION_CACHE_SIZE:
    return parse_size_option("cache-size", optarg, &config->cache_size, err);
  case OPTION_PAGE_SIZE:
    return parse_page_size(config, optarg, err);
  case OPTION_SHARE:
    return parse_share(config, optarg, err);
  case OPTION_WORKERS:
    return parse_workers(config, optarg, err);
  case OPTION_LOG_LEVEL:
    return parse_log_level(config, optarg, err);
  case OPTION_VERSION:
    config->action = CONFIG_SHOW_VERSION;
    return 0;
  case OPTION_HELP:
    config->action = CONFIG_SHOW_HELP;
    return 0;
  case ':':
    return fail(err, "%.100s: it needs an argument", word);
  default:
    return fail(err, "%.100s: no such option", word);
  }
}

static int config_check(const struct options *config, char *err) {
  if (config->action != CONFIG_SERVE)
    return 0;
  if (config->n_images == 0)
    return fail(err, "no image to serve; write --image SOURCE");
  if (config->cache_size < config->page_size)
    return fail(err, "--cache-size %llu: less than one page of %u bytes",
                (unsigned long long)config->cache_size, config->page_size);
  return 0;
}

int options_parse(struct options *config, int argc, char *const argv[],
                  char err[OPTIONS_ERROR_LEN]) {
  *config = (struct options){.cache_size = DEFAULT_CACHE_SIZE,
                             .page_size = MIN_PAGE_SIZE,
                             .share = true,
                             .log_level = LEVEL_INFO};
  snprintf(err, OPTIONS_ERROR_LEN, "out of memory");
  optind = 0; /* glibc: begin anew, for whoever calls twice */
  for (;;) {
    int at = optind ? optind : 1;
    int option = getopt_long(argc, argv, "+:", options, NULL);
    if (option < 0)
      break;
    int r = parse_option(config, option, argv[at], err);
    if (r < 0)
      return r;
  }
  if (optind < argc)
    return fail(err, "%.100s: not an option; images are given by --image",
                argv[optind]);
  return config_check(config, err);
}

void options_fini(struct options *config) {
  for (size_t i = 0; i < config->n_images; i++)
    free(config->images[i].path);
  free(config->images);
  config->images = NULL;
  config->n_images = 0;
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
