#include "daemon/engine/images.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int images_init(struct images *images, uint64_t cache_size, unsigned n_most) {
  struct page_cache_options options = {.budget = cache_size, .evictor = true};
  *images = (struct images){0};
  looks_init(&images->looks);
  pending_init(&images->pending);
  images->list = calloc(n_most, sizeof *images->list);
  return images->list ? page_cache_new(&options, &images->cache) : -ENOMEM;
}

static void served_image_free(struct served_image *h) {
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
  if (!h->name || (like->path && !h->path)) {
    served_image_free(h);
    source->ops->close(source);
    return -ENOMEM;
  }
  int r =
      image_new(images->cache, h->name, source, page_shift, &ops, &h->image);
  if (r < 0)
    served_image_free(h);
  else
    images->n++;
  return r;
}

int images_make_pool(struct images *images, unsigned n_shared, int idle_ms) {
  struct pool_options options = {.n_lanes = images_look_lane(images) + 1,
                                 .n_shared = n_shared,
                                 .idle_ms = idle_ms};
  images->pool = pool_new(&options);
  if (!images->pool)
    return -ENOMEM;
  pool_set_apart(images->pool, images_invalidation_lane(images), 1);
  pool_set_apart(images->pool, images_look_lane(images), images->n);
  return 0;
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
  pool_free(images->pool);
  for (unsigned i = 0; i < images->n; i++) {
    image_free(images->list[i].image);
    served_image_free(&images->list[i]);
  }
  free(images->list);
  if (images->cache)
    page_cache_free(images->cache);
  pending_fini(&images->pending);
  looks_fini(&images->looks);
}
