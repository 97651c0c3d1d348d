/* The page cache: one budget and one eviction policy for all its images (see
 * image.h).  The daemon has one page cache.  In the client library, each image
 * that is cached in the process has one.
 *
 * A page cache uses no socket, event loop or file.  Bytes come from a struct
 * source (image_run_fill()) or from the caller (image_install()).
 *
 * Any thread may make any call on a cache or an image, unless a comment says
 * otherwise.  Hits (view.h) take no lock.  Misses take page_cache.lock for a
 * short time; internal.h says which system calls run under it. */
#ifndef CACHE_PAGE_CACHE_H
#define CACHE_PAGE_CACHE_H

#include <stdbool.h>

#include "cache/stats.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mirror_keeper;
struct page_cache;

struct page_cache_options {
  uint64_t budget; /* bytes: pages, page states, accessed bytes */
  bool evictor;    /* run a thread that evicts ahead of need, and one that
                      reclaims memory that is not accounted for or unused */
  /* Each of the two threads calls it first.  May be NULL. */
  void (*thread_began)(bool is_evictor);
};

int page_cache_new(const struct page_cache_options *options,
                   struct page_cache **out);

/* Ends the two threads, if there are any.  Afterwards only callers that need
 * room evict, and a mirror whose last pin table ends is not punched: the owner
 * ends, and other processes go on reading the pages that they have pinned. */
void page_cache_stop_threads(struct page_cache *pc);

/* Asks the cache's threads for a sign of life.  `question` is a number greater
 * than all earlier ones. */
void page_cache_ask(struct page_cache *pc, uint64_t question);

/* Returns the name of thread `i`, less than PAGE_CACHE_N_THREADS, if that
 * thread has not answered the question.  Returns NULL if it has, or if there
 * are no threads. */
enum { PAGE_CACHE_N_THREADS = 2 };
const char *page_cache_silent(struct page_cache *pc, unsigned i,
                              uint64_t question);

/* Sets the keeper of the cache's mirrors for the next process, see mirror.h.
 * To be called before the cache has an image. */
void page_cache_set_keeper(struct page_cache *pc, struct mirror_keeper *keeper);

/* From now on, whatever is freed stays in memory for the next process and for
 * the processes that have it mapped: no mirror is retired, no page is punched,
 * and the keeper is not notified.  The cache's threads must have ended, and no
 * other thread may use the cache. */
void page_cache_leave(struct page_cache *pc);

/* Frees the cache.  All its images must have been freed. */
void page_cache_free(struct page_cache *pc);

/* Sets the budget.  A larger budget can be used at once.  For a smaller one,
 * the evictor evicts pages that are not pinned; meanwhile, pages that are read
 * are not kept.  Without threads the following misses evict.  The call returns
 * before this is done; page_cache_get_stats() shows the progress.
 *
 * The shares of other processes (shared_pins.h) do not change.  While they are
 * more than half of the budget, no more are given.
 *
 * 0; or -ENOMEM, and the budget is unchanged. */
int page_cache_set_budget(struct page_cache *pc, uint64_t budget);

void page_cache_get_stats(struct page_cache *pc, struct page_cache_stats *out);

/* The bytes that the memfds of all images have allocated, according to fstat.
 */
uint64_t page_cache_allocated(struct page_cache *pc);

#ifdef __cplusplus
}
#endif

#endif
