/* Whether the cache, and what the daemon itself needs, fit into the memory that
 * it may use.  At a control group's limit a program gets no error: the kernel
 * kills the process that writes to a new page.  So a cache that does not fit is
 * refused. */
#ifndef DAEMON_CACHE_SIZE_H
#define DAEMON_CACHE_SIZE_H

#include "daemon/config.h"
#include "daemon/config_errors.h"
#include "daemon/memory_limit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What the daemon needs at most beside a cache of `size` bytes, see
 * docs/limits.md. */
uint64_t cache_size_reserve(const struct config *config, uint64_t size);

/* Computes the bytes of a size that was given in percent, and adds a message if
 * the cache does not fit. */
void cache_size_settle(struct config *config, const struct memory_limit *limit,
                       struct config_errors *errors);

#ifdef __cplusplus
}
#endif

#endif
