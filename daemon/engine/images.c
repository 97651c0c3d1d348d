#include "daemon/engine/images.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int images_init(struct images *images, uint64_t cache_size, unsigned n_most,
                const struct pool_options *options) {
  struct page_cache_options cache = {.budget = cache_size, .evictor = true};
  *images = (struct images){0};
  looks_init(&images->looks);
  pending_init(&images->pending);
  images->list = calloc(n_most, sizeof *images->list);
  images->pool = pool_new(options);
  if (!images->list || !images->pool)
    return -ENOMEM;
  images->invalidation_lane = pool_lane_new(images->pool, 1, false);
  images->look_lane = pool_lane_new(images->pool, 1, false);
  if (!images->invalidation_lane || !images->look_lane)
    return -ENOMEM;
  return page_cache_new(&cache, &images->cache);
}

static void served_image_free(struct served_image *h) {
  pool_lane_free(h->lane);
  free(h->path);
  free(h->name);
}

int images_add(struct images *images, const struct served_image *like,
               struct source *source, unsigned page_shift,
               void (*changed)(void *served, struct image *image)) {
  struct served_image *h = &images->list[images->n];
  struct image_ops ops = {.changed = changed, .arg = h, .needs_pages = true};
  h->images = images;
  h->index = images->n;
  h->share = like->share;
  h->name = strdup(like->name);
  h->path = like->path ? strdup(like->path) : NULL;
  h->lost = like->missing != 0;
  atomic_init(&h->missing, like->missing);
  h->lane = pool_lane_new(images->pool, 1, true);
  if (!h->name || (like->path && !h->path) || !h->lane) {
    served_image_free(h);
    source->ops->close(source);
    return -ENOMEM;
  }
  int r =
      image_new(images->cache, h->name, source, page_shift, &ops, &h->image);
  if (r < 0)
    served_image_free(h);
  else
    pool_lane_set_own(images->look_lane, ++images->n);
  return r;
}

struct served_image *images_find(const struct images *images,
                                 const char *name) {
  for (unsigned i = 0; i < images->n; i++)
    if (strcmp(images->list[i].name, name) == 0)
      return &images->list[i];
  return NULL;
}

void images_stop_evicting(struct images *images) {
  if (images->cache)
    page_cache_stop_threads(images->cache);
}

void images_fini(struct images *images) {
  for (unsigned i = 0; i < images->n; i++) {
    image_free(images->list[i].image);
    served_image_free(&images->list[i]);
  }
  free(images->list);
  pool_lane_free(images->invalidation_lane);
  pool_lane_free(images->look_lane);
  pool_free(images->pool);
  if (images->cache)
    page_cache_free(images->cache);
  pending_fini(&images->pending);
  looks_fini(&images->looks);
}
