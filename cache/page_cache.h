/* The page cache: images, one budget and one eviction policy for all of them,
 * fills.  The daemon has one; so has each image opened without a daemon; so
 * has a client that can only talk over a socket.
 *
 * It knows no socket, no event loop, no file: bytes come in by a struct source
 * (fill_run()) or from the caller (page_cache_install()).
 *
 * Threads: every call may be made from any thread, unless said otherwise.
 * Hits (view.h) take no lock; misses take one lock, page_cache.lock, briefly,
 * and no system call but fstat and lseek runs under it. */
#ifndef CACHE_PAGE_CACHE_H
#define CACHE_PAGE_CACHE_H

#include "cache/mirror.h"
#include "cache/source.h"
#include "cache/view.h"

#ifdef __cplusplus
extern "C" {
#endif

struct page_cache;
struct image;
struct fill;
struct fetch;

#define PAGE_SHIFT_MIN 12
#define PAGE_SHIFT_MAX 21

struct page_cache_options {
  uint64_t budget; /* bytes: mirrors, words, touched bytes */
  bool evictor;    /* run a thread that evicts ahead of need, and one that
                      reclaims what is in no account or of no use any more */
};

int page_cache_new(const struct page_cache_options *options,
                   struct page_cache **out);
/* Ends the threads of `evictor`, if there are any; nothing is evicted any more
 * unless somebody asks for room. */
void page_cache_stop_threads(struct page_cache *pc);

/* All images must be gone. */
void page_cache_free(struct page_cache *pc);

struct page_cache_stats {
  uint64_t budget, used; /* bytes */
  uint64_t n_fills, n_fill_errors, n_filled_pages, n_uncached_pages;
  uint64_t n_joins, n_evicted_pages, n_epochs, n_batches;
};
void page_cache_get_stats(struct page_cache *pc, struct page_cache_stats *out);

/* Bytes allocated by all the memfds of the cache's images, as fstat says. */
uint64_t page_cache_allocated(struct page_cache *pc);

/* ---- Images -------------------------------------------------------------- */

struct image_ops {
  /* Hands over a fill that `f` began and somebody has to run, by fill_run().
   * Called under no lock, on the thread that called fetch_start().  NULL:
   * fetch_start() runs its fills itself, before it returns. */
  void (*submit)(void *arg, struct fetch *f, struct fill *fill);

  /* The image has a new epoch.  Called on whatever thread saw it, not under
   * the cache's lock; it must not call image_refresh().  May be NULL. */
  void (*changed)(void *arg, struct image *img);

  void *arg;
};

/* Makes an image over `src`, which it owns from here (also on failure).
 * `name` is for messages.  0 or a negative errno. */
int image_new(struct page_cache *pc, const char *name, struct source *src,
              unsigned page_shift, const struct image_ops *ops,
              struct image **out);

/* An image whose bytes the caller brings, by image_install(); its epoch and
 * size are the caller's. */
int image_new_remote(struct page_cache *pc, const char *name, uint64_t size,
                     unsigned page_shift, uint64_t epoch, struct image **out);

/* Nobody of this process uses the image any more: no fetch, no view.  Its
 * mirror is retired, but its pages are not punched: another process that has
 * some of them pinned may read those on.  Mirrors that are still referenced
 * live on until they are not, at the longest as long as the cache: their last
 * mirror_unref() comes before page_cache_free(). */
void image_free(struct image *img);

const char *image_name(const struct image *img);
unsigned image_page_shift(const struct image *img);

/* Another reference; mirror_unref() gives one back, and with the last one the
 * memory. */
struct mirror *mirror_ref(struct mirror *m);
void mirror_unref(struct mirror *m);

/* A reference to a mirror that is found in a table, whose lock is held; false
 * if its last reference is just being given back. */
bool mirror_ref_live(struct mirror *m);

/* The mirror of the image's present epoch, with a reference for the caller. */
struct mirror *image_mirror(struct image *img);

/* Whether `m` is the present one: two loads, no lock. */
bool image_is_current(const struct image *img, const struct mirror *m);

/* Asks the source whether the image changed, and gives it a new epoch if so
 * (then `changed` runs).  Blocks on the source.  0 or a negative errno.
 * `min_interval_ms`: does nothing if the last look is younger. */
int image_refresh(struct image *img, int min_interval_ms);

/* Remote images: the other side's epoch changed. */
int image_set_epoch(struct image *img, uint64_t size, uint64_t epoch);

/* Drops `count` pages from `first` on, cut at the end.  A fill in flight goes
 * to those who wait for it already and is dropped then.  A page that is pinned
 * keeps its bytes for its pins, and is read without a place in the cache until
 * they have ended.  A fetch that starts after the return sees bytes read after
 * the call.  0 or a negative errno. */
int image_invalidate(struct image *img, uint64_t first, uint64_t count);

/* Counts invalidations and epochs of the image.  A caller that brings bytes
 * itself reads it before it asks for them, see image_install(). */
uint64_t image_generation(const struct image *img);

/* Remote images: puts one page's bytes (mirror_page_len() of them) into
 * mirror `m`, unless it is there, the image's generation is no longer
 * `generation`, or there is no room.  True if the page is resident now. */
bool image_install(struct image *img, struct mirror *m, uint64_t page,
                   const void *bytes, uint64_t generation);

/* ---- Views --------------------------------------------------------------- */

/* Opens a view of `m`, which it references, with a pin table of its own that
 * the evictor sees from here on.  0 or -ENOMEM. */
int view_open(struct view *v, struct mirror *m);

/* Ends a view; all its pins must be 0.  A zeroed view is left alone. */
void view_close(struct view *v);

/* A view through a table that lies elsewhere.  The caller keeps `m` and `t`. */
struct view view_of(const struct mirror *m, struct pin_table *t);

/* ---- Fetches ------------------------------------------------------------- */

/* A fetch brings a run of pages in: it starts fills for those that are absent,
 * joins those that are in flight, and is done when none is left.  The bytes
 * that its fills read stay with it, resident or not, until fetch_fini(): a
 * reader that waited needs no second look, and a cache too small to hold the
 * pages costs speed, not progress. */

#define FETCH_MAX_PAGES 64

struct fetch_link {
  struct fetch *fetch;
  struct fill *fill; /* referenced */
  struct fetch_link *next;
};

struct fetch {
  /* Set by the caller.  Runs once if fetch_start() returned FETCH_WAIT, under
   * no lock, on the thread that ended the last fill; then the fetch is the
   * caller's again. */
  void (*done)(struct fetch *f);

  /* Results, from `done` on: 0 or the first error of one of its pages, a
   * negative errno.  -ESTALE: the image has, or should have, a new epoch. */
  int status;
  uint32_t n_missed; /* pages whose fill this fetch started */
  uint32_t n_joined; /* pages whose fill was in flight */

  /* private */
  struct mirror *mirror; /* referenced */
  uint64_t first;
  uint32_t count;
  uint32_t n_pending; /* under the cache lock */
  struct fetch *next; /* under the cache lock: those who wait for a verdict */
  uint32_t n_links;
  struct fetch_link links[FETCH_MAX_PAGES];
};

enum fetch_outcome {
  FETCH_READY, /* nothing to wait for; the results are there, and `done` does
                  not run */
  FETCH_WAIT,  /* `done` will run, or has run already */
};

/* Starts to bring in pages first .. first+count-1 of `m`, at most
 * FETCH_MAX_PAGES.  `f` is zeroed but for `done`.  With an image that has no
 * `submit`, its own fills are run here, on this thread, and FETCH_WAIT means
 * that pages are in flight on another. */
enum fetch_outcome fetch_start(struct fetch *f, struct mirror *m,
                               uint64_t first, uint32_t count);

/* After it is done: the bytes of a page that it waited for, NULL for a page
 * that was resident, that failed, or that has to be looked up again. */
const uint8_t *fetch_bytes(const struct fetch *f, uint64_t page);

/* After it is done: the first page that could not be read; the page behind its
 * last if there is none. */
uint64_t fetch_first_bad(const struct fetch *f);

/* Gives back what it holds.  Not while it waits. */
void fetch_fini(struct fetch *f);

/* Runs a fill that `submit` handed over: reads the source, installs the pages,
 * wakes who waits.  Blocks on the source. */
void fill_run(struct fill *fill);

/* The same for a thread that must not wait, and for a few pages only, since it
 * copies them.  0, or nothing is done: -EAGAIN if the source is about to bring
 * the pages, so that another try may do; another negative errno if it takes
 * fill_run(), as there is no room, or the source must wait, or has failed. */
int fill_try_run(struct fill *fill);

/* Ends a fill that will not be run, with an error for who waits. */
void fill_abandon(struct fill *fill, int error);

/* How many bytes a fill will read. */
size_t fill_len(const struct fill *fill);

#ifdef __cplusplus
}
#endif

#endif
