/* Images: a name, a present mirror, and how it gets a new one.
 *
 *   I1  `mirror` is the only mirror of the image that is not retired.
 *   I2  `generation` has moved before any page that was read earlier is
 *       dropped or any epoch is over, so who reads it before he asks for
 *       bytes, and again when he has them, knows whether they may be stale. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "cache/page_cache_impl.h"

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- Mirrors of an image ------------------------------------------------- */

/* A mirror that is not the image's yet.  It takes a reference to `src`. */
static int make_mirror(struct image *img, struct source *src, uint64_t size,
                       uint64_t epoch, struct mirror **out) {
  struct mirror *m;
  bool membarrier = img->cache->membarrier;
  int r = mirror_new(size, img->page_shift, epoch, membarrier, &m);
  /* Where the caller brings the bytes it can do without a place for them: a
   * limit (RLIMIT_AS, RLIMIT_FSIZE) costs speed, not the image. */
  if (r < 0 && !src)
    r = mirror_new_empty(size, img->page_shift, epoch, &m);
  if (r < 0)
    return r;
  r = mirror_attach(img->cache, img, m);
  if (r < 0) {
    mirror_free(m);
    return r;
  }
  if (src)
    __atomic_fetch_add(&src->n_refs, 1, __ATOMIC_RELAXED);
  m->source = src;
  *out = m;
  return 0;
}

/* What a mirror takes before its first fill: a page each of its header, words
 * and touched bytes. */
#define NEW_MIRROR_LEN (3 * 4096u)

/* make_mirror() beside `old`, from whose account the room is taken.  Where
 * nothing can go it goes without. */
static int make_mirror_beside(struct mirror *old, struct source *src,
                              uint64_t size, uint64_t epoch,
                              struct mirror **out) {
  struct image *img = old->image;
  bool has_room = old->base && budget_reserve(img->cache, old, NEW_MIRROR_LEN);
  int r = make_mirror(img, src, size, epoch, out);
  if (r == 0 && (*out)->base)
    budget_recharge(*out);
  if (has_room)
    budget_release(img->cache, NEW_MIRROR_LEN);
  return r;
}

/* Puts `m` in the place of `old`, which is retired, its unpinned pages with it.
 * NULL: there is no memory for a successor now, see image_mirror().  False if
 * `old` is not current: then nothing. */
static bool replace_mirror(struct image *img, struct mirror *old,
                           struct mirror *m) {
  struct page_cache *pc = img->cache;
  pthread_mutex_lock(&pc->lock);
  bool current = img->mirror == old;
  if (current) {
    __atomic_fetch_add(&img->generation, 1, __ATOMIC_RELEASE);
    if (m)
      __atomic_store_n(&img->mirror, m, __ATOMIC_RELEASE);
    __atomic_store_n(&old->header->retired, 1, __ATOMIC_RELEASE);
    old->evicting++; /* the janitor keeps off until all is taken */
    pc->stats.n_epochs++;
  }
  pthread_mutex_unlock(&pc->lock);
  if (!current)
    return false;
  evict_range(pc, old, 0, old->n_pages);
  /* Who waits for a verdict on a page that stays EVICTING looks again, and
   * finds the mirror retired. */
  pthread_mutex_lock(&pc->lock);
  old->evicting--;
  struct fetch *woken = verdicts_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  fetches_done(woken);
  if (m && img->ops.changed)
    img->ops.changed(img->ops.arg, img);
  if (m)
    mirror_unref(old);
  return true;
}

static uint64_t take_epoch(struct image *img) {
  pthread_mutex_lock(&img->cache->lock);
  uint64_t epoch = img->next_epoch++;
  pthread_mutex_unlock(&img->cache->lock);
  return epoch;
}

/* The epoch of a mirror of the same version, all absent.  Where the caller
 * brings the bytes it is the other side's, and only that side changes it. */
static uint64_t twin_epoch(struct image *img, const struct mirror *old) {
  return old->source ? take_epoch(img) : old->epoch;
}

void image_renew(struct image *img, struct mirror *old) {
  struct mirror *m = NULL;
  /* Not beside it: this is called while evicting. */
  make_mirror(img, old->source, old->size, twin_epoch(img, old), &m);
  if (!replace_mirror(img, old, m))
    mirror_unref(m);
}

/* ---- Life ---------------------------------------------------------------- */

static int make_image(struct page_cache *pc, const char *name,
                      unsigned page_shift, struct image **out) {
  if (page_shift < PAGE_SHIFT_MIN || page_shift > PAGE_SHIFT_MAX)
    return -EINVAL;
  struct image *img = calloc(1, sizeof *img);
  if (!img)
    return -ENOMEM;
  img->cache = pc;
  img->page_shift = page_shift;
  img->n_refs = 1;
  img->looked_ms = now_ms();
  pthread_mutex_init(&img->refresh_lock, NULL);
  img->name = strdup(name);
  if (!img->name) {
    image_unref(img);
    return -ENOMEM;
  }
  *out = img;
  return 0;
}

int image_new(struct page_cache *pc, const char *name, struct source *src,
              unsigned page_shift, const struct image_ops *ops,
              struct image **out) {
  struct image *img = NULL;
  src->n_refs = 1; /* ours, until a mirror holds it */
  int r = make_image(pc, name, page_shift, &img);
  if (r == 0 && getrandom(&img->next_epoch, sizeof img->next_epoch, 0) !=
                    (ssize_t)sizeof img->next_epoch)
    r = -EIO;
  if (r == 0) {
    img->ops = *ops;
    r = make_mirror(img, src, src->size, take_epoch(img), &img->mirror);
  }
  source_unref(src);
  if (r < 0) {
    if (img)
      image_unref(img);
    return r;
  }
  *out = img;
  return 0;
}

