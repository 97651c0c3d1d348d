/* Standard output, with the failures that printf(3) leaves to be forgotten:
 * a full disk, a reader that went away.  The first one ends everything. */
#ifndef CLIENT_COMMAND_STDOUT_H
#define CLIENT_COMMAND_STDOUT_H

#include <stdbool.h>
#include <stddef.h>

/* Text; what another machine said goes through stdout_name(). */
void stdout_print(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/* A name, with nothing in it that a terminal would obey. */
void stdout_name(const char *name);

/* The same as a JSON string. */
void stdout_json_string(const char *text);

/* Bytes; false: it failed. */
bool stdout_bytes(const void *bytes, size_t len);

/* Ends it; 0, or 1 after a message, which is the exit status. */
int stdout_end(void);

#endif
