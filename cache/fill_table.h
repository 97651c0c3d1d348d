/* The fills in flight, by page.
 *
 * A fill exists from the first miss on a run of pages until its outcome has
 * been handed to every waiter.  True whenever the cache's lock is free:
 *
 *   F1  For each page and mirror, `fills` and `by_page` have at most one fill
 *       that is not stale.
 *   F2  A fill there that installs owns its pages' states, which are FILLING.
 *       A fill that does not install is for pages that cannot be resident now:
 *       they are STALE, or there is no room for their states.  Its bytes go to
 *       the fetches that wait.
 *   F3  A fetch link is on exactly one fill's list until that fill is done.
 *   F4  The bytes of a fill do not change after it is done, and live as long as
 *       the last fetch that links it.  So no fetch depends on its pages staying
 *       resident.
 *
 *     (none) --fetch_begin--> in flight --fill_finish--> installed --> (none)
 *                                 `--failed, stale, no room--> dropped
 *
 * An invalidation does not cancel a fill.  A fetch that already waits began
 * before the invalidation, and gets the bytes.  A later fetch waits until the
 * fill has been dropped. */
#ifndef CACHE_FILL_TABLE_H
#define CACHE_FILL_TABLE_H

#include "cache/mirror.h"
#include "cache/source.h"

/* A fill may have more pages than the fetch that began it, see `fetch_size` in
 * source.h: 4 MiB of pages of 4 KiB. */
#define FILL_MAX_PAGES 1024

#ifdef __cplusplus
extern "C" {
#endif

struct fetch_link;
struct fill_runner;

/* A page of a fill. */
struct fill_node {
  struct fill_node *next;
  struct fill *fill;
  uint64_t page;
  bool is_bad, is_zero; /* written by the fill's runner, see below */
};

struct fill {
  struct mirror *mirror; /* referenced */
  uint64_t first;
  uint32_t count;
  unsigned n_refs; /* atomic: its links, and its runner.  It grows under the
                      lock only, while the runner holds its own */

  struct fetch_link *links; /* the lock: the fetches that wait */
  bool installs;            /* fixed: it owns its pages' states */
  bool is_sparse;           /* fixed: there were zeros when it began */
  uint64_t deadline_ms;     /* fixed: its fetch's; 0: none */
  bool stale;               /* the lock: invalidated since it began */

  /* Written by its runner, before it ends; then fixed. */
  struct fill_runner *runner; /* told when `read` ends that was PENDING */
  struct source_read read;    /* of all its pages, into `bytes` */
  bool was_read;              /* `read` has ended */
  uint8_t *bytes;
  uint64_t reserved; /* bytes of the budget for its pages */
  int status;
  uint32_t n_bad;  /* pages that failed */
  uint32_t n_zero; /* pages that are zeros, as the source says */

  struct fill *next, **link; /* pc->fills */
  struct fill_node nodes[];  /* pc->by_page */
};

/* The fill that reads a page, stale or not; NULL: there is none. */
struct fill *fill_table_find_locked(struct page_cache *pc,
                                    const struct mirror *m, uint64_t page);

/* The same, but only if a fetch of the page may wait for it. */
struct fill *fill_table_joinable_locked(struct page_cache *pc,
                                        const struct mirror *m, uint64_t page);

/* Makes a fill, with a reference for its runner.  If it installs, it owns the
 * pages, which must be ABSENT and whose states must be charged.  NULL: no
 * memory. */
struct fill *fill_table_begin_locked(struct page_cache *pc, struct mirror *m,
                                     uint64_t first, uint32_t count,
                                     bool installs);

/* Removes a fill that is done from the table. */
void fill_table_leave_locked(struct page_cache *pc, struct fill *fill);

/* Marks the fills in flight that overlap the range as stale: they serve the
 * fetches that already wait, and are then dropped. */
void fill_table_mark_stale_locked(struct page_cache *pc, struct mirror *m,
                                  uint64_t first, uint64_t count);

/* Releases a reference, with or without the lock.  Returns true if it was the
 * last one; then the caller calls fill_table_free(), without the lock. */
bool fill_table_unref(struct fill *fill);
void fill_table_free(struct fill *fill);

/* Asserts F1 and F2 of the fills of a mirror, and that what the mirror says of
 * them is right.  Returns how many pages they own whose states are FILLING. */
uint64_t fill_table_check_locked(struct page_cache *pc, const struct mirror *m);

/* Of page first + i. */
static inline bool fill_is_bad(const struct fill *fill, uint32_t i) {
  return fill->nodes[i].is_bad;
}

/* Marks pages first + i to first + i + n - 1, which were not marked, as bad. */
static inline void fill_mark_bad(struct fill *fill, uint32_t i, uint32_t n) {
  for (uint32_t end = i + n; i < end; i++)
    fill->nodes[i].is_bad = true;
  fill->n_bad += n;
}

static inline bool fill_is_zero(const struct fill *fill, uint32_t i) {
  return fill->nodes[i].is_zero;
}

/* Marks pages as fill_mark_bad() does, as zeros. */
static inline void fill_mark_zero(struct fill *fill, uint32_t i, uint32_t n) {
  for (uint32_t end = i + n; i < end; i++)
    fill->nodes[i].is_zero = true;
  fill->n_zero += n;
}

/* Whether all pages of the fill are zeros, so that nothing is to be written. */
static inline bool fill_is_all_zero(const struct fill *fill) {
  return fill->n_zero == fill->count;
}

static inline bool fill_has_good(const struct fill *fill) {
  return fill->n_bad < fill->count;
}

#ifdef __cplusplus
}
#endif

#endif
