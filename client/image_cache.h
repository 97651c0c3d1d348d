/* An image cache: the cache that the handles of one image share.
 *
 * cachet_copy() makes handles for several threads on one cache.  The image
 * cache is a page cache with one image in it, and with the image its source.
 * It is freed with its last handle, which closes the source.
 *
 *   S1  The page cache and the image do not change.  Any thread may use both.
 *   S2  A daemon's image has the newest epoch that its connections have heard
 *       of.  Each connection hears of epochs in order, but perhaps not of all,
 *       and one connection may be behind another.  A daemon increments its
 *       epochs, so the epochs that arrive on one connection can be ordered.
 *       Between connections, where the daemon may have restarted, an epoch that
 *       was replaced before is old.  If an old epoch is still taken for the
 *       current one, the first answer of the daemon that shows this corrects
 *       it: image_cache_replace_epoch().
 *
 * Any thread may call these functions, unless a comment says otherwise. */
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
  void *context; /* of cachet_make(); set before another thread has a handle */

  /* 1 in the process that made the image cache, 0 in its children: a page that
   * fork() clears.  Reading it is cheaper than getpid(), which is a system
   * call.  (Not volatile: it changes within a call of fork() alone.) */
  const uint8_t *alive;

  unsigned n_refs; /* atomic */

  pthread_mutex_t lock;
  uint64_t epoch;                    /* the daemon's current one; under lock */
  uint64_t past[IMAGE_CACHE_N_PAST]; /* a ring of replaced epochs; under
                                        lock */
  unsigned n_past;                   /* under lock */
};

/* Makes an image cache for a source of this process, and takes ownership of the
 * source, also on failure. */
enum cachet_status image_cache_new_local(const char *name, struct source *src,
                                         const struct options *options,
                                         struct image_cache **out,
                                         struct cachet_error *err);

/* Makes an image cache for a daemon's image. */
enum cachet_status image_cache_new_remote(const char *name, uint64_t size,
                                          unsigned page_shift, uint64_t epoch,
                                          const struct options *options,
                                          struct image_cache **out,
                                          struct cachet_error *err);

struct image_cache *image_cache_ref(struct image_cache *s);

/* Releases a reference.  The last one closes the source, on this thread.  A
 * handle that releases its reference must have no fetch and no view left. */
void image_cache_unref(struct image_cache *s);

static inline bool image_cache_is_forked(const struct image_cache *s) {
  return *s->alive == 0;
}

/* A connection has heard that the image now has `epoch`; before, it had heard
 * of `from`, or of none if that is 0. 0 or a negative errno. */
int image_cache_set_epoch(struct image_cache *s, uint64_t from, uint64_t size,
                          uint64_t epoch);

/* A connection has heard that `wrong` is not the current epoch, and before that
 * `epoch` is. 0 or a negative errno. */
int image_cache_replace_epoch(struct image_cache *s, uint64_t wrong,
                              uint64_t size, uint64_t epoch);

#ifdef __cplusplus
}
#endif

#endif
