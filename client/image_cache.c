#include "client/image_cache.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "client/error.h"

static size_t alive_len(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static int alive_map(struct image_cache *s) {
  uint8_t *page = mmap(NULL, alive_len(), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED)
    return -errno;
  s->alive = page;
  if (madvise(page, alive_len(), MADV_WIPEONFORK) < 0)
    return -errno;
  *page = 1;
  return 0;
}

/* Also frees one that was made half way. */
static void image_cache_free(struct image_cache *s) {
  if (s->image)
    image_free(s->image);
  if (s->cache)
    page_cache_free(s->cache);
  if (s->alive)
    munmap((void *)(uintptr_t)s->alive, alive_len());
  pthread_mutex_destroy(&s->lock);
  free(s->name);
  free(s);
}

CLEANUP_FUNCTION(struct image_cache *, image_cache_free)

static int image_cache_make(const char *name, const struct options *options,
                            struct image_cache **out) {
  CLEANUP(image_cache_freep) struct image_cache *s = calloc(1, sizeof *s);
  if (!s)
    return -ENOMEM;
  lock_init(&s->lock);
  s->n_refs = 1;
  struct page_cache_options cache = {.budget = options->cache_size};
  int r = alive_map(s);
  if (r == 0) {
    s->name = strdup(name);
    r = s->name ? page_cache_new(&cache, &s->cache) : -ENOMEM;
  }
  if (r < 0)
    return r;
  *out = STEAL(s);
  return 0;
}

static enum cachet_status cannot_cache(struct cachet_error *err,
                                       const char *name, uint64_t size, int r) {
  char limit[128];
  if (r == -EFBIG) {
    mirror_print_limit(size, limit, sizeof limit);
    return error_set(err, error_from_errno(EFBIG), EFBIG,
                     "image \"%.60s\": make a cache: %s", name, limit);
  }
  return error_set(err, error_from_errno(-r), -r,
                   "image \"%.100s\": make a cache", name);
}

enum cachet_status image_cache_new_local(const char *name, struct source *src,
                                         const struct options *options,
                                         struct image_cache **out,
                                         struct cachet_error *err) {
  CLEANUP(image_cache_freep) struct image_cache *s = NULL;
  struct image_ops ops = {0};
  uint64_t size = src->size;
  int r = image_cache_make(name, options, &s);
  if (r < 0)
    src->ops->close(src);
  else
    r = image_new(s->cache, name, src, options->page_shift, &ops, &s->image);
  if (r < 0)
    return cannot_cache(err, name, size, r);
  *out = STEAL(s);
  return CACHET_OK;
}

enum cachet_status image_cache_new_remote(const char *name, uint64_t size,
                                          unsigned page_shift, uint64_t epoch,
                                          const struct options *options,
                                          struct image_cache **out,
                                          struct cachet_error *err) {
  CLEANUP(image_cache_freep) struct image_cache *s = NULL;
  int r = image_cache_make(name, options, &s);
  if (r == 0)
    r = image_new_remote(s->cache, name, size, page_shift, epoch, &s->image);
  if (r < 0)
    return cannot_cache(err, name, size, r);
  s->epoch = epoch;
  *out = STEAL(s);
  return CACHET_OK;
}

struct image_cache *image_cache_ref(struct image_cache *s) {
  /* Relaxed: the caller has a reference, and may make another. */
  __atomic_fetch_add(&s->n_refs, 1, __ATOMIC_RELAXED);
  return s;
}

void image_cache_unref(struct image_cache *s) {
  /* Acquire and release: what other threads did to the image cache happens
   * before the last one frees it. */
  unsigned before = __atomic_fetch_sub(&s->n_refs, 1, __ATOMIC_ACQ_REL);
  assert(before > 0);
  if (before == 1)
    image_cache_free(s);
}

static bool epoch_was_left_locked(const struct image_cache *s, uint64_t epoch) {
  lock_assert_held(&s->lock);
  for (unsigned i = 0; i < s->n_past && i < IMAGE_CACHE_N_PAST; i++)
    if (s->past[i] == epoch)
      return true;
  return false;
}

static int set_epoch_locked(struct image_cache *s, uint64_t size,
                            uint64_t epoch) {
  lock_assert_held(&s->lock);
  int r = image_set_epoch(s->image, size, epoch);
  if (r == 0) {
    s->past[s->n_past++ % IMAGE_CACHE_N_PAST] = s->epoch;
    s->epoch = epoch;
  }
  return r;
}

int image_cache_set_epoch(struct image_cache *s, uint64_t from, uint64_t size,
                          uint64_t epoch) {
  int r = 0;
  pthread_mutex_lock(&s->lock);
  /* The daemon's count may wrap, so differences are compared. */
  bool leads =
      from ? s->epoch - from < epoch - from : !epoch_was_left_locked(s, epoch);
  if (epoch != s->epoch && leads)
    r = set_epoch_locked(s, size, epoch);
  pthread_mutex_unlock(&s->lock);
  return r;
}

int image_cache_replace_epoch(struct image_cache *s, uint64_t wrong,
                              uint64_t size, uint64_t epoch) {
  int r = 0;
  pthread_mutex_lock(&s->lock);
  if (epoch != s->epoch && s->epoch == wrong)
    r = set_epoch_locked(s, size, epoch);
  pthread_mutex_unlock(&s->lock);
  return r;
}
