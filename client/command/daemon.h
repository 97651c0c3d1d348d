/* Verbs about a daemon and its images: ls, info, warm, invalidate, stats,
 * add, remove, drain. */
#ifndef CLIENT_COMMAND_DAEMON_H
#define CLIENT_COMMAND_DAEMON_H

#include "client/command/command.h"

int daemon_ls(const struct command *cmd);
int daemon_info(const struct command *cmd);
int daemon_warm(const struct command *cmd);
int daemon_invalidate(const struct command *cmd);
int daemon_stats(const struct command *cmd);
int daemon_add(const struct command *cmd);
int daemon_remove(const struct command *cmd);
int daemon_drain(const struct command *cmd);

#endif
