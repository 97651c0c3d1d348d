#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "cache/barrier.h"
#include "cache/internal.h"

/* ---- The cache ----------------------------------------------------------- */

/* Both or none.  0 or a negative errno. */
static int start_threads(struct page_cache *pc) {
  int r = pthread_create(&pc->evictor, NULL, evictor_main, pc);
  if (r)
    return -r;
  r = pthread_create(&pc->reclaimer, NULL, reclaimer_main, pc);
  if (r) {
    pthread_mutex_lock(&pc->lock);
    pc->stop = true;
    pthread_cond_signal(&pc->wanted);
    pthread_mutex_unlock(&pc->lock);
    pthread_join(pc->evictor, NULL);
    return -r;
  }
  fill_buffers_init(&pc->buffers);
  pthread_mutex_lock(&pc->lock);
  pc->has_threads = true;
  pthread_mutex_unlock(&pc->lock);
  return 0;
}

int page_cache_new(const struct page_cache_options *options,
                   struct page_cache **out) {
  struct page_cache *pc = calloc(1, sizeof *pc);
  if (!pc)
    return -ENOMEM;
  if (s3fifo_init(&pc->policy, options->budget >> PAGE_SHIFT_MIN) < 0) {
    free(pc);
    return -ENOMEM;
  }
  pc->budget = options->budget;
  pc->limit = budget_limit(options->budget);
  pc->membarrier = barrier_register();
  pthread_mutex_init(&pc->lock, NULL);
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&pc->wanted, &attr);
  pthread_cond_init(&pc->reclaim.wake, &attr);
  pthread_cond_init(&pc->reclaim.ended, &attr);
  pthread_condattr_destroy(&attr);
  int r = options->evictor ? start_threads(pc) : 0;
  if (r < 0) {
    page_cache_free(pc);
    return r;
  }
  *out = pc;
  return 0;
}

void page_cache_stop_threads(struct page_cache *pc) {
  if (!pc->has_threads)
    return;
  pthread_mutex_lock(&pc->lock);
  pc->stop = true;
  pthread_cond_signal(&pc->wanted);
  pthread_cond_signal(&pc->reclaim.wake);
  pthread_mutex_unlock(&pc->lock);
  pthread_join(pc->evictor, NULL);
  pthread_join(pc->reclaimer, NULL);
  pthread_mutex_lock(&pc->lock);
  pc->has_threads = false;
  pthread_mutex_unlock(&pc->lock);
  reclaim_finish(pc);
}

void page_cache_free(struct page_cache *pc) {
  if (!pc)
    return;
  page_cache_stop_threads(pc);
  for (uint32_t i = 0; i < pc->n_mirrors; i++)
    assert(!pc->mirrors[i]);
  assert(!pc->fills && pc->used == 0 && pc->leased == 0);
  free(pc->mirrors);
  fill_buffers_fini(&pc->buffers);
  s3fifo_fini(&pc->policy);
  pthread_cond_destroy(&pc->wanted);
  pthread_cond_destroy(&pc->reclaim.wake);
  pthread_cond_destroy(&pc->reclaim.ended);
  pthread_mutex_destroy(&pc->lock);
  free(pc);
}

void page_cache_get_stats(struct page_cache *pc, struct page_cache_stats *out) {
  pthread_mutex_lock(&pc->lock);
  *out = pc->stats;
  out->budget = pc->budget;
  out->used = pc->used;
  pthread_mutex_unlock(&pc->lock);
}

uint64_t page_cache_allocated(struct page_cache *pc) {
  uint64_t sum = 0;
  pthread_mutex_lock(&pc->lock);
  for (uint32_t i = 0; i < pc->n_mirrors; i++)
    if (pc->mirrors[i])
      sum +=
          mirror_page_bytes(pc->mirrors[i]) + mirror_meta_bytes(pc->mirrors[i]);
  pthread_mutex_unlock(&pc->lock);
  return sum;
}

/* ---- Mirrors of the cache ------------------------------------------------ */

static int slot_for_locked(struct page_cache *pc, uint32_t *out) {
  for (uint32_t i = 0; i < pc->n_mirrors; i++)
    if (!pc->mirrors[i]) {
      *out = i;
      return 0;
    }
  uint32_t n = pc->n_mirrors ? 2 * pc->n_mirrors : 4;
  struct mirror **grown = realloc(pc->mirrors, n * sizeof(*grown));
  if (!grown)
    return -ENOMEM;
  *out = pc->n_mirrors;
  for (uint32_t i = pc->n_mirrors; i < n; i++)
    grown[i] = NULL;
  pc->mirrors = grown;
  pc->n_mirrors = n;
  return 0;
}

int mirror_attach(struct page_cache *pc, struct image *img, struct mirror *m) {
  pthread_mutex_lock(&pc->lock);
  int r = slot_for_locked(pc, &m->id);
  if (r == 0) {
    pc->mirrors[m->id] = m;
    m->cache = pc;
    m->image = img;
    budget_add_mirror_locked(m);
    __atomic_fetch_add(&img->n_refs, 1, __ATOMIC_RELAXED);
  }
  pthread_mutex_unlock(&pc->lock);
  return r;
}

