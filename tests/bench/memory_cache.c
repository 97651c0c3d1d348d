#include "tests/bench/memory_cache.h"

#include <semaphore.h>
#include <string.h>

#include "cache/fetch.h"
#include "tests/bench/rig.h"

void memory_cache_check(int r, const char *what) {
  if (r < 0)
    rig_fail("%s: %s", what, strerror(-r));
}

static int read_memory(struct source *src, uint64_t offset, void *buf,
                       size_t len) {
  (void)src;
  memset(buf, 1 + (int)(offset / RIG_PAGE) % 255, len);
  return 0;
}

static void close_memory(struct source *src) { (void)src; }

static const struct source_ops memory_ops = {
    .kind = "memory", .read = read_memory, .close = close_memory};

void memory_cache_open(struct memory_cache *c, unsigned page_shift,
                       uint64_t n_cached, uint64_t n_pages,
                       void (*thread_began)(bool is_evictor)) {
  const struct page_cache_options options = {.budget = n_cached << page_shift,
                                             .evictor = true,
                                             .thread_began = thread_began};
  const struct image_ops ops = {.needs_pages = true};
  *c = (struct memory_cache){
      .source = {.ops = &memory_ops, .size = n_pages << page_shift},
      .page_shift = page_shift,
      .n_pages = n_pages,
      .random = 7};
  memory_cache_check(page_cache_new(&options, &c->cache), "cache");
  memory_cache_check(
      image_new(c->cache, "memory", &c->source, page_shift, &ops, &c->image),
      "image");
  c->mirror = image_mirror(c->image);
}

void memory_cache_close(struct memory_cache *c) {
  mirror_unref(c->mirror);
  image_free(c->image);
  page_cache_free(c->cache);
}

struct waiting {
  struct fetch fetch; /* first */
  sem_t done;
};

static void fetch_done(struct fetch *f) {
  sem_post(&((struct waiting *)f)->done);
}

void memory_cache_miss(struct memory_cache *c, uint32_t n_pages) {
  struct waiting w = {.fetch.done = fetch_done};
  uint64_t first = rig_random(&c->random) % (c->n_pages / n_pages) * n_pages;
  sem_init(&w.done, 0, 0);
  if (image_fetch(&w.fetch, c->mirror, first, n_pages) == FETCH_WAIT)
    while (sem_wait(&w.done) < 0) /* a signal */
      ;
  memory_cache_check(w.fetch.status, "fetch");
  fetch_fini(&w.fetch);
  sem_destroy(&w.done);
}
