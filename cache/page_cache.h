/* The page cache: one budget and one eviction policy for all images in it (see
 * image.h).  The daemon has one; so has each image opened without a daemon; so
 * has a client that can only talk over a socket.
 *
 * It knows no socket, no event loop, no file: bytes come in by a struct source
 * (image_run_fill()) or from the caller (image_install()).
 *
 * Threads: every call on a cache or an image may be made from any thread,
 * unless said otherwise.  Hits (view.h) take no lock; misses take one lock,
 * page_cache.lock, briefly, and no system call but fstat and lseek runs under
 * it. */
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
                      reclaims what is in no account or of no use any more */
  /* Each calls it first, and says which of the two it is.  NULL: nobody. */
  void (*thread_began)(bool is_evictor);
};

int page_cache_new(const struct page_cache_options *options,
                   struct page_cache **out);
/* Ends the threads of `evictor`, if there are any; nothing is evicted any more
 * unless somebody asks for room. */
void page_cache_stop_threads(struct page_cache *pc);

/* Asks the cache's threads for a sign of life.  Questions have numbers, which
 * only grow. */
void page_cache_ask(struct page_cache *pc, uint64_t question);

/* The name of its thread `i`, below PAGE_CACHE_N_THREADS, if that has not
 * answered the question; NULL: it has, or there are no threads. */
enum { PAGE_CACHE_N_THREADS = 2 };
const char *page_cache_silent(struct page_cache *pc, unsigned i,
                              uint64_t question);

/* Has somebody keep its mirrors for a process to come, see mirror.h.  Before it
 * has an image. */
void page_cache_set_keeper(struct page_cache *pc, struct mirror_keeper *keeper);

/* What is freed from here on is left as it is, for that process and for those
 * that have it mapped: no mirror is retired, no page punched, and the keeper is
 * not told.  The cache's threads have been stopped, and no other thread uses
 * it. */
void page_cache_leave(struct page_cache *pc);

/* All images must be gone. */
void page_cache_free(struct page_cache *pc);

/* Sets the budget.  A larger one may be used at once.  To a smaller one the
 * evictor takes the cache down, but for what is pinned; what comes in meanwhile
 * is not kept.  Without threads the misses that follow do that.  Returns before
 * it is done: page_cache_get_stats() tells.
 *
 * Shares that other processes were given (shared_pins.h) stay as they are;
 * while they are more than half of the budget no more are given.
 *
 * 0; -ENOMEM, and the budget is what it was. */
int page_cache_set_budget(struct page_cache *pc, uint64_t budget);

void page_cache_get_stats(struct page_cache *pc, struct page_cache_stats *out);

/* Bytes allocated by all the memfds of the cache's images, as fstat says. */
uint64_t page_cache_allocated(struct page_cache *pc);

#ifdef __cplusplus
}
#endif

#endif
