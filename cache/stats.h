/* What a page cache counts. */
#ifndef CACHE_STATS_H
#define CACHE_STATS_H

#include <stdint.h>

struct page_cache_stats {
  uint64_t budget, used; /* bytes */
  uint64_t n_fills, n_fill_errors, n_filled_pages, n_uncached_pages;
  uint64_t n_zero_pages; /* that exist now; not in n_filled_pages */
  uint64_t n_joins, n_evicted_pages, n_epochs, n_batches;
};

#endif
