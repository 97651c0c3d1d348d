/* Sources and images that are files: a path, or a file: URI.  One meaning for
 * the daemon and for the library. */
#ifndef BASE_FILE_URI_H
#define BASE_FILE_URI_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How long the scheme is that `text` begins with, without its colon; 0: there
 * is none, it is a path. */
size_t file_uri_scheme_len(const char *text);

/* Whether `text` is a file: URI. */
bool file_uri_is(const char *text);

/* Gives the path of a file: URI in memory from malloc(3).  0; -ENOMEM; -EINVAL
 * with `*why` a reason that is never freed.  An empty path is one. */
int file_uri_path(const char *uri, char **path, const char **why);

#ifdef __cplusplus
}
#endif

#endif
