/* The reclaimer: memory that is in no account, or is no longer of use.
 *
 *   - Pages of another process's making: one that maps a mirror can make its
 *     holes take memory by reading them.  What the kernel has allocated is
 *     compared with the account, and pages that are ABSENT or ZERO and hold
 *     data are punched, by runs; their states say EVICTING meanwhile, so that
 *     no fill writes under the punch.
 *   - States that hold nothing: blocks in which all are ABSENT are swept.
 *   - Stale pages: their pins end without anybody's telling.
 *   - Retired mirrors: all that is not pinned is punched, in as few calls as
 *     there are pins, and their states go.
 *   - Mirrors that lost their last reference.
 *
 * It has a thread of its own (reclaimer.c) beside the evictor's, since the
 * punch of a large mirror takes long.  A round begins when there is something
 * to do, and every 100 ms while something goes on in the cache, or another
 * process may have a mirror mapped, or there are pins that may end; an idle
 * cache of which nothing was lent has none.
 *
 * Without threads (in process) states are swept when there is no other room,
 * and a mirror is taken down by the thread that retired it or gave the last
 * reference back: no other process has it mapped. */
#include "cache/reclaim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/lock.h"
#include "cache/barrier.h"
#include "cache/budget.h"
#include "cache/evict.h"
#include "cache/internal.h"
#include "cache/mirror_table.h"
#include "cache/pin.h"
#include "cache/rounds.h"
#include "cache/states.h"
#include "cache/view.h"
#include "cache/waiter.h"

/* States to look at under one hold of the lock. */
#define CHUNK 1024

/* ---- Absent pages that hold data ----------------------------------------- */

/* Takes the states of pages first .. first+n-1, which are of one block that is
 * charged, as far as they say that nobody may look: ABSENT, or ZERO, which is
 * forgotten; `taken` says which. */
static unsigned take_absent(struct mirror *m, uint64_t first, unsigned n,
                            bool *taken) {
  struct page_cache *pc = m->cache;
  unsigned n_taken = 0;
  pthread_mutex_lock(&pc->lock);
  bool is_live = states_next_live_locked(m, first, 1) == first;
  for (unsigned i = 0; i < n; i++) {
    const uint8_t *word = &m->states[first + i];
    if (is_live && page_state_look(word) == PAGE_ZERO)
      states_move_locked(m, first + i, PAGE_ZERO, PAGE_ABSENT);
    taken[i] = is_live && page_state_look(word) == PAGE_ABSENT &&
               states_move_locked(m, first + i, PAGE_ABSENT, PAGE_EVICTING);
    n_taken += taken[i];
  }
  m->evicting += n_taken;
  pthread_mutex_unlock(&pc->lock);
  return n_taken;
}

static void punch_taken(struct mirror *m, uint64_t first, unsigned n,
                        const bool *taken) {
  for (unsigned i = 0; i < n;) {
    unsigned j = i;
    while (j < n && taken[j])
      j++;
    if (j > i)
      mirror_punch(m, first + i, j - i);
    i = j > i ? j : i + 1;
  }
}

static void give_back(struct mirror *m, uint64_t first, unsigned n,
                      const bool *taken) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  for (unsigned i = 0; i < n; i++) {
    if (!taken[i])
      continue;
    states_move_locked(m, first + i, PAGE_EVICTING, PAGE_ABSENT);
    m->evicting--;
  }
  struct waiter *woken = waiter_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  waiter_wake(woken);
}

/* Of a run of pages that hold data, the part up to the page it returns. */
static uint64_t punch_absent(struct mirror *m, uint64_t first, uint64_t end) {
  uint64_t next = states_sweep_at(m, first, SWEEP_STATES_AND_PAGES);
  if (next > 0)
    return next;
  bool taken[CHUNK];
  uint64_t stop = (first / CHUNK + 1) * CHUNK; /* within one block */
  if (stop > end)
    stop = end;
  unsigned n = (unsigned)(stop - first);
  if (take_absent(m, first, n, taken)) {
    punch_taken(m, first, n, taken);
    give_back(m, first, n, taken);
  }
  return stop;
}

static void punch_all_absent(struct mirror *m) {
  uint64_t first = 0, end;
  while (mirror_next_data(m, &first, &end))
    while (first < end)
      first = punch_absent(m, first, end);
}

/* ---- Retired mirrors ----------------------------------------------------- */