struct mirror *mirror_ref(struct mirror *m) {
  __atomic_fetch_add(&m->n_refs, 1, __ATOMIC_RELAXED);
  return m;
}

bool mirror_ref_live(struct mirror *m) {
  unsigned n = __atomic_load_n(&m->n_refs, __ATOMIC_RELAXED);
  while (n > 0)
    if (__atomic_compare_exchange_n(&m->n_refs, &n, n + 1, false,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return true;
  return false;
}

void source_unref(struct source *src) {
  if (src && __atomic_sub_fetch(&src->n_refs, 1, __ATOMIC_ACQ_REL) == 0)
    src->ops->close(src);
}

void mirror_unref(struct mirror *m) {
  /* Release our use of it; acquire everybody's before we free it. */
  if (!m || __atomic_sub_fetch(&m->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  if (m->cache)
    reclaim_dead(m);
  else
    m->released(m);
}

void mirror_end(struct mirror *m) {
  struct page_cache *pc = m->cache;
  struct image *img = m->image;
  struct source *src = m->source;
  pthread_mutex_lock(&pc->lock);
  assert(!m->tables && pc->mirrors[m->id] == m);
  pc->mirrors[m->id] = NULL;
  budget_remove_mirror_locked(m);
  pthread_mutex_unlock(&pc->lock);
  mirror_free(m);
  source_unref(src);
  image_unref(img);
}

/* ---- Views --------------------------------------------------------------- */

/* All range slots together: an eighth of the cache. */
static uint32_t range_capacity(const struct page_cache *pc, unsigned shift) {
  uint64_t pages = (pc->budget >> shift) / 8 / PIN_N_RANGE_SLOTS;
  if (pages < 1)
    return 1;
  return pages < PIN_MAX_COUNT ? (uint32_t)pages : PIN_MAX_COUNT;
}

void pin_table_list(struct pin_table *t) {
  struct mirror *m = t->mirror;
  pthread_mutex_lock(&m->cache->lock);
  t->next = m->tables;
  t->link = &m->tables;
  if (t->next)
    t->next->link = &t->next;
  m->tables = t;
  pthread_mutex_unlock(&m->cache->lock);
}

void pin_table_unlist(struct pin_table *t) {
  struct page_cache *pc = t->mirror->cache;
  pthread_mutex_lock(&pc->lock);
  *t->link = t->next;
  if (t->next)
    t->next->link = t->link;
  pthread_mutex_unlock(&pc->lock);
}

struct view view_of(const struct mirror *m, struct pin_table *t) {
  return (struct view){
      .base = m->base,
      .words = m->words,
      .touched = m->touched,
      .slots = t->slots,
      .table = t,
      .fence = !m->header->membarrier,
  };
}

void mirror_unmap_unread(struct mirror *m) {
  const uint8_t *base = NULL;
  pthread_mutex_lock(&m->cache->lock);
  if (m->n_views == 0 && mirror_is_retired(m)) {
    base = m->base;
    m->base = NULL;
  }
  pthread_mutex_unlock(&m->cache->lock);
  mirror_unmap_pages(m, base);
}

/* A table in this process's own memory. */
struct local_table {
  struct pin_table table;
  uint64_t slots[PIN_N_SLOTS] __attribute__((aligned(64)));
};

/* Maps the pages for the first view.  Where the caller brings the bytes, or
 * reads the source itself, it can do without a place for them: a limit on
 * address space costs speed, not the image.  False: it cannot, since other
 * processes read them. */
static bool map_for_view(struct mirror *m) {
  struct page_cache *pc = m->cache;
  if (m->is_pageless)
    return true;
  const uint8_t *base = mirror_map_pages(m), *spare = base;
  pthread_mutex_lock(&pc->lock);
  if (!m->base && base) {
    m->base = base;
    spare = NULL;
  } else if (!m->base && !m->image->ops.submit) {
    m->is_pageless = true; /* nothing is there yet: nobody could read it */
  }
  bool is_open = m->base || m->is_pageless;
  m->n_views += is_open;
  pthread_mutex_unlock(&pc->lock);
  mirror_unmap_pages(m, spare);
  return is_open;
}

int view_open(struct view *v, struct mirror *m) {
  struct local_table *local = aligned_alloc(64, sizeof *local);
  if (!local)
    return -ENOMEM;
  if (!map_for_view(m)) {
    free(local);
    return -ENOMEM;
  }
  *local = (struct local_table){
      .table = {.slots = local->slots,
                .mirror = mirror_ref(m),
                .page_slots = PIN_MAX_PAGE_SLOTS,
                .range_capacity = range_capacity(m->cache, m->page_shift)}};
  pin_table_list(&local->table);
  *v = view_of(m, &local->table);
  return 0;
}

void view_close(struct view *v) {
  struct pin_table *t = v->table;
  if (!t)
    return;
  for (unsigned i = 0; i < PIN_N_SLOTS; i++)
    assert(t->slots[i] == 0);
  struct mirror *m = t->mirror;
  pin_table_unlist(t);
  free(t); /* the first member of its local_table */
  *v = (struct view){0};
  pthread_mutex_lock(&m->cache->lock);
  m->n_views--;
  pthread_mutex_unlock(&m->cache->lock);
  mirror_unmap_unread(m);
  mirror_unref(m);
}
