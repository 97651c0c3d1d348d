/* A fetch: the request of a reader for a run of pages, and the wait for them.
 *
 * A fetch starts fills for the pages that are absent, and joins the fills that
 * are in flight.  It is done when none of them is left.  A fill that it starts
 * may have more pages than the fetch needs, up to FILL_MAX_PAGES (see
 * `fetch_size` in source.h); the fetch ignores the others.  The bytes that its
 * fills have read stay available until fetch_fini(), even if the pages are not
 * resident.  So a reader that has waited need not look up the pages again, and
 * a cache that is too small costs speed but does not block the reader. */
#ifndef CACHE_FETCH_H
#define CACHE_FETCH_H

#include "cache/mirror.h"
#include "cache/waiter.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fill;
struct fill_runner;

#define FETCH_MAX_PAGES 64

/* The fills that it needs itself, and those that it begins ahead. */
#define FETCH_MAX_AHEAD 2
#define FETCH_MAX_FILLS (FETCH_MAX_PAGES + FETCH_MAX_AHEAD)

struct fetch_link {
  struct fetch *fetch;
  struct fill *fill; /* referenced */
  struct fetch_link *next;
};

struct fetch {
  /* Set by the caller.  Runs once if image_fetch() returned FETCH_WAIT, on the
   * thread that ended the last fill and under no lock.  Then the fetch belongs
   * to the caller again. */
  void (*done)(struct fetch *f);

  /* Set by the caller.  It runs the fills that this fetch begins, see fill.h.
   * NULL: image_fetch() runs them before it returns. */
  struct fill_runner *runner;

  /* Set by the caller: when the reads of the fills that this fetch begins must
   * be over, as clock_now_ms() counts, if the source calls back.  0: they have
   * no deadline except their own.  Other fetches that join such a fill have the
   * same deadline. */
  uint64_t deadline_ms;

  /* Results, valid when `done` runs: 0, or the first error of one of its pages,
   * a negative errno. -ESTALE: the image has, or should have, a new epoch. */
  int status;
  uint32_t n_missed; /* pages for which it started a fill */
  uint32_t n_joined; /* pages for which a fill was in flight */

  /* private */
  struct mirror *mirror; /* referenced */
  uint64_t first;
  uint32_t count;
  struct waiter waiter; /* for its links, and for outcomes */
  uint32_t n_links;
  struct fetch_link links[FETCH_MAX_PAGES];
};

enum fetch_outcome {
  FETCH_READY, /* the results are valid, and `done` does not run */
  FETCH_WAIT,  /* `done` will run, or has run already */
};

/* For image_fetch(), which readers call. fetch_begin() joins the fills in
 * flight and begins the missing ones.  It stores those in `begun` and returns
 * their number; the caller must have each of them run.  Then the caller calls
 * fetch_begun().  `done` does not run before that.
 *
 * If the fetch has a runner, continues a sequential reader (sequential.h), and
 * the source's blocks grow, the fetch also begins fills ahead of it.  Nobody
 * waits for those. */
uint32_t fetch_begin(struct fetch *f, struct mirror *m, uint64_t first,
                     uint32_t count, struct fill *begun[FETCH_MAX_FILLS]);
enum fetch_outcome fetch_begun(struct fetch *f);

/* For fill.c: passes the outcome of a fill to the fetches that wait for it.
 * Returns those that wait for nothing else, for waiter_wake(). */
struct waiter *fetch_notify_locked(struct fill *fill);

/* When the fetch is done: the bytes of a page that it waited for.  NULL if the
 * page was resident, if it failed, or if it must be looked up again.  For a
 * page of zeros it returns fetch_zeros(). */
const uint8_t *fetch_bytes(const struct fetch *f, uint64_t page);

/* Zeros, as many as the largest page has.  Nobody writes them, so they take no
 * memory. */
const uint8_t *fetch_zeros(void);

/* When the fetch is done: the first page that could not be read, or the page
 * after its last if all could. */
uint64_t fetch_first_bad(const struct fetch *f);

/* Releases everything that the fetch holds.  It must not be waiting. */
void fetch_fini(struct fetch *f);

#ifdef __cplusplus
}
#endif

#endif
