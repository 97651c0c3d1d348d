/* Configuration files, as cachetd.conf(5) describes them: lines KEY = VALUE in
 * sections.  libinih takes the lines apart, and is given one at a time, so that
 * each mistake has its line.
 *
 * What it would do silently is done here before it sees a line: it cuts a line
 * of 200 bytes and the name of a section of 50, takes an indented line for more
 * of the value before, tells of no section without keys, and of the first line
 * alone that is none. */
#ifndef DAEMON_CONFIG_FILE_H
#define DAEMON_CONFIG_FILE_H

#include <stddef.h>

#include "daemon/config.h"
#include "daemon/config_errors.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What a file may have at most, in bytes. */
#define CONFIG_FILE_MAX ((size_t)1 << 20)

/* Reads a file, which must be there, and then those in the directory `path`.d
 * whose names end in ".conf", in the order of their names, byte by byte.  Waits
 * for nothing but the disk: of what is neither a file nor /dev/null it says so.
 */
void config_file_read_all(struct config *config, const char *path,
                          struct config_errors *errors);

/* Gives `config` the values of a file's text, of `len` bytes.  `name` is for
 * messages. */
void config_file_parse(struct config *config, const char *name,
                       const char *text, size_t len,
                       struct config_errors *errors);

#ifdef __cplusplus
}
#endif

#endif
