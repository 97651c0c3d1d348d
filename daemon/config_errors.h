/* What is wrong with a configuration: a list of messages, each with the place
 * that it is about in front, so that a parser can go on
 * after the first mistake.
 *
 * A configuration of nothing but mistakes does not fill the memory: the list
 * holds CONFIG_MAX_ERRORS messages, and counts the others. */
#ifndef DAEMON_CONFIG_ERRORS_H
#define DAEMON_CONFIG_ERRORS_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { CONFIG_MAX_ERRORS = 50 };

/* Zeroed, it is an empty list. */
struct config_errors {
  char *messages[CONFIG_MAX_ERRORS]; /* of one line each, without its end */
  size_t n;
  size_t n_more; /* that are not in the list */
};

/* Adds a message.  One for which there is no memory is counted all the same. */
__attribute__((format(printf, 2, 3))) void
config_errors_add(struct config_errors *errors, const char *format, ...);

static inline bool config_errors_any(const struct config_errors *errors) {
  return errors->n || errors->n_more;
}

void config_errors_fini(struct config_errors *errors);

#ifdef __cplusplus
}
#endif

#endif
