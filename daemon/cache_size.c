#include "daemon/cache_size.h"

#include <inttypes.h>
#include <stdio.h>

#include "daemon/limits.h"

/* Beside what depends on the cache: the program, its threads' stacks and
 * buffers, log and images, idle connections, and what the kernel keeps for
 * them. */
#define RESERVE_FIXED (32ull << 20)
/* Of each page: the entries of the eviction policy, page tables, and the
 * kernel's index of the memory; together 2.3 % of pages of 4K.  The page tables
 * of budget_allows_writing_mapped() are 0.8 %. */
#define RESERVE_PART 32
/* What sizes that are proposed are multiples of. */
#define GRAIN (1ull << 20)

/* What each image may fetch of each worker whatever the others do: a piece, or
 * a page (F2 of fetch_quota.h). */
static uint64_t fetched_at_least(const struct config *config,
                                 uint64_t piece_len) {
  uint64_t len = 0;
  for (size_t i = 0; i < config->n_images; i++) {
    uint64_t page = config_page_size(config, &config->images[i]);
    len += page > piece_len ? page : piece_len;
  }
  return len;
}

uint64_t cache_size_reserve(const struct config *config, uint64_t size) {
  struct limits limits = limits_default();
  unsigned n_workers = config_workers(config);
  uint64_t fitted = config->fitted_size ? config->fitted_size : size;
  limits_fit_cache(&limits, fitted, n_workers);
  return RESERVE_FIXED + size / RESERVE_PART + limits.max_held +
         n_workers * (limits.max_worker_fetch +
                      fetched_at_least(config, limits.piece_len));
}

static bool fits(const struct config *config, uint64_t size, uint64_t limit) {
  return size <= limit && cache_size_reserve(config, size) <= limit - size;
}

/* The largest size that fits, in GRAINs; 0: none does. */
static uint64_t largest(const struct config *config, uint64_t limit) {
  uint64_t least = 0, most = limit / GRAIN;
  while (least < most) {
    uint64_t mid = most - (most - least) / 2;
    if (fits(config, mid * GRAIN, limit))
      least = mid;
    else
      most = mid - 1;
  }
  return least;
}

/* Where the size was given. */
static void print_place(const struct config *config,
                        char place[CONFIG_PLACE_LEN]) {
  config_print_place(CONFIG_CACHE_SIZE, &config->origins[CONFIG_CACHE_SIZE],
                     place);
}

static void refuse(const struct config *config,
                   const struct memory_limit *limit,
                   struct config_errors *errors) {
  char place[CONFIG_PLACE_LEN];
  char advice[64] = "raise that, or have fewer images or workers";
  uint64_t size = config->cache_size, most = largest(config, limit->bytes);
  print_place(config, place);
  if (most > 0)
    snprintf(advice, sizeof advice,
             "choose at most %" PRIu64 "M, or raise that", most);
  config_errors_add(
      errors,
      "%s: a cache of %" PRIu64 " bytes and the %" PRIu64 " that the daemon "
      "needs beside it are more than the %" PRIu64 " that %s allows; %s",
      place, size, cache_size_reserve(config, size), limit->bytes, limit->from,
      advice);
}

void cache_size_settle(struct config *config, const struct memory_limit *limit,
                       struct config_errors *errors) {
  char place[CONFIG_PLACE_LEN];
  if (config->cache_percent && limit->bytes == UINT64_MAX) {
    print_place(config, place);
    config_errors_add(errors,
                      "%s: it is not known what %u%% are of: there is no "
                      "/proc/meminfo; write a number of bytes",
                      place, config->cache_percent);
    return;
  }
  if (config->cache_percent)
    config->cache_size = limit->bytes / 100 * config->cache_percent;
  if (!fits(config, config->cache_size, limit->bytes))
    refuse(config, limit, errors);
}