/* Blocks of states that are gone through in no time. */
#define EMPTY_MAX_BLOCKS 4096

/* States to move under one hold of the lock. */
#define RETIRE_SLICE 256

static uint64_t retire_slice(struct mirror *m, uint64_t page) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  page = states_next_live_locked(m, page, STATES_PER_BLOCK);
  uint64_t end = (page / RETIRE_SLICE + 1) * RETIRE_SLICE;
  if (end > m->n_pages)
    end = m->n_pages;
  for (; page < end; page++)
    states_take_locked(m, page);
  pthread_mutex_unlock(&pc->lock);
  return page;
}

void reclaim_leave_resident(struct mirror *m) {
  for (uint64_t page = 0; page < m->n_pages;)
    page = retire_slice(m, page);
}

void reclaim_retire_states(struct mirror *m) {
  struct page_cache *pc = m->cache;
  reclaim_leave_resident(m);
  pthread_mutex_lock(&pc->lock);
  m->n_stale = 0; /* those are as final as the others */
  m->states_gone = true;
  pthread_mutex_unlock(&pc->lock);
}

/* The pins of a mirror, as runs of pages. */
struct pin_list {
  struct page_run *runs;
  size_t n, max;
};

static size_t count_tables_locked(const struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  size_t n = 0;
  for (const struct pin_table *t = m->tables; t; t = t->next)
    n++;
  return n;
}

static void add_pin(struct pin_list *list, const struct mirror *m,
                    uint64_t word, uint32_t capacity) {
  uint64_t first = pin_first(word), count = pin_count(word);
  if (count == 0 || count > capacity || first >= m->n_pages)
    return;
  if (count > m->n_pages - first)
    count = m->n_pages - first;
  list->runs[list->n++] = (struct page_run){first, count};
}

/* False: there are more tables than there is room for. */
static bool list_pins_locked(const struct mirror *m, struct pin_list *list) {
  lock_assert_held(&m->cache->lock);
  if (count_tables_locked(m) * PIN_N_SLOTS > list->max)
    return false;
  for (const struct pin_table *t = m->tables; t; t = t->next)
    for (unsigned i = 0; (i = pin_skip(t, i)) < PIN_N_SLOTS; i++)
      /* Acquire: as scan_pins_locked(). */
      add_pin(list, m, __atomic_load_n(&t->slots[i], __ATOMIC_ACQUIRE),
              pin_capacity(t, i));
  return true;
}

static int compare_runs(const void *a, const void *b) {
  uint64_t x = ((const struct page_run *)a)->first;
  uint64_t y = ((const struct page_run *)b)->first;
  return x < y ? -1 : x > y;
}

/* All pins there are, in order; its runs are to be freed.  False: that cannot
 * be told now. */
static bool list_pins(struct mirror *m, struct pin_list *list) {
  struct page_cache *pc = m->cache;
  *list = (struct pin_list){0};
  if (!barrier_run())
    return false;
  pthread_mutex_lock(&pc->lock);
  list->max = (count_tables_locked(m) + 16) * PIN_N_SLOTS;
  pthread_mutex_unlock(&pc->lock);
  list->runs = malloc(list->max * sizeof *list->runs);
  if (!list->runs)
    return false;
  pthread_mutex_lock(&pc->lock);
  bool all = list_pins_locked(m, list);
  pthread_mutex_unlock(&pc->lock);
  qsort(list->runs, list->n, sizeof *list->runs, compare_runs);
  return all;
}

/* How many pages the runs name, which are in order and may overlap. */
static uint64_t count_pinned(const struct pin_list *list) {
  uint64_t n = 0, at = 0;
  for (size_t i = 0; i < list->n; i++) {
    uint64_t first = list->runs[i].first, end = first + list->runs[i].count;
    if (first < at)
      first = at;
    if (end > first) {
      n += end - first;
      at = end;
    }
  }
  return n;
}

/* What is not pinned any more goes out of the account, too. */
static void recharge_retired(struct mirror *m) {
  pthread_mutex_lock(&m->cache->lock);
  uint64_t left = mirror_page_bytes(m);
  if (left < m->charged_pages)
    budget_uncharge_pages_locked(m, m->charged_pages - left);
  pthread_mutex_unlock(&m->cache->lock);
}

/* No state is RESIDENT, so no reader gets a page by a pin that is stored from
 * here on: what the list does not name is nobody's. */
