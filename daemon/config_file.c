#include "daemon/config_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/shown_uri.h"

static const char blanks[] = " \t\r";

/* A file that is being read. */
struct reading {
  struct config *config;
  struct config_errors *errors;
  const char *file; /* the config's */
  const char *next, *end;
  unsigned line; /* that was read last; the first is 1 */
  /* libinih was given a line, and has not called take_entry() for it yet. */
  bool is_pending;
  enum { IN_NONE, IN_SECTION, IN_IMAGE, IN_UNKNOWN } where;
  const char *section;             /* in a section: config_settings' */
  char image[CONFIG_NAME_MAX + 1]; /* in an image's: its name */
};

/* ---- Sections ------------------------------------------------------------ */

/* A list of names for a message.  There is room for all names that exist. */
struct names {
  char text[256];
  size_t len;
};

static void names_add(struct names *names, const char *name) {
  size_t left = sizeof names->text - names->len;
  int n = snprintf(names->text + names->len, left, "%s%s",
                   names->len ? ", " : "", name);
  names->len += n < 0 || (size_t)n >= left ? left - 1 : (size_t)n;
}

static const char *find_section(const char *name) {
  for (unsigned i = 0; i < CONFIG_N_SETTINGS; i++)
    if (strcmp(config_settings[i].section, name) == 0)
      return config_settings[i].section;
  return NULL;
}

/* The image of a section that begins, made if it is new.  NULL: it is refused.
 */
static struct config_image *find_or_add_image(struct reading *r,
                                              const char *name) {
  struct config_image *image = config_find_image(r->config, name);
  char why[CONFIG_WHY_LEN];
  if (image && image->origin.file == r->file) {
    config_errors_add(r->errors,
                      "%s:%u: [image %s] is in line %u already; choose another "
                      "name",
                      r->file, r->line, name, image->origin.line);
    return NULL;
  }
  if (image)
    return image;
  struct config_image made;
  config_image_init(&made, r->config->kinds);
  memcpy(made.name, name, strlen(name) + 1);
  int result = config_add_image(r->config, &made, why);
  if (result == 0)
    return config_find_image(r->config, name);
  config_errors_add(r->errors, "%s:%u: [image %s]: %s", r->file, r->line, name,
                    result == -ENOMEM ? "out of memory" : why);
  return NULL;
}

static void begin_image(struct reading *r, const char *name) {
  if (!config_image_name_is_valid(name, strlen(name))) {
    char *shown = shown_uri_of(name);
    config_errors_add(r->errors,
                      "%s:%u: \"%.70s\" cannot be the name of an image, which "
                      "takes 1 to %d of A-Z a-z 0-9 . _ -; write [image NAME]",
                      r->file, r->line, shown ? shown : "", CONFIG_NAME_MAX);
    free(shown);
    return;
  }
  struct config_image *image = find_or_add_image(r, name);
  if (!image)
    return;
  image->origin = (struct config_origin){.file = r->file, .line = r->line};
  memcpy(r->image, image->name, sizeof r->image);
  r->where = IN_IMAGE;
}

static void refuse_section(struct reading *r, const char *name) {
  struct names known = {.len = 0};
  for (unsigned i = 0; i < CONFIG_N_SETTINGS; i++) {
    const char *section = config_settings[i].section;
    if (i == 0 || strcmp(section, config_settings[i - 1].section) != 0)
      names_add(&known, section);
  }
  char *shown = shown_uri_of(name);
  config_errors_add(r->errors,
                    "%s:%u: unknown section [%.70s]; there are %s, image NAME",
                    r->file, r->line, shown ? shown : "", known.text);
  free(shown);
}

/* Begins the section that a line names, and overwrites the line.  The keys of a
 * section that is refused are ignored. */
static void begin_section(struct reading *r, char *line) {
  char *close = strchr(line, ']');
  const char *rest = close ? close + 1 + strspn(close + 1, blanks) : "";
  r->where = IN_UNKNOWN;
  if (!close || (*rest && *rest != ';' && *rest != '#')) {
    config_errors_add(r->errors,
                      "%s:%u: a section is a line of its own, [SECTION]",
                      r->file, r->line);
    return;
  }
  while (strchr(blanks, close[-1]))
    close--;
  *close = '\0';
  const char *name = line + 1 + strspn(line + 1, blanks);
  size_t word_len = strcspn(name, blanks);
  if (word_len == strlen("image") && memcmp(name, "image", word_len) == 0) {
    begin_image(r, name + word_len + strspn(name + word_len, blanks));
    return;
  }
  r->section = find_section(name);
  if (r->section)
    r->where = IN_SECTION;
  else
    refuse_section(r, name);
}

/* ---- Keys ---------------------------------------------------------------- */

