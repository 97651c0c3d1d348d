/* Images: a name, a present mirror, and how it gets a new one.
 *
 * Fetches (fetch.h) and views (view.h) are of a mirror; image_mirror() gives
 * the present one.  Any thread. */
#ifndef CACHE_IMAGE_H
#define CACHE_IMAGE_H

#include "cache/fetch.h"
#include "cache/mirror.h"
#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fill;
struct image;
struct page_cache;

struct image_ops {
  /* The image has a new epoch.  Called on whatever thread saw it, not under
   * the cache's lock; it must not call image_refresh().  May be NULL. */
  void (*changed)(void *arg, struct image *img);

  void *arg;

  /* Without memory for its pages the image is of no use: its mirror is shared
   * with other processes.  Else a limit of this process (RLIMIT_AS,
   * RLIMIT_FSIZE) costs speed, not the image. */
  bool needs_pages;

  /* The source says that a look is due, image_refresh(); or that bytes of the
   * range are not good any more, see image_invalidate().  Called on a thread of
   * the source's, which must not wait in there.  May be NULL. */
  void (*source_changed)(void *arg);
  void (*source_invalid)(void *arg, uint64_t offset, uint64_t len);
};

/* Makes an image over `src`, which it owns from here (also on failure).
 * `name` is for messages.  0 or a negative errno. */
int image_new(struct page_cache *pc, const char *name, struct source *src,
              unsigned page_shift, const struct image_ops *ops,
              struct image **out);

/* The same, which goes on with a mirror of a process before (adopt.h): its
 * pages are those of `src`, and its epoch is the image's.  Takes `m` over, also
 * on failure. */
int image_new_over(struct page_cache *pc, const char *name, struct source *src,
                   unsigned page_shift, const struct image_ops *ops,
                   struct mirror *m, struct image **out);

/* Takes in a mirror of a process before that is over: it goes when no table of
 * it is left, and what its tables do not pin goes at once.  Takes `m` over.
 * `name` is for messages.  0 or a negative errno: its memory is left to the
 * processes that have mapped it. */
int image_new_past(struct page_cache *pc, const char *name, struct mirror *m);

/* An image whose bytes the caller brings, by image_install(); its epoch and
 * size are the caller's. */
int image_new_remote(struct page_cache *pc, const char *name, uint64_t size,
                     unsigned page_shift, uint64_t epoch, struct image **out);

/* Nobody of this process uses the image any more: no fetch, no view.  Waits for
 * a call of `changed` that is under way; none follows.  Its mirror is retired,
 * but its pages are not punched: another process that has some of them pinned
 * may read those on.  Mirrors that are still referenced live on until they are
 * not, at the longest as long as the cache: their last mirror_unref() comes
 * before page_cache_free(). */
void image_free(struct image *img);

const char *image_name(const struct image *img);
unsigned image_page_shift(const struct image *img);

/* The mirror of the image's present epoch, with a reference for the caller. */
struct mirror *image_mirror(struct image *img);

/* What its operations are called with. */
void *image_arg(const struct image *img);

/* Whether a page of its present epoch is in the cache, or is being brought in.
 */
bool image_has_pages(struct image *img);

/* Whether `m` is the present one: two loads, no lock. */
bool image_is_current(const struct image *img, const struct mirror *m);

/* Asks the source whether the image changed, and gives it a new epoch if so
 * (then `changed` runs).  Blocks on the source.  0 or a negative errno.
 * `min_interval_ms`: does nothing if the last look is younger. */
int image_refresh(struct image *img, int min_interval_ms);

/* Gives the image another source, which it owns from here (also on failure),
 * and so a new epoch (then `changed` runs).  Waits for a look that is under
 * way.  0 or a negative errno: then the old one is read on. */
int image_replace(struct image *img, struct source *src);

/* Gives the image a new epoch of the same content (then `changed` runs): those
 * that have the memory of the present one mapped see no page in it that is
 * brought in from here on.  Reads no source. */
void image_renew(struct image *img);

/* Remote images: the other side's epoch changed. */
int image_set_epoch(struct image *img, uint64_t size, uint64_t epoch);

/* Drops `count` pages from `first` on, cut at the end.  A fill in flight goes
 * to the fetches that wait for it already and is dropped then.  A page that is
 * pinned keeps its bytes for its pins, and is read without a place in the cache
 * until they have ended.  A fetch that starts after the return sees bytes read
 * after the call.  0 or a negative errno. */
int image_invalidate(struct image *img, uint64_t first, uint64_t count);

/* Starts to bring in pages first .. first+count-1 of `m`, a mirror of an image
 * that has a source; at most FETCH_MAX_PAGES.  `f` is zeroed but for what its
 * caller sets.  Without a runner its own fills are run here, on this thread:
 * then this blocks on the source, looks now and then whether the image changed,
 * and FETCH_WAIT means that pages are in flight on another thread. */
enum fetch_outcome image_fetch(struct fetch *f, struct mirror *m,
                               uint64_t first, uint32_t count);

/* Runs a fill to its end, see fill.h: reads the source, installs the pages,
 * wakes the fetches.  Blocks on the source.  If that finds its content changed,
 * the image has its new epoch before anybody wakes. */
void image_run_fill(struct fill *fill);

/* Remote images: puts the bytes of a run of pages, which lie one behind the
 * other, into mirror `m`: those that are absent, that were not invalidated
 * since `mark`, and that there is room for.  `mark` is mirror_mark() from
 * before they were asked for.  The last ones come in first, so that in a small
 * cache the first ones are those that stay. */
void image_install(struct mirror *m, uint64_t first, uint64_t count,
                   const void *bytes, uint64_t mark);

#ifdef __cplusplus
}
#endif

#endif
