/* Adopting: a cache goes on with a mirror of a process that has ended.
 *
 *     mirror_adopt -> adopt_begin -> shared_pins_adopt, for each table
 *                  -> adopt_check -> image_new_over       it goes on
 *                                 -> image_new_past       it is over
 *
 * Other processes read in that memory all the time, and rely on the pins that
 * stand in their tables.  So all tables are listed before a page of the mirror
 * can be evicted:
 *
 *   K1  Until adopt_go_on() or adopt_end() the mirror is in no table of the
 *       cache's, and none of its pages in the policy.
 *   K2  What the process was at when it died is cleaned up without a guess, see
 *       adopt_go_on().
 *
 * One thread, before the cache is used by others. */
#ifndef CACHE_ADOPT_H
#define CACHE_ADOPT_H

#include "cache/mirror.h"

#ifdef __cplusplus
extern "C" {
#endif

struct page_cache;

/* A mirror that mirror_adopt() made is going to be of this cache.  Tables may
 * be adopted from here on; its last mirror_unref() frees it. */
void adopt_begin(struct page_cache *pc, struct mirror *m);

/* NULL if the cache can go on with the mirror as it is; else why not, in words
 * for a log. */
const char *adopt_check(const struct mirror *m);

/* Takes the mirror into the cache, with its pages.  adopt_check() has nothing
 * against it.  0; -E2BIG: too much was under way in it; or another negative
 * errno.  On failure it is as it was. */
int adopt_go_on(struct mirror *m);

/* Takes it into the cache as one that is over: no state says RESIDENT, and
 * reclaim_retired() is due.  0 or a negative errno: its readers know, but its
 * memory is in no account. */
int adopt_end(struct mirror *m);

#ifdef __cplusplus
}
#endif

#endif
