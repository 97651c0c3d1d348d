/* What every verb of the `cachet` command works with: its arguments, the images
 * and daemons that they name, and messages.
 *
 * A verb returns the exit status: 0, or 1 for a failure, whose message it has
 * written to standard error.  Data goes to standard output through stdout.h,
 * whose failures count. */
#ifndef CLIENT_COMMAND_COMMAND_H
#define CLIENT_COMMAND_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include <cachet/cachet.h>

struct command {
  const char *socket, *uri; /* NULL: not given */
  uint64_t offset;
  uint64_t length; /* CACHET_TO_END */
  bool json;
  int timeout_ms; /* negative: not given */
  char **args;    /* what follows the verb */
  struct cachet_options options;
};

/* Whether an IMAGE is a name on the daemon, and not a path or a URI. */
bool command_is_name(const char *image);

/* Opens args[0] for a verb that changes what a daemon caches.  NULL, after a
 * message, if that fails, or if the image is read without a daemon: what such a
 * verb does to the cache of this process ends with it. */
cachet *command_open_cached(const struct command *cmd, const char *verb);

/* Opens args[0].  NULL, after a message, if that fails. */
cachet *command_open(const struct command *cmd);

/* Connects to the daemon.  NULL, after a message, if that fails. */
cachet_admin *command_open_daemon(const struct command *cmd);

/* Writes a message; returns 1. */
int command_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