static void refuse_key(struct reading *r, const char *key) {
  struct names known = {.len = 0};
  if (r->where == IN_IMAGE)
    for (unsigned i = 0; i < CONFIG_N_IMAGE_SETTINGS; i++)
      names_add(&known, config_image_settings[i].key);
  else
    for (unsigned i = 0; i < CONFIG_N_SETTINGS; i++)
      if (strcmp(config_settings[i].section, r->section) == 0)
        names_add(&known, config_settings[i].key);
  config_errors_add(
      r->errors, "%s:%u: unknown key \"%.64s\" in [%s]; there are %s", r->file,
      r->line, key, r->where == IN_IMAGE ? "image NAME" : r->section,
      known.text);
}

/* Whether the key that `before` is of has no value in this file yet. */
static bool is_first(struct reading *r, const char *key,
                     const struct config_origin *before) {
  if (before->file != r->file)
    return true;
  config_errors_add(r->errors, "%s:%u: %s is in line %u already; remove one",
                    r->file, r->line, key, before->line);
  return false;
}

static void refuse_value(struct reading *r, const char *key, int result,
                         const char *why) {
  if (result == -ENOMEM)
    config_errors_add(r->errors, "out of memory");
  else if (result < 0)
    config_errors_add(r->errors, "%s:%u: %s: %s", r->file, r->line, key, why);
}

static void take_setting(struct reading *r, const char *key,
                         const char *value) {
  struct config_origin origin = {.file = r->file, .line = r->line};
  char why[CONFIG_WHY_LEN];
  for (unsigned i = 0; i < CONFIG_N_SETTINGS; i++) {
    const struct config_setting *s = &config_settings[i];
    if (strcmp(s->section, r->section) != 0 || strcmp(s->key, key) != 0)
      continue;
    if (s->clear || is_first(r, key, &r->config->origins[i]))
      refuse_value(r, key, config_set(r->config, i, value, origin, why), why);
    return;
  }
  refuse_key(r, key);
}

static void take_image_setting(struct reading *r, const char *key,
                               const char *value) {
  struct config_image *image = config_find_image(r->config, r->image);
  struct config_origin origin = {.file = r->file, .line = r->line};
  char why[CONFIG_WHY_LEN];
  for (unsigned i = 0; i < CONFIG_N_IMAGE_SETTINGS; i++) {
    if (strcmp(config_image_settings[i].key, key) != 0)
      continue;
    if (is_first(r, key, &image->origins[i]))
      refuse_value(r, key, config_image_set(image, i, value, origin, why), why);
    return;
  }
  int result = config_image_set_option(image, key, value, origin, why);
  if (result == -ENOENT)
    refuse_key(r, key);
  else
    refuse_value(r, key, result, why);
}

/* Whether a value ends with what its author meant as a comment with `#`.  For
 * libinih only a blank and a semicolon begin a comment behind a value. */
static bool has_hash_comment(const char *value) {
  for (const char *at = value; (at = strchr(at, '#')); at++)
    if (at > value && strchr(blanks, at[-1]))
      return true;
  return false;
}

/* libinih calls it with the line that it was given last. */
static int take_entry(void *arg, const char *section, const char *key,
                      const char *value) {
  struct reading *r = arg;
  (void)section; /* it was given none */
  r->is_pending = false;
  if (has_hash_comment(value)) {
    config_errors_add(r->errors,
                      "%s:%u: %s: behind a value a comment begins with \";\", "
                      "not with \"#\"",
                      r->file, r->line, key);
    return 1;
  }
  switch (r->where) {
  case IN_NONE:
    config_errors_add(r->errors,
                      "%s:%u: \"%.64s\" is in no section; write [SECTION] "
                      "before it",
                      r->file, r->line, key);
    break;
  case IN_SECTION:
    take_setting(r, key, value);
    break;
  case IN_IMAGE:
    take_image_setting(r, key, value);
    break;
  case IN_UNKNOWN:
    break;
  }
  return 1;
}

/* ---- Lines --------------------------------------------------------------- */

/* Refuses the last line if libinih found no key and value in it. */
static void end_line(struct reading *r) {
  if (r->is_pending)
    config_errors_add(r->errors, "%s:%u: neither [SECTION] nor KEY = VALUE",
                      r->file, r->line);
  r->is_pending = false;
}

/* Whether a line has only bytes of a text, in UTF-8 or Latin-1. */
static bool is_text(const char *line, size_t len) {
  for (size_t i = 0; i < len; i++)
    if (((unsigned char)line[i] < 0x20 && line[i] != '\t') || line[i] == 0x7f)
      return false;
  return true;
}

/* Takes the next line off the file, without blanks at its ends.  False: there
 * is none. */
static bool read_line(struct reading *r, const char **line, size_t *len) {
  if (r->next == r->end)
    return false;
  const char *at = r->next;
  const char *end = memchr(at, '\n', (size_t)(r->end - at));
  r->next = end ? end + 1 : r->end;
  r->line++;
  if (!end)
    end = r->end;
  while (end > at && strchr(blanks, end[-1]) && end[-1])
    end--;
  while (at < end && strchr(blanks, *at) && *at)
    at++;
  *line = at;
  *len = (size_t)(end - at);
  return true;
}

