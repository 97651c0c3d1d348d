/* A fetch brings a run of pages in: it starts fills for those that are absent,
 * joins those that are in flight, and is done when none is left.  A fill that
 * it starts may have more pages than it wants, up to FILL_MAX_PAGES, see
 * `fetch_size` in source.h;
 * what becomes of those is not its concern.  The bytes that its fills read stay
 * with it, resident or not, until fetch_fini(): a reader that waited needs no
 * second look, and a cache too small to hold the pages costs speed, not
 * progress. */
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

/* Those that it needs itself, and those that it begins ahead. */
#define FETCH_MAX_AHEAD 2
#define FETCH_MAX_FILLS (FETCH_MAX_PAGES + FETCH_MAX_AHEAD)

struct fetch_link {
  struct fetch *fetch;
  struct fill *fill; /* referenced */
  struct fetch_link *next;
};

struct fetch {
  /* Set by the caller.  Runs once if image_fetch() returned FETCH_WAIT, under
   * no lock, on the thread that ended the last fill; then the fetch is the
   * caller's again. */
  void (*done)(struct fetch *f);

  /* Set by the caller: it runs the fills that this fetch begins, see fill.h.
   * NULL: image_fetch() does, before it returns. */
  struct fill_runner *runner;

  /* Results, from `done` on: 0 or the first error of one of its pages, a
   * negative errno.  -ESTALE: the image has, or should have, a new epoch. */
  int status;
  uint32_t n_missed; /* of its pages, those whose fill it started */
  uint32_t n_joined; /* pages whose fill was in flight */

  /* private */
  struct mirror *mirror; /* referenced */
  uint64_t first;
  uint32_t count;
  struct waiter waiter; /* for its links, and for outcomes */
  uint32_t n_links;
  struct fetch_link links[FETCH_MAX_PAGES];
};

enum fetch_outcome {
  FETCH_READY, /* nothing to wait for; the results are there, and `done` does
                  not run */
  FETCH_WAIT,  /* `done` will run, or has run already */
};

/* For image_fetch(), which readers call.  fetch_begin() plans: it joins the
 * fills in flight, and begins those that are missing, which it stores, and
 * returns their number; the caller sees to it that each is run.  Then it calls
 * fetch_begun(): before that `done` does not run.
 *
 * With a runner, a fetch that goes on with a scan (scan.h) of a source whose
 * blocks grow begins fills ahead of it as well, for which nobody waits. */
uint32_t fetch_begin(struct fetch *f, struct mirror *m, uint64_t first,
                     uint32_t count, struct fill *begun[FETCH_MAX_FILLS]);
enum fetch_outcome fetch_begun(struct fetch *f);

/* For fill.c: hands the outcome of a fill to the fetches that wait for it;
 * returns those whose last wait it was, for waiter_wake(). */
struct waiter *fetch_notify_locked(struct fill *fill);

/* After it is done: the bytes of a page that it waited for, NULL for a page
 * that was resident, that failed, or that has to be looked up again.  Of one
 * that is zeros they are fetch_zeros(). */
const uint8_t *fetch_bytes(const struct fetch *f, uint64_t page);

/* As many zeros as the largest page has.  Nobody writes them, so they take no
 * memory. */
const uint8_t *fetch_zeros(void);

/* After it is done: the first page that could not be read; the page behind its
 * last if there is none. */
uint64_t fetch_first_bad(const struct fetch *f);

/* Gives back what it holds.  Not while it waits. */
void fetch_fini(struct fetch *f);

#ifdef __cplusplus
}
#endif

#endif
