/* The `cachet` command: its arguments, and its verbs.
 *
 * Each verb returns the exit status: 0, or 1 for a failure, whose message it
 * has written to standard error.  Data goes to standard output by way of
 * output.h, whose failures count. */
#ifndef CLIENT_COMMAND_COMMAND_H
#define CLIENT_COMMAND_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "client/handle.h"
#include "client/uri.h"

struct command {
  const char *socket, *uri; /* NULL: not given */
  uint64_t offset;
  uint64_t length; /* CACHET_TO_END */
  bool json;
  char **args; /* what follows the verb */
  struct options options;
};

int command_ls(const struct command *cmd);
int command_info(const struct command *cmd);
int command_cat(const struct command *cmd);
int command_get(const struct command *cmd);
int command_warm(const struct command *cmd);
int command_invalidate(const struct command *cmd);
int command_stats(const struct command *cmd);

/* Whether a getter of that name is there. */
bool command_get_knows(const char *type);

/* Where IMAGE is; "" is what an address without an image names. */
enum cachet_status command_address(const struct command *cmd, const char *image,
                                   struct uri *out, struct cachet_error *err);

/* Opens args[0]; NULL, with a message, if it cannot be. */
cachet *command_open(const struct command *cmd);

/* Writes a message; returns 1. */
int command_fail(const char *message);

/* Shows how far a long piece of work is, if standard error is a terminal. */
struct progress {
  const char *act;
  uint64_t total;
  int64_t shown_ms;
};

struct progress progress_begin(const char *act, uint64_t total);
void progress_show(struct progress *p, uint64_t done);
void progress_end(struct progress *p);

#endif
