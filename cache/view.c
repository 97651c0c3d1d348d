#include "cache/view.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "cache/internal.h"

/* All range slots together: an eighth of the cache. */
static uint32_t range_capacity(const struct page_cache *pc, unsigned shift) {
  uint64_t pages = (internal_budget(pc) >> shift) / 8 / PIN_N_RANGE_SLOTS;
  if (pages < 1)
    return 1;
  return pages < PIN_MAX_COUNT ? (uint32_t)pages : PIN_MAX_COUNT;
}

void view_list_table(struct pin_table *t) {
  struct mirror *m = t->mirror;
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->pins_lock);
  pthread_mutex_lock(&pc->lock);
  t->next = m->tables;
  t->link = &m->tables;
  if (t->next)
    t->next->link = &t->next;
  m->tables = t;
  __atomic_fetch_add(&m->n_lent, t->is_lent, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&pc->lock);
  pthread_mutex_unlock(&pc->pins_lock);
}

void view_unlist_table(struct pin_table *t) {
  struct page_cache *pc = t->mirror->cache;
  pthread_mutex_lock(&pc->pins_lock);
  pthread_mutex_lock(&pc->lock);
  if (t->link) {
    *t->link = t->next;
    __atomic_fetch_sub(&t->mirror->n_lent, t->is_lent, __ATOMIC_RELAXED);
    if (t->next)
      t->next->link = t->link;
  }
  pthread_mutex_unlock(&pc->lock);
  pthread_mutex_unlock(&pc->pins_lock);
}

struct view view_of(const struct mirror *m, struct pin_table *t) {
  return (struct view){
      .base = m->base,
      .states = m->states,
      .accessed = m->accessed,
      .slots = t->slots,
      .table = t,
      .fence = !m->header->membarrier,
  };
}

void view_unmap_unread(struct mirror *m) {
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
  } else if (!m->base && !m->needs_pages) {
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
  if (!local || !map_for_view(m)) {
    free(local);
    return -ENOMEM;
  }
  *local = (struct local_table){
      .table = {.slots = local->slots,
                .mirror = mirror_ref(m),
                .page_slots = PIN_MAX_PAGE_SLOTS,
                .range_capacity = range_capacity(m->cache, m->page_shift)}};
  view_list_table(&local->table);
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
  view_unlist_table(t);
  free(t); /* the first member of its local_table */
  *v = (struct view){0};
  pthread_mutex_lock(&m->cache->lock);
  m->n_views--;
  pthread_mutex_unlock(&m->cache->lock);
  view_unmap_unread(m);
  mirror_unref(m);
}
