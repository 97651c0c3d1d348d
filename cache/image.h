/* Images: an image has a name and a current mirror, and gets a new mirror when
 * its content changes.
 *
 * Fetches (fetch.h) and views (view.h) belong to a mirror; image_mirror()
 * returns the current one.  Any thread may call these functions. */
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
  /* The image has a new epoch.  Called on the thread that noticed it, not under
   * the cache's lock.  It must not call image_refresh().  May be NULL. */
  void (*changed)(void *arg, struct image *img);

  void *arg;

  /* The image is useless without memory for its pages, because its mirror is
   * shared with other processes.  Otherwise a limit of this process (RLIMIT_AS,
   * RLIMIT_FSIZE) makes the image slow but usable. */
  bool needs_pages;

  /* The source says that a look is due, image_refresh(); or that bytes of the
   * range are not good any more, see image_invalidate().  Called on a thread of
   * the source's, which must not wait in there.  May be NULL. */
  void (*source_changed)(void *arg);
  void (*source_invalid)(void *arg, uint64_t offset, uint64_t len);

  /* The source has a remark that people should see.  Likewise. */
  void (*source_remark)(void *arg, const char *text);
};

/* Makes an image with the source `src`, and takes ownership of it, also on
 * failure.  `name` is for messages. 0 or a negative errno. */
int image_new(struct page_cache *pc, const char *name, struct source *src,
              unsigned page_shift, const struct image_ops *ops,
              struct image **out);

/* Listens to the source from now on, and passes on what the source was told
 * since it was opened.  Before this call the source_ functions of the owner are
 * not called.  Once, before the image is refreshed. */
void image_listen(struct image *img);

/* Does the same with a mirror of an earlier process (adopt.h): its pages are
 * those of `src`, and the image has its epoch.  Takes ownership of `m`, also on
 * failure. */
int image_new_over(struct page_cache *pc, const char *name, struct source *src,
                   unsigned page_shift, const struct image_ops *ops,
                   struct mirror *m, struct image **out);

/* Adds a mirror of an earlier process whose epoch is over.  The cache punches
 * the pages that no table pins, and frees the mirror with its last table.
 * Takes ownership of `m`.  `name` is for messages. 0; or a negative errno, and
 * its memory stays with the processes that have mapped it. */
int image_new_past(struct page_cache *pc, const char *name, struct mirror *m);

/* Makes an image whose bytes the caller provides, with image_install().  The
 * caller decides its epoch and its size. */
int image_new_remote(struct page_cache *pc, const char *name, uint64_t size,
                     unsigned page_shift, uint64_t epoch, struct image **out);

/* Frees an image that nobody in this process uses any more: there is no fetch
 * and no view.  Waits until a call of `changed` in progress has ended; none
 * follows.  The mirror is retired as at the end of an epoch: the pages that
 * other processes have pinned stay until its last pin table ends.  If the
 * cache's threads have ended, no page is punched at all.  Mirrors with
 * references live until their last mirror_unref(), which must come before
 * page_cache_free(). */
void image_free(struct image *img);

unsigned image_page_shift(const struct image *img);

/* The mirror of the image's current epoch, with a reference for the caller. */
struct mirror *image_mirror(struct image *img);

/* The `arg` of its operations. */
void *image_arg(const struct image *img);

/* Whether a page of its current epoch is in the cache or being filled. */
bool image_has_pages(struct image *img);

/* Whether `m` is the current mirror.  Two loads, no lock. */
bool image_is_current(const struct image *img, const struct mirror *m);

/* Asks the source whether the image changed, and gives the image a new epoch if
 * so (then `changed` runs).  May block on the source. 0 or a negative errno.
 * Does nothing if the last check was less than `min_interval_ms` ago. */
int image_refresh(struct image *img, int min_interval_ms);

/* Gives the image another source, of which it takes ownership (also on
 * failure), and so a new epoch (then `changed` runs).  Does not wait for a
 * check in progress, whose result is then ignored.  0; or a negative errno, and
 * the old source stays. */
int image_replace(struct image *img, struct source *src);

/* Gives the image a new epoch with the same content (then `changed` runs).
 * Processes that have mapped the memory of the current epoch see no page that
 * is filled from now on.  Reads no source. */
void image_renew(struct image *img);

/* Sets the epoch of an image whose bytes the caller provides. */
int image_set_epoch(struct image *img, uint64_t size, uint64_t epoch);

/* Drops `count` pages from `first` on, cut at the image's end.  A fill in
 * flight serves the fetches that already wait for it, and is then dropped.  A
 * pinned page keeps its bytes for its pins; until they have ended, other
 * readers read it without a place in the cache.  A fetch that starts after this
 * call has returned sees bytes that were read after the call began. 0 or a
 * negative errno. */
int image_invalidate(struct image *img, uint64_t first, uint64_t count);

/* Starts to fill pages first to first + count - 1 of `m`, a mirror of an image
 * with a source; at most FETCH_MAX_PAGES.  `f` is zeroed except for the fields
 * that its caller sets.  Without a runner, this thread runs the fills that the
 * fetch begins: the call then blocks on the source and checks from time to time
 * whether the image changed, and FETCH_WAIT means that other threads are
 * filling pages. */
enum fetch_outcome image_fetch(struct fetch *f, struct mirror *m,
                               uint64_t first, uint32_t count);

/* Runs a fill until it has ended, see fill.h: reads the source, installs the
 * pages, and wakes the fetches.  Blocks on the source.  If the source's content
 * has changed, the image gets its new epoch before any fetch wakes. */
void image_run_fill(struct fill *fill);

/* For an image whose bytes the caller provides: stores the bytes of a run of
 * pages in mirror `m`, as far as the pages are absent, were not invalidated
 * since `mark`, and there is room.  `mark` is from mirror_mark(), before the
 * bytes were requested.  It stores the last pages first, so that in a small
 * cache the first pages stay. */
void image_install(struct mirror *m, uint64_t first, uint64_t count,
                   const void *bytes, uint64_t mark);

#ifdef __cplusplus
}
#endif

#endif
