/* A page cache in this process, with its evictor, over a source that is memory:
 * random misses of it cost what the cache itself costs. */
#ifndef TESTS_BENCH_MEMORY_CACHE_H
#define TESTS_BENCH_MEMORY_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/image.h"
#include "cache/page_cache.h"
#include "cache/source.h"

struct memory_cache {
  struct source source;
  struct page_cache *cache;
  struct image *image;
  struct mirror *mirror;
  unsigned page_shift;
  uint64_t n_pages; /* of the image */
  uint64_t random;
};

/* Ends the program if `r` is a negative errno. */
void memory_cache_check(int r, const char *what);

/* A cache for `n_cached` pages of an image of `n_pages`, all of that size.
 * `thread_began` as in struct page_cache_options. */
void memory_cache_open(struct memory_cache *c, unsigned page_shift,
                       uint64_t n_cached, uint64_t n_pages,
                       void (*thread_began)(bool is_evictor));
void memory_cache_close(struct memory_cache *c);

/* Misses `n_pages` that lie together somewhere, or finds them.  This thread
 * runs all fills.  It waits only for a page that is just being evicted. */
void memory_cache_miss(struct memory_cache *c, uint32_t n_pages);

#endif
