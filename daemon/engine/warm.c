#include "daemon/engine/warm.h"

#include <stdlib.h>

#include "base/container_of.h"
#include "cache/fetch.h"
#include "daemon/engine/images.h"
#include "daemon/log.h"

enum {
  PIECE_LEN = 1 << 20,
  /* The part of the cache that is left for what clients ask for. */
  ROOM_PART = 16,
};

struct warm {
  struct pool_job job;
  struct served_image *image; /* referenced, as is the mirror */
  struct mirror *mirror;
  uint64_t next; /* page */
  uint32_t count;
  struct fetch fetch;
};

static void warm_end(struct warm *w, const char *reason) {
  log_event(LEVEL_INFO, "image-warmed", LOG_TEXT("image", w->image->name),
            LOG_NUMBER("pages", w->next), LOG_TEXT("reason", reason));
  mirror_unref(w->mirror);
  images_unref(w->image);
  free(w);
}

static uint32_t piece_pages(const struct warm *w) {
  const struct mirror *m = w->mirror;
  uint64_t most = PIECE_LEN >> m->page_shift, left = m->n_pages - w->next;
  if (most > FETCH_MAX_PAGES)
    most = FETCH_MAX_PAGES;
  if (most < 1)
    most = 1;
  return (uint32_t)(left < most ? left : most);
}

static bool has_room(const struct warm *w) {
  struct page_cache_stats pc;
  page_cache_get_stats(w->image->images->cache, &pc);
  uint64_t most = pc.budget - pc.budget / ROOM_PART;
  uint64_t len = (uint64_t)w->count << w->mirror->page_shift;
  return pc.used < most && len <= most - pc.used;
}

/* Why there is no next piece; NULL: there is one. */
static const char *find_end(struct warm *w) {
  if (w->next == w->mirror->n_pages)
    return "all of it";
  w->count = piece_pages(w);
  if (atomic_load_explicit(&w->image->removed, memory_order_relaxed) ||
      !image_is_current(w->image->image, w->mirror))
    return "the image is another";
  return has_room(w) ? NULL : "the cache is full";
}

/* The pool takes no jobs once it stops. */
static void warm_submit(struct warm *w) {
  struct images *images = w->image->images;
  pthread_mutex_lock(&images->lock);
  bool stopped = images->stopped;
  if (!stopped)
    pool_submit(w->image->lane, &w->job);
  pthread_mutex_unlock(&images->lock);
  if (stopped)
    warm_end(w, "the daemon stops");
}

static void warm_fetched(struct fetch *f) {
  struct warm *w = container_of(f, struct warm, fetch);
  int status = f->status;
  fetch_fini(f);
  if (status < 0) {
    warm_end(w, "a page cannot be read");
    return;
  }
  w->next += w->count;
  warm_submit(w);
}

static void warm_run(struct pool_job *job) {
  struct warm *w = container_of(job, struct warm, job);
  const char *end = find_end(w);
  if (end) {
    warm_end(w, end);
    return;
  }
  w->fetch = (struct fetch){.done = warm_fetched};
  if (image_fetch(&w->fetch, w->mirror, w->next, w->count) == FETCH_READY)
    warm_fetched(&w->fetch);
}

static void warm_abandon(struct pool_job *job) {
  warm_end(container_of(job, struct warm, job), "the daemon stops");
}

void warm_begin(struct served_image *h) {
  struct warm *w = calloc(1, sizeof *w);
  if (!w)
    return;
  images_ref(h);
  w->image = h;
  w->mirror = image_mirror(h->image);
  w->job = (struct pool_job){.run = warm_run, .abandon = warm_abandon};
  warm_submit(w);
}