static void punch_between_pins(struct mirror *m) {
  struct pin_list list;
  if (list_pins(m, &list) && mirror_page_bytes(m) > count_pinned(&list)
                                                        << m->page_shift) {
    uint64_t at = 0;
    for (size_t i = 0; i <= list.n; i++) {
      struct page_run run =
          i < list.n ? list.runs[i] : (struct page_run){m->n_pages, 0};
      if (run.first > at)
        mirror_punch(m, at, run.first - at);
      if (run.first + run.count > at)
        at = run.first + run.count;
    }
  }
  free(list.runs);
}

/* Whether a retired mirror's states take memory that can be given back.  Those
 * of a solid one stay: a look at a hole could be a SIGBUS. */
static bool has_states(const struct mirror *m) {
  return !m->is_solid && !m->is_pageless &&
         mirror_meta_bytes(m) > MIRROR_HEADER_LEN;
}

/* Gives the states' memory back, once nobody in this process moves any of them,
 * sweeps them or looks at them; until then a later round tries again.  A reader
 * of another process may look, and makes some again. */
static void drop_states(struct mirror *m) {
  struct page_cache *pc = m->cache;
  struct state_block *blocks = NULL;
  pthread_mutex_lock(&pc->lock);
  bool may = m->evicting == 0 && m->filling == 0 && m->swept_end == 0 &&
             m->n_views == 0;
  if (may && m->blocks)
    blocks = states_drop_locked(m);
  pthread_mutex_unlock(&pc->lock);
  if (may)
    mirror_punch_states(m, 0, m->n_pages);
  free(blocks);
}

/* Whether a retired mirror is ours to take down, and for the first time.  That
 * of an image which is freed is not: its pages stay for other processes. */
static bool is_to_take_down(struct mirror *m, bool *is_first) {
  pthread_mutex_lock(&m->cache->lock);
  *is_first = m->has_retire_ref;
  m->has_retire_ref = false;
  bool is = *is_first || (m->states_gone && !m->abandoned);
  pthread_mutex_unlock(&m->cache->lock);
  return is;
}

static void take_down(struct mirror *m) {
  bool is_first;
  if (!is_to_take_down(m, &is_first))
    return;
  if (is_first)
    reclaim_retire_states(m);
  if (mirror_page_bytes(m) > 0)
    punch_between_pins(m);
  recharge_retired(m);
  if (has_states(m))
    drop_states(m);
  view_unmap_unread(m);
  if (is_first)
    mirror_unref(m); /* reclaim_retired()'s */
}

/* Whether a mirror is left to the reclaimer: one that holds no pages takes
 * little time, and many of them would take memory until it comes. */
static bool is_for_thread_locked(const struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  const struct page_cache *pc = m->cache;
  bool is_empty = m->charged_pages == 0 && m->n_blocks <= EMPTY_MAX_BLOCKS;
  return pc->has_threads && !pc->stop && !is_empty;
}

/* While its states are not gone the policy may pick its pages: so it is
 * referenced. */
void reclaim_retired(struct mirror *m) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  if (!m->has_retire_ref)
    mirror_ref(m);
  m->has_retire_ref = true;
  bool is_later = is_for_thread_locked(m);
  if (is_later)
    rounds_wake_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  if (!is_later)
    take_down(m);
}

/* ---- Dead mirrors -------------------------------------------------------- */

/* Nobody has a table for it: whatever it holds is nobody's, but the memory of
 * an image that was freed, which other processes may go on reading. */
static void bury(struct mirror *m) {
  bool is_left = m->cache->is_left;
  if (!m->states_gone && !is_left) /* it never was the image's */
    reclaim_retire_states(m);
  if (!m->abandoned && m->n_pages > 0 && !is_left)
    mirror_punch(m, 0, m->n_pages);
  m->on_end(m);
}

void reclaim_dead(struct mirror *m) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  bool is_later = is_for_thread_locked(m);
  if (is_later) {
    m->next_dead = pc->reclaim.dead;
    pc->reclaim.dead = m;
    rounds_wake_locked(pc);
  }
  pthread_mutex_unlock(&pc->lock);
  if (!is_later)
    bury(m);
}

static void bury_all(struct page_cache *pc) {
  pthread_mutex_lock(&pc->lock);
  struct mirror *m = pc->reclaim.dead, *next;
  pc->reclaim.dead = NULL;
  pthread_mutex_unlock(&pc->lock);
  for (; m; m = next) {
    next = m->next_dead;
    bury(m);
  }
}

