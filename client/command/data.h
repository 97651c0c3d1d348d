/* Verbs that bring an image's bytes: cat and get. */
#ifndef CLIENT_COMMAND_DATA_H
#define CLIENT_COMMAND_DATA_H

#include "client/command/command.h"

int data_cat(const struct command *cmd);

/* The integer of type args[1] at `offset`; data_knows() that type. */
int data_get(const struct command *cmd);

/* Whether there is a getter of that name. */
bool data_knows(const char *type);

#endif
