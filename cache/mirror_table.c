#include "cache/mirror_table.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/lock.h"
#include "cache/budget.h"
#include "cache/internal.h"

static int slot_for_locked(struct page_cache *pc, uint32_t *out) {
  lock_assert_held(&pc->lock);
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

int mirror_table_add_locked(struct page_cache *pc, struct mirror *m) {
  lock_assert_held(&pc->lock);
  int r = slot_for_locked(pc, &m->id);
  if (r == 0) {
    pc->mirrors[m->id] = m;
    m->cache = pc;
    budget_add_mirror_locked(m);
  }
  return r;
}

int mirror_table_add(struct page_cache *pc, struct mirror *m) {
  pthread_mutex_lock(&pc->lock);
  int r = mirror_table_add_locked(pc, m);
  pthread_mutex_unlock(&pc->lock);
  return r;
}

void mirror_table_remove(struct mirror *m) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  assert(!m->tables && pc->mirrors[m->id] == m);
  pc->mirrors[m->id] = NULL;
  budget_remove_mirror_locked(m);
  pthread_mutex_unlock(&pc->lock);
}

struct mirror *mirror_table_get(struct page_cache *pc, uint32_t i, bool *end) {
  pthread_mutex_lock(&pc->lock);
  *end = i >= pc->n_mirrors;
  struct mirror *m = *end ? NULL : pc->mirrors[i];
  if (m && !mirror_ref_live(m))
    m = NULL;
  pthread_mutex_unlock(&pc->lock);
  return m;
}
