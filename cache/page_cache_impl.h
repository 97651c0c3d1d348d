/* The page cache's inside, for the files of cache/ only.
 *
 * One lock, page_cache.lock, guards everything that misses, evictions and
 * epochs change.  Hits do not take it.  Under it no callback runs, and no
 * system call but fstat, lseek and (the janitor) a punch of our own memfds.  It
 * is a leaf but for image.refresh_lock, which is taken before it.
 *
 * True whenever the lock is free:
 *
 *   C1  A word is RESIDENT if and only if its page is in the policy's SMALL or
 *       MAIN queue.  (So not in a retired mirror; one whose image was freed
 *       is out of it.)
 *   C2  A word is FILLING if and only if a fill of its mirror owns it, and
 *       then that fill is in `fills`.
 *   C3  `used` is the sum of the charges of the mirrors, the reservations of
 *       fills, and a page for each lease; a page is reserved before it is
 *       written.
 *   C4  A fetch that waits has n_pending links or verdicts outstanding. */
#ifndef CACHE_PAGE_CACHE_IMPL_H
#define CACHE_PAGE_CACHE_IMPL_H

#include <pthread.h>

#include "cache/buffers.h"
#include "cache/page_cache.h"
#include "cache/policy.h"

#define FILL_BUCKETS 1024
#define LEASE_BUCKETS 64

struct fill_node {
  struct fill_node *next;
  struct fill *fill;
  uint64_t page;
};

/* See fill.c. */
struct fill {
  struct mirror *mirror; /* referenced */
  uint64_t first;
  uint32_t count;
  unsigned n_refs; /* the lock: its links, and who runs it */

  struct fetch_link *links; /* the lock: who waits */
  bool stale;               /* the lock: invalidated since it began */

  /* Written by who runs it, before it ends; then fixed. */
  uint8_t *bytes;
  int status;
  uint64_t bad; /* pages that failed: bit i is page first + i */

  struct fill *next, **link; /* pc->fills */
  struct fill_node nodes[];  /* pc->by_page */
};

struct page_cache {
  uint64_t budget;
  bool membarrier;
  struct buffers buffers; /* with an evictor, which trims them; else none */
  pthread_mutex_t lock;

  /* guarded by lock */
  struct policy policy;
  uint64_t used;   /* bytes, see C3 */
  uint64_t leased; /* bytes that other processes may pin, see lease.c */
  struct lease_user *lease_users[LEASE_BUCKETS];
  struct mirror **mirrors;
  uint32_t n_mirrors; /* slots; a free one is NULL */
  uint32_t n_live_mirrors;
  struct fill *fills;
  struct fill_node *by_page[FILL_BUCKETS];
  struct fetch *verdicts; /* fetches that wait for an EVICTING word */
  uint64_t n_drops;       /* counts evict_range()'s looks at words */
  struct page_cache_stats stats;

  /* the evictor thread, if any */
  bool has_evictor, stop; /* stop: guarded by lock */
  pthread_t evictor;
  pthread_cond_t wanted;
};

struct image {
  struct page_cache *cache;
  char *name;
  unsigned page_shift;
  unsigned n_refs; /* atomic: the owner, and each mirror */
  struct image_ops ops;

  /* Serialises looks at the source; taken before the cache's lock. */
  pthread_mutex_t refresh_lock;
  int64_t looked_ms; /* guarded by refresh_lock */

  /* Written under the cache's lock; read atomically (acquire) anywhere. */
  struct mirror *mirror; /* NULL once the image is freed */
  uint64_t generation;

  uint64_t next_epoch; /* guarded by the cache's lock */
};

/* ---- page_cache.c */

/* Makes a mirror known to its cache; mirror_unref() undoes it.  0 or -ENOMEM.
 */
int mirror_attach(struct page_cache *pc, struct image *img, struct mirror *m);

void source_unref(struct source *src); /* NULL is fine */

/* The evictor sees a table's pins between these two. */
void pin_table_list(struct pin_table *t);
void pin_table_unlist(struct pin_table *t);

/* ---- janitor.c */

void janitor_round(struct page_cache *pc);

/* Punches words that are all ABSENT, and the touched bytes beside them; whether
 * there were any. */
bool janitor_sweep_words(struct mirror *m);

/* ---- fill.c */

/* Ends fetches whose last wait is over: a list by `next`, under no lock. */
void fetches_done(struct fetch *list);

/* Takes fetches off the verdict list whose wait is over now; the lock is held,
 * the result goes to fetches_done(). */
struct fetch *verdicts_take_locked(struct page_cache *pc);

/* ---- image.c */

/* Gives the image a new mirror over the same source, because an invalidated
 * page is pinned in `old`, which is retired in any case.  Does nothing if `old`
 * is not current any more.  Without memory for a new one it is made when
 * somebody asks for it. */
void image_renew(struct image *img, struct mirror *old);

void image_unref(struct image *img);

/* ---- evict.c */

/* Pages in one batch, one barrier. */
#define EVICT_MAX_BATCH 256

/* Reserves `len` bytes of the budget, evicting as needed.  False if that is
 * not to be had now. */
bool budget_reserve(struct page_cache *pc, struct mirror *m, uint64_t len);
void budget_release(struct page_cache *pc, uint64_t len);

/* The same without evicting anything. */
bool budget_try_reserve(struct page_cache *pc, struct mirror *m, uint64_t len);

/* Punches what is not pinned of a range of a retired mirror, whose evictions
 * are over. */
void evict_unpinned(struct mirror *m, uint64_t first, uint64_t count);

/* How much of the budget words and touched bytes are charged beforehand. */
#define META_SHARE 16

/* Brings the charge for a mirror's words and touched bytes up to date. */
void budget_recharge(struct mirror *m);

/* Drops the resident pages of a range: punches those that are not pinned.
 * Returns how many are pinned.  Those stay EVICTING, and the caller retires
 * the mirror. */
uint64_t evict_range(struct page_cache *pc, struct mirror *m, uint64_t first,
                     uint64_t count);

/* The evictor thread's body. */
void *evictor_main(void *arg);

/* ---- fill.c */

/* Marks fills in flight that overlap the range: they go to who waits already,
 * and are dropped then.  The lock is held. */
void fills_mark_stale_locked(struct page_cache *pc, struct mirror *m,
                             uint64_t first, uint64_t count);

#endif
