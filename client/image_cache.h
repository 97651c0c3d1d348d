/* A image cache: what the handles of one image share.
 *
 * cachet_copy() gives handles for several threads on one cache.  The image
 * cache is that cache: a page cache with one image in it, and with the image
 * its source.  It goes with its last handle, and the source is closed then.
 *
 *   S1  The page cache and the image are fixed; both may be used from any
 *       thread.
 *   S2  A daemon's image is at the newest epoch that its connections heard of.
 *       Each connection hears of epochs in order, perhaps not of all, and one
 *       may lag behind another.  A daemon counts its epochs upwards, so on one
 *       connection they can be told apart by age; between connections, where a
 *       daemon may have been started anew, an epoch that was left is old.
 *       What slips through all that is put right by the first answer that says
 *       so: image_cache_replace_epoch().
 *
 * Any thread, unless said otherwise. */
#ifndef CLIENT_IMAGE_CACHE_H
#define CLIENT_IMAGE_CACHE_H

#include <pthread.h>

#include "cache/image.h"
#include "cache/page_cache.h"
#include "client/options.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { IMAGE_CACHE_N_PAST = 32 };

struct image_cache {
  struct page_cache *cache;
  struct image *image;
  char *name;    /* for messages */
  void *context; /* of cachet_make(); set before a second thread has a handle */

  /* 1 in the process that made the image cache, 0 in its children: a page that
   * fork() wipes.  Cheaper to ask than getpid(), which costs a system call. */
  const volatile uint8_t *alive;

  unsigned n_refs; /* atomic */

  pthread_mutex_t lock;
  uint64_t epoch;                    /* the daemon's present one; under lock */
  uint64_t past[IMAGE_CACHE_N_PAST]; /* a ring of epochs that were left; under
                                        lock */
  unsigned n_past;                   /* under lock */
};

/* A image cache over a source of this process, which it owns from here (also on
 * failure). */
enum cachet_status image_cache_new_local(const char *name, struct source *src,
                                         const struct options *options,
                                         struct image_cache **out,
                                         struct cachet_error *err);

/* A image cache for a daemon's image. */
enum cachet_status image_cache_new_remote(const char *name, uint64_t size,
                                          unsigned page_shift, uint64_t epoch,
                                          const struct options *options,
                                          struct image_cache **out,
                                          struct cachet_error *err);

struct image_cache *image_cache_ref(struct image_cache *s);

/* With the last reference the source is closed, on this thread.  No fetch and
 * no view may be left of a handle that gives its reference back. */
void image_cache_unref(struct image_cache *s);

static inline bool image_cache_is_forked(const struct image_cache *s) {
  return *s->alive == 0;
}

/* A connection heard that the image is at `epoch` now; before, it had heard of
 * `from`, or, 0, of none.  0 or a negative errno. */
int image_cache_set_epoch(struct image_cache *s, uint64_t from, uint64_t size,
                          uint64_t epoch);

/* A connection heard that `wrong` is not the present epoch, and before, that
 * `epoch` is.  0 or a negative errno. */
int image_cache_replace_epoch(struct image_cache *s, uint64_t wrong,
                              uint64_t size, uint64_t epoch);

#ifdef __cplusplus
}
#endif

#endif