int image_new_remote(struct page_cache *pc, const char *name, uint64_t size,
                     unsigned page_shift, uint64_t epoch, struct image **out) {
  struct image *img = NULL;
  int r = make_image(pc, name, page_shift, &img);
  if (r == 0)
    r = make_mirror(img, NULL, size, epoch, &img->mirror);
  if (r < 0) {
    if (img)
      image_unref(img);
    return r;
  }
  *out = img;
  return 0;
}

/* Takes a mirror's pages out of the policy: nobody evicts them any more. */
static void forget_pages(struct page_cache *pc, struct mirror *m) {
  for (uint64_t page = mirror_next_words(m, 0); page < m->n_pages;
       page = mirror_next_words(m, page)) {
    pthread_mutex_lock(&pc->lock);
    for (unsigned i = 0; i < 4096 && page < m->n_pages; i++, page++)
      if (residency_look(&m->words[page]) == PAGE_RESIDENT)
        policy_remove(&pc->policy, policy_key(m->id, page));
    pthread_mutex_unlock(&pc->lock);
  }
}

void image_free(struct image *img) {
  if (!img)
    return;
  struct page_cache *pc = img->cache;
  struct mirror *m = img->mirror;
  pthread_mutex_lock(&pc->lock);
  __atomic_store_n(&img->mirror, NULL, __ATOMIC_RELEASE);
  m->abandoned = true;
  pthread_mutex_unlock(&pc->lock);
  forget_pages(pc, m);
  mirror_unref(m);
  image_unref(img);
}

void image_unref(struct image *img) {
  if (__atomic_sub_fetch(&img->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  pthread_mutex_destroy(&img->refresh_lock);
  free(img->name);
  free(img);
}

const char *image_name(const struct image *img) { return img->name; }

unsigned image_page_shift(const struct image *img) { return img->page_shift; }

static struct mirror *present_mirror(struct image *img) {
  pthread_mutex_lock(&img->cache->lock);
  struct mirror *m = mirror_ref(img->mirror);
  pthread_mutex_unlock(&img->cache->lock);
  return m;
}

struct mirror *image_mirror(struct image *img) {
  struct mirror *m = present_mirror(img);
  if (mirror_is_retired(m)) { /* there was no memory for its successor */
    image_renew(img, m);
    mirror_unref(m);
    m = present_mirror(img);
  }
  return m;
}

bool image_is_current(const struct image *img, const struct mirror *m) {
  return __atomic_load_n(&img->mirror, __ATOMIC_ACQUIRE) == m &&
         !mirror_is_retired(m);
}

uint64_t image_generation(const struct image *img) {
  return __atomic_load_n(&img->generation, __ATOMIC_ACQUIRE);
}

/* ---- Change -------------------------------------------------------------- */

static int refresh_locked(struct image *img) {
  struct mirror *old = image_mirror(img);
  struct source *src = NULL;
  int r = 0;
  if (old->source && old->source->ops->reopen)
    r = old->source->ops->reopen(old->source, &src);
  if (src) {
    struct mirror *m;
    src->n_refs = 1;
    r = make_mirror_beside(old, src, src->size, take_epoch(img), &m);
    if (r == 0 && !replace_mirror(img, old, m))
      mirror_unref(m);
    source_unref(src);
  }
  mirror_unref(old);
  return r;
}

int image_refresh(struct image *img, int min_interval_ms) {
  int r = 0;
  pthread_mutex_lock(&img->refresh_lock);
  int64_t now = now_ms();
  if (now - img->looked_ms >= min_interval_ms) {
    img->looked_ms = now;
    r = refresh_locked(img);
  }
  pthread_mutex_unlock(&img->refresh_lock);
  return r;
}

int image_set_epoch(struct image *img, uint64_t size, uint64_t epoch) {
  struct mirror *old = image_mirror(img);
  int r = 0;
  if (old->epoch != epoch) {
    struct mirror *m;
    r = make_mirror(img, NULL, size, epoch, &m);
    if (r == 0 && !replace_mirror(img, old, m))
      mirror_unref(m);
  }
  mirror_unref(old);
  return r;
}

int image_invalidate(struct image *img, uint64_t first, uint64_t count) {
  struct page_cache *pc = img->cache;
  struct mirror *m = image_mirror(img), *spare = NULL;
  int r = 0;
  if (first >= m->n_pages || count == 0)
    goto out;
  if (count > m->n_pages - first)
    count = m->n_pages - first;
  /* In case a page is pinned; made beforehand, since once pages are EVICTING
   * it is too late to fail. */
  r = make_mirror_beside(m, m->source, m->size, twin_epoch(img, m), &spare);
  if (r < 0)
    goto out;
  struct invalidation_entry inv;
  pthread_mutex_lock(&pc->lock);
  __atomic_fetch_add(&img->generation, 1, __ATOMIC_RELEASE);
  invalidation_begin_locked(&m->header->log, &m->invalidations, &inv, first,
                            count);
  fills_mark_stale_locked(pc, m, first, count);
  pthread_mutex_unlock(&pc->lock);
  if (evict_range(pc, m, first, count) > 0 && replace_mirror(img, m, spare))
    spare = NULL;
  pthread_mutex_lock(&pc->lock);
  invalidation_end_locked(&m->header->log, &m->invalidations, &inv);
  pthread_mutex_unlock(&pc->lock);
out:
  mirror_unref(spare);
  mirror_unref(m);
  return r;
}