/* ---- Rounds -------------------------------------------------------------- */

static void for_each_mirror(struct page_cache *pc,
                            void (*fn)(struct mirror *m, void *arg),
                            void *arg) {
  bool end = false;
  for (uint32_t i = 0; !end; i++) {
    struct mirror *m = mirror_table_get(pc, i, &end);
    if (m) {
      fn(m, arg);
      mirror_unref(m);
    }
  }
}

/* Bytes of states that hold nothing, charged or not. */
static uint64_t idle_states(struct mirror *m) {
  if (m->is_solid || m->is_pageless)
    return 0;
  uint64_t all = mirror_meta_bytes(m);
  pthread_mutex_lock(&m->cache->lock);
  uint64_t live = m->charged_meta - m->garbage;
  pthread_mutex_unlock(&m->cache->lock);
  return all > live ? all - live : 0;
}

static void sum_idle_states(struct mirror *m, void *arg) {
  if (!mirror_is_retired(m))
    *(uint64_t *)arg += idle_states(m);
}

static void sweep_all(struct mirror *m, void *arg) {
  (void)arg;
  if (mirror_is_retired(m) || idle_states(m) == 0)
    return;
  while (states_sweep(m))
    ;
}

static void sweep_states(struct page_cache *pc) {
  uint64_t idle = 0;
  for_each_mirror(pc, sum_idle_states, &idle);
  pthread_mutex_lock(&pc->lock);
  bool is_due = budget_has_much_garbage(pc, idle) || budget_is_over_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  if (is_due)
    for_each_mirror(pc, sweep_all, NULL);
}

static bool has_excess(struct mirror *m) {
  pthread_mutex_lock(&m->cache->lock);
  bool has = mirror_page_bytes(m) > m->charged_pages + m->filling;
  pthread_mutex_unlock(&m->cache->lock);
  return has;
}

/* Stores whether it has pins that may end, or another process may make its
 * holes take memory. */
static void clean(struct mirror *m, void *arg) {
  bool *waits = arg;
  *waits |= __atomic_load_n(&m->was_lent, __ATOMIC_RELAXED);
  if (mirror_is_retired(m)) {
    take_down(m);
    *waits |= mirror_page_bytes(m) > 0 || has_states(m);
    return;
  }
  if (has_excess(m))
    punch_all_absent(m);
  pthread_mutex_lock(&m->cache->lock);
  uint64_t n_runs = m->n_stale;
  pthread_mutex_unlock(&m->cache->lock);
  for (uint64_t i = 0; i < n_runs && evict_stale(m); i++)
    ;
  *waits |= n_runs > 0;
}

static void finish_retired(struct mirror *m, void *arg) {
  (void)arg;
  take_down(m);
}

void reclaim_finish(struct page_cache *pc) {
  for_each_mirror(pc, finish_retired, NULL);
  bury_all(pc);
}

/* Before any punch, which may take long: so that readers of all epochs that are
 * over soon see it. */
static void leave_retired(struct mirror *m, void *arg) {
  (void)arg;
  pthread_mutex_lock(&m->cache->lock);
  bool is_new = m->has_retire_ref;
  pthread_mutex_unlock(&m->cache->lock);
  if (is_new)
    reclaim_leave_resident(m);
}

bool reclaim_round(struct page_cache *pc, bool is_tick) {
  bool waits = false;
  for_each_mirror(pc, leave_retired, NULL);
  bury_all(pc);
  for_each_mirror(pc, clean, &waits);
  sweep_states(pc);
  bury_all(pc);
  if (is_tick)
    waits |= fill_buffers_trim(&pc->buffers);
  return waits;
}

/* ---- Room ---------------------------------------------------------------- */

static void sweep_step(struct mirror *m, void *arg) {
  *(bool *)arg |= states_sweep(m);
}

bool reclaim_garbage(struct page_cache *pc) {
  pthread_mutex_lock(&pc->lock);
  bool has_threads = pc->has_threads && !pc->stop;
  pthread_mutex_unlock(&pc->lock);
  if (has_threads)
    return rounds_await_garbage(pc);
  /* Twice: a sweep that comes to the end goes on from the start. */
  bool any = false;
  for (int i = 0; i < 2 && !any; i++)
    for_each_mirror(pc, sweep_step, &any);
  return any;
}
