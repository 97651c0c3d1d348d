/* Values of settings, as users write them in a configuration file or on the
 * command line: their syntax, and their bounds.  config.h and config_image.h
 * define what each setting means.
 *
 *   V1  A value that is refused leaves `*out` as it was.  The result is
 *       -EINVAL, and the reason is in `why`, an array of CONFIG_WHY_LEN bytes.
 *   V2  A reason begins with the value in quotes, at most 140 bytes of it: a
 *       message has a bound, whatever a file contains.  Of a value that looks
 *       like a URI, of whichever setting, it has the part without secrets. */
#ifndef DAEMON_CONFIG_VALUE_H
#define DAEMON_CONFIG_VALUE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/rule.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CONFIG_WHY_LEN 384 /* of why a value is refused */

/* The origin of a value.  Zeroed: the value was not given. */
struct config_origin {
  const char *file;      /* the config's; NULL: the command line, or a peer */
  unsigned line;         /* or the number of the argument */
  const char *directory; /* the options'; relative paths refer to it, and there
                            may be none if it is NULL */
};

/* Writes the reason and returns -EINVAL. */
__attribute__((format(printf, 2, 3))) int
config_value_refuse(char *why, const char *format, ...);

/* The same, of a value: V2. */
__attribute__((format(printf, 3, 4))) int
config_value_refuse_text(char *why, const char *value, const char *format, ...);

/* A number of bytes: digits with K, M, G or T behind them. */
int config_value_size(const char *value, uint64_t *out, char *why);

/* A size that a file can have: so an offset and a length have a sum, and no
 * length is WINDOW_TO_END. */
int config_value_file_size(const char *value, uint64_t *out, char *why);

/* A size, or N%.  `*percent` is 0 for a size. */
int config_value_size_or_percent(const char *value, uint64_t *size,
                                 unsigned *percent, char *why);

/* A power of two from 4K to `most`. */
int config_value_power(const char *value, uint32_t most, uint32_t *out,
                       char *why);
int config_value_page_size(const char *value, uint32_t *out, char *why);

/* Reads a decimal number from 1 to `max`.  False: it is none, and the caller
 * says what it is a number of. */
bool config_value_count(const char *text, unsigned max, unsigned *out);

int config_value_on_off(const char *value, bool *out, char *why);
int config_value_yes_no(const char *value, bool *out, char *why);

/* Checks a path.  It must begin with / if its origin has no directory: when the
 * daemon reads it again, it has left the directory that it was started in.  The
 * reason shows `value`, as it was written, because `path` may be decoded from
 * it, and may then have any bytes. */
int config_value_check_path(const char *path, const char *value,
                            const struct config_origin *origin, char *why);

/* Also stores the path from the root on, in memory from malloc(3), in place of
 * `*out`, which it frees.  Also -ENOMEM. */
int config_value_path(const char *path, const char *value,
                      const struct config_origin *origin, char **out,
                      char *why);

/* Adds to a list of peers, in place of `*rule`.  Also -ENOMEM. */
int config_value_add_rule(struct rule **rule, const char *value, char *why);

#ifdef __cplusplus
}
#endif

#endif
