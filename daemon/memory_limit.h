/* How much memory this process may use: the smallest of the machine's memory
 * and the limits of its control group and of each group above.
 *
 * The limits of a group of version 2 are memory.max, at which the kernel kills,
 * and memory.high, above which it reclaims memory and slows the group down.
 * The limit of a group of version 1 is memory.limit_in_bytes.  A process may be
 * in groups of both versions at once.  Swap is not counted, because a cache in
 * swap is useless.
 *
 * In a container, groups above the mounted one cannot be seen, and limit the
 * process all the same. */
#ifndef DAEMON_MEMORY_LIMIT_H
#define DAEMON_MEMORY_LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MEMORY_LIMIT_PATH_LEN 256

struct memory_limit {
  uint64_t bytes;                     /* UINT64_MAX: nothing is known */
  char from[MEMORY_LIMIT_PATH_LEN];   /* the file that says so */
  char unread[MEMORY_LIMIT_PATH_LEN]; /* a file that may say less but cannot be
                                         read or understood; "": none */
};

/* Reads the limit from proc and sys below `root`, which is "" except in tests.
 * A file that does not exist is no limit. */
void memory_limit_read(const char *root, struct memory_limit *out);

/* The directory of this process's group of version 2, without `root` before it,
 * which it needs to be opened.  False: there is none. */
bool memory_limit_group(const char *root, char *to, size_t len);

#ifdef __cplusplus
}
#endif

#endif
