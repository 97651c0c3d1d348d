/* The images that are served, the page cache behind them, and the pool that
 * reads for it.  Made before threads run and fixed while they do, but for what
 * says otherwise. */
#ifndef DAEMON_ENGINE_IMAGES_H
#define DAEMON_ENGINE_IMAGES_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/image.h"
#include "cache/page_cache.h"
#include "daemon/engine/looks.h"
#include "daemon/engine/pending.h"
#include "daemon/engine/pool.h"

struct images;

/* An image that is served. */
struct served_image {
  struct images *images;
  unsigned index; /* in images.list */
  char *name;
  struct image *image;
  struct pool_lane *lane;    /* for its reads that block */
  bool share;                /* local clients may attach */
  bool looking;              /* is being looked at; under looks.lock */
  bool lost;                 /* the last look failed; the job that looks */
  atomic_int missing;        /* an errno: it could not be opened so far; 0: it
                                is there, for good.  Relaxed: it orders
                                nothing, and may be seen late */
  char *path;                /* while it is missing, for messages; or NULL */
  _Atomic uint64_t n_epochs; /* relaxed: a statistic */
};

struct images {
  struct page_cache *cache;
  struct served_image *list;
  unsigned n;
  struct pool *pool;
  /* Invalidations read no source, and so must not queue behind fills; and they
   * take much of a processor, and so have one thread. */
  struct pool_lane *invalidation_lane;
  /* A look that hangs takes no thread that reads. */
  struct pool_lane *look_lane;
  struct looks looks;
  struct pending pending;
};

/* Makes the page cache, with its threads, the pool, which is not started, and
 * room for `n_most` images.  0 or a negative errno; either way images_fini() is
 * due. */
int images_init(struct images *images, uint64_t cache_size, unsigned n_most,
                const struct pool_options *options);

/* Adds an image; there is room.  `like` says its name, path, share and missing:
 * the strings are copied.  The source is taken over, also on failure. `changed`
 * is called with the served image, on any thread, when it has a new epoch.  0
 * or a negative errno. */
int images_add(struct images *images, const struct served_image *like,
               struct source *source, unsigned page_shift,
               void (*changed)(void *served, struct image *image));

/* The image of that name, or NULL. */
struct served_image *images_find(const struct images *images, const char *name);

/* Nothing is evicted from here on.  A cache that was not made is fine. */
void images_stop_evicting(struct images *images);

/* No thread uses them any more. */
void images_fini(struct images *images);

#endif
