/* Addresses: the URI of a daemon or of its image, from what the command line
 * gives. */
#ifndef CLIENT_COMMAND_ADDRESS_H
#define CLIENT_COMMAND_ADDRESS_H

#include <stdbool.h>

/* Whether text is the path or the URI of a file. */
bool address_is_file(const char *text);

/* Whether text is a URI of a daemon, or is meant for one. */
bool address_is_of_daemon(const char *text);

/* The URI of a daemon's image, or with `image` "" of the daemon.  The daemon is
 * that of `uri`, whose own image does not matter, or else the one at `socket`,
 * or else, both NULL, the default one.  A `uri` that is no daemon's is returned
 * as it is, for the library to say what is wrong with it.
 *
 * In memory from malloc(3); NULL: there is none. */
char *address_make(const char *socket, const char *uri, const char *image);

#endif
