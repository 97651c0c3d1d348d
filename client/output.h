/* Standard output, with the failures that printf(3) leaves to be forgotten:
 * a full disk, a reader that went away.  The first one ends everything. */
#ifndef CLIENT_OUTPUT_H
#define CLIENT_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

/* Text; what another machine said goes through output_name(). */
void output_print(const char *format, ...)
    __attribute__((format(printf, 1, 2)));

/* A name, with nothing in it that a terminal would obey. */
void output_name(const char *name);

/* The same as a JSON string. */
void output_json_string(const char *text);

/* Bytes; false: it failed. */
bool output_bytes(const void *bytes, size_t len);

/* Ends it; 0, or 1 after a message, which is the exit status. */
int output_end(void);

#endif
