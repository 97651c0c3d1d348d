/* Adopting: a cache continues with a mirror of a process that has ended.
 *
 *     mirror_adopt -> adopt_begin -> shared_pins_adopt, for each table
 *                  -> adopt_check -> image_new_over       the mirror goes on
 *                                 -> image_new_past       its epoch is over
 *
 * Other processes read that memory all the time, and rely on the pins in their
 * tables.  So all tables are listed before a page of the mirror can be evicted:
 *
 *   K1  Until adopt_go_on() or adopt_end() the mirror is in no table of the
 *       cache, and none of its pages is in the policy.
 *   K2  The state of each page that the process was working on is set without a
 *       guess, see adopt_go_on().
 *
 * One thread, before any other uses the cache. */
#ifndef CACHE_ADOPT_H
#define CACHE_ADOPT_H

#include "cache/mirror.h"

#ifdef __cplusplus
extern "C" {
#endif

struct page_cache;

/* Assigns a mirror from mirror_adopt() to this cache.  Tables may be adopted
 * from now on.  The last mirror_unref() frees it. */
void adopt_begin(struct page_cache *pc, struct mirror *m);

/* Returns NULL if the cache can continue with the mirror; otherwise the reason
 * why not, as text for a log. */
const char *adopt_check(const struct mirror *m);

/* Adds the mirror with its pages to the cache. adopt_check() must have returned
 * NULL. 0; -E2BIG: too much was in progress in it; or another negative errno.
 * On failure the mirror is unchanged. */
int adopt_go_on(struct mirror *m);

/* Adds the mirror to the cache as one whose epoch is over: no state is
 * RESIDENT, and the caller must call reclaim_retired(). 0; or a negative errno:
 * its readers know, but its memory is in no account. */
int adopt_end(struct mirror *m);

#ifdef __cplusplus
}
#endif

#endif