/* libinih's fgets(3): gives it the next line that is a key and a value. */
static char *give_line(char *to, int size, void *arg) {
  struct reading *r = arg;
  const char *line;
  size_t len, most = (size_t)size - sizeof "\n";
  end_line(r);
  while (read_line(r, &line, &len)) {
    if (!is_text(line, len)) {
      config_errors_add(r->errors,
                        "%s:%u: it has a byte that no text has; the rest of "
                        "the file is not read",
                        r->file, r->line);
      return NULL;
    }
    if (len == 0 || *line == '#' || *line == ';')
      continue;
    if (len > most) {
      config_errors_add(r->errors,
                        "%s:%u: a line of %zu bytes; it can have %zu", r->file,
                        r->line, len, most);
      continue;
    }
    memcpy(to, line, len);
    memcpy(to + len, "\n", sizeof "\n");
    if (*line != '[') {
      r->is_pending = true;
      return to;
    }
    to[len] = '\0';
    begin_section(r, to);
  }
  return NULL;
}

void config_file_parse(struct config *config, const char *name,
                       const char *text, size_t len,
                       struct config_errors *errors) {
  static const char bom[] = "\xef\xbb\xbf"; /* some editors begin a text so */
  struct reading r = {.config = config,
                      .errors = errors,
                      .file = config_add_file(config, name),
                      .next = text,
                      .end = text + len};
  if (len >= strlen(bom) && memcmp(text, bom, strlen(bom)) == 0)
    r.next += strlen(bom);
  if (!r.file) {
    config_errors_add(errors, "out of memory");
    return;
  }
  /* The result, the first line that it could not parse, is not needed:
   * end_line() has reported it. */
  ini_parse_stream(give_line, &r, take_entry, &r);
}

/* ---- Files --------------------------------------------------------------- */

/* Why a file of this kind is not read, or NULL.  /dev/null is a file of
 * nothing: it stands for no file, and a link to it takes a file away. */
static const char *check_kind(int fd) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    return strerror(errno);
  if (S_ISDIR(st.st_mode))
    return strerror(EISDIR);
  if (S_ISREG(st.st_mode) ||
      (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)))
    return NULL;
  return "neither a file nor /dev/null";
}

/* Reads into `text`, which has room for a byte more than a file can have. NULL,
 * or what is wrong. */
static const char *read_text(int fd, char *text, size_t *len) {
  *len = 0;
  for (;;) {
    ssize_t n = read(fd, text + *len, CONFIG_FILE_MAX + 1 - *len);
    if (n == 0)
      return NULL;
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return strerror(errno);
    *len += (size_t)n;
    if (*len > CONFIG_FILE_MAX)
      return "more than 1M, which no configuration has";
  }
}

static void read_file(struct config *config, const char *path,
                      struct config_errors *errors) {
  char *text = malloc(CONFIG_FILE_MAX + 1);
  size_t len = 0;
  /* The open must not wait for the writer of a FIFO or for a terminal. */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  const char *why = fd < 0 ? strerror(errno) : check_kind(fd);
  if (!text)
    why = "out of memory";
  if (!why)
    why = read_text(fd, text, &len);
  if (why)
    config_errors_add(errors, "%s: %s", path, why);
  else
    config_file_parse(config, path, text, len, errors);
  if (fd >= 0)
    close(fd);
  free(text);
}

static int is_drop_in(const struct dirent *entry) {
  const char *dot = strrchr(entry->d_name, '.');
  return entry->d_name[0] != '.' && dot && strcmp(dot, ".conf") == 0;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
  return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_drop_in(struct config *config, const char *directory,
                         const char *name, struct config_errors *errors) {
  char *path;
  if (asprintf(&path, "%s/%s", directory, name) < 0) {
    config_errors_add(errors, "out of memory");
    return;
  }
  read_file(config, path, errors);
  free(path);
}

static void read_directory(struct config *config, const char *directory,
                           struct config_errors *errors) {
  struct dirent **entries;
  int n = scandir(directory, &entries, is_drop_in, by_name);
  if (n < 0 && errno != ENOENT)
    config_errors_add(errors, "%s: %s", directory, strerror(errno));
  if (n < 0)
    return;
  for (int i = 0; i < n; i++) {
    read_drop_in(config, directory, entries[i]->d_name, errors);
    free(entries[i]);
  }
  free(entries);
}

void config_file_read_all(struct config *config, const char *path,
                          struct config_errors *errors) {
  char *directory;
  read_file(config, path, errors);
  if (asprintf(&directory, "%s.d", path) < 0) {
    config_errors_add(errors, "out of memory");
    return;
  }
  read_directory(config, directory, errors);
  free(directory);
}
