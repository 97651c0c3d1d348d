#include "daemon/config_value.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/shown_uri.h"
#include "base/size.h"

#define MIN_PAGE_SIZE 4096u
#define MAX_PAGE_SIZE (2u << 20)

int config_value_refuse(char *why, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(why, CONFIG_WHY_LEN, format, args);
  va_end(args);
  return -EINVAL;
}

int config_value_refuse_text(char *why, const char *value, const char *format,
                             ...) {
  char *shown = shown_uri_of(value);
  if (!shown)
    return -ENOMEM;
  size_t len = (size_t)snprintf(why, CONFIG_WHY_LEN, "\"%.140s\": ", shown);
  free(shown);
  va_list args;
  va_start(args, format);
  vsnprintf(why + len, CONFIG_WHY_LEN - len, format, args);
  va_end(args);
  return -EINVAL;
}

int config_value_size(const char *value, uint64_t *out, char *why) {
  int r = size_parse(value, out);
  if (r == -ERANGE)
    return config_value_refuse_text(why, value, "too large a number");
  if (r < 0)
    return config_value_refuse_text(
        why, value, "not a size; it takes digits and K, M, G or T");
  return 0;
}

int config_value_file_size(const char *value, uint64_t *out, char *why) {
  uint64_t size;
  int r = config_value_size(value, &size, why);
  if (r == 0 && size > INT64_MAX)
    return config_value_refuse_text(why, value, "too large a number");
  if (r == 0)
    *out = size;
  return r;
}

int config_value_size_or_percent(const char *value, uint64_t *size,
                                 unsigned *percent, char *why) {
  char digits[4];
  size_t len = strlen(value);
  if (len == 0 || value[len - 1] != '%') {
    int r = config_value_size(value, size, why);
    if (r == 0)
      *percent = 0;
    return r;
  }
  snprintf(digits, sizeof digits, "%.*s", (int)(len > 4 ? 0 : len - 1), value);
  if (!config_value_count(digits, 100, percent))
    return config_value_refuse_text(why, value, "not a part from 1%% to 100%%");
  return 0;
}

int config_value_power(const char *value, uint32_t most, uint32_t *out,
                       char *why) {
  uint64_t size;
  int r = config_value_size(value, &size, why);
  if (r < 0)
    return r;
  if (size < MIN_PAGE_SIZE || size > most || (size & (size - 1)))
    return config_value_refuse_text(
        why, value, "not a power of two from 4K to %uM", most >> 20);
  *out = (uint32_t)size;
  return 0;
}

int config_value_page_size(const char *value, uint32_t *out, char *why) {
  return config_value_power(value, MAX_PAGE_SIZE, out, why);
}

bool config_value_count(const char *text, unsigned max, unsigned *out) {
  char *end;
  errno = 0;
  unsigned long n = strtoul(text, &end, 10);
  if (!isdigit((unsigned char)text[0]) || *end || errno || n < 1 || n > max)
    return false;
  *out = (unsigned)n;
  return true;
}

int config_value_on_off(const char *value, bool *out, char *why) {
  bool on = strcmp(value, "on") == 0;
  if (!on && strcmp(value, "off") != 0)
    return config_value_refuse_text(why, value, "it must be on or off");
  *out = on;
  return 0;
}

int config_value_yes_no(const char *value, bool *out, char *why) {
  bool yes = strcmp(value, "yes") == 0;
  if (!yes && strcmp(value, "no") != 0)
    return config_value_refuse_text(why, value, "it must be yes or no");
  *out = yes;
  return 0;
}

int config_value_check_path(const char *path, const char *value,
                            const struct config_origin *origin, char *why) {
  if (*path == '/' || origin->directory)
    return 0;
  return config_value_refuse_text(
      why, value, "%s",
      origin->file ? "a path in a configuration file begins with /"
                   : "a path from the root on is needed");
}

int config_value_path(const char *path, const char *value,
                      const struct config_origin *origin, char **out,
                      char *why) {
  int r = config_value_check_path(path, value, origin, why);
  if (r < 0)
    return r;
  const char *directory = *path == '/' ? "" : origin->directory;
  const char *slash = *path == '/' ? "" : "/";
  char *whole;
  if (asprintf(&whole, "%s%s%s", directory, slash, path) < 0)
    return -ENOMEM;
  free(*out);
  *out = whole;
  return 0;
}

int config_value_add_rule(struct rule **rule, const char *value, char *why) {
  struct rule *longer;
  int r = rule_parse(*rule, value, &longer, why, CONFIG_WHY_LEN);
  if (r < 0)
    return r;
  rule_unref(*rule);
  *rule = longer;
  return 0;
}
