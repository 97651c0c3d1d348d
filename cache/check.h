/* Asserts what must be so whenever a cache's lock is free: C1 to C4 of
 * internal.h, and the invariants of the modules below. */
#ifndef CACHE_CHECK_H
#define CACHE_CHECK_H

#ifdef __cplusplus
extern "C" {
#endif

struct page_cache;

/* Goes through all pages, fills and queues of a cache that was not left
 * (page_cache_leave()).  Where states have no memory it makes none. */
void check_cache_locked(struct page_cache *pc);

/* The same, at a quiet point of a program that checks much
 * (CACHETD_DEBUG_CHECKS); nothing in others. */
void check_quietly_locked(struct page_cache *pc);

/* For tests: takes the lock. */
void check_cache(struct page_cache *pc);

/* The same when nothing is under way besides.  No fill is in flight, no page
 * is on its way out, and all that is in the account has an owner (B1). */
void check_cache_idle(struct page_cache *pc);

#ifdef __cplusplus
}
#endif

#endif
