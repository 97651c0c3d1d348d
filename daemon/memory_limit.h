/* How much memory this process may use: the least of what the machine has and
 * of what its control group, and each group above that one, allows.
 *
 * Of a group of version 2 that is memory.max, at which the kernel kills, and
 * memory.high, above which it takes memory away and slows the group down; of
 * one of version 1 memory.limit_in_bytes.  A process may be in groups of both
 * versions at once.  Swap counts for nothing: a cache in swap is none.
 *
 * Groups above the one that is mounted, as in a container, cannot be seen, and
 * limit the process all the same. */
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

/* Reads the limit from the proc and sys below `root`, "" but in tests.  What
 * is not there does not limit. */
void memory_limit_read(const char *root, struct memory_limit *out);

/* The directory of this process's group of version 2, without `root` before it,
 * which it needs to be opened.  False: there is none. */
bool memory_limit_group(const char *root, char *to, size_t len);

#ifdef __cplusplus
}
#endif

#endif
