/* The reclaimer frees memory that is in no account, or that nothing uses:
 *
 *   - Holes that have memory.  A process that maps a mirror makes the kernel
 *     allocate memory for a hole by reading it.  The reclaimer compares the
 *     account with what the kernel has allocated.  It punches the pages that
 *     are ABSENT or ZERO and hold data, by runs.  Their states say EVICTING
 *     during the punch, so that no fill writes a page that is being punched.
 *   - Blocks of page states that are all ABSENT or ZERO: they are swept.
 *   - Stale pages whose pins have ended, which no client reports.
 *   - Retired mirrors: it punches the ranges between the pins, and frees the
 *     states.
 *   - Mirrors without references.
 *
 * It has a thread of its own (reclaimer.c), because the punch of a large mirror
 * takes long and the evictor must not wait for it.  A round begins when there
 * is something to do.  Rounds also begin every 100 ms while requests come,
 * while another process may have a mirror mapped, and while there are pins that
 * may end.  An idle cache that has lent nothing has no rounds.
 *
 * A cache without threads (in process) sweeps states when it finds no other
 * room.  Its mirrors are taken down by the thread that retires them or gives
 * the last reference back: no other process has them mapped. */
#include "cache/reclaim.h"

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

/* How many states one hold of the lock may go through, while readers that miss
 * wait for it. */
#define CHUNK 1024

/* ---- Absent pages that hold data ----------------------------------------- */

/* Moves those of the pages first .. first+n-1 to EVICTING that are ABSENT or
 * ZERO, and sets `taken` for them.  A ZERO page loses its state: no reader has
 * its bytes, and the source can be asked again.  The pages are within one block
 * of states. */
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

/* Punches the absent pages of a run that holds data, up to the page that it
 * returns. */
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

/* How many states one hold of the lock may move. */
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
      /* Acquire: as scan_pins(). */
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

/* Uncharges the pages of a retired mirror that were punched. */
static void recharge_retired(struct mirror *m) {
  pthread_mutex_lock(&m->cache->lock);
  uint64_t left = mirror_page_bytes(m);
  if (left < m->charged_pages)
    budget_uncharge_pages_locked(m, m->charged_pages - left);
  pthread_mutex_unlock(&m->cache->lock);
}

/* Punches all pages that no pin holds.  No state is RESIDENT any more, so a pin
 * that a reader stores after the list was made gives it no page. */
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

/* Whether the states of a retired mirror take memory that can be given back.
 * Those of a solid mirror stay, because a look at a hole could be a SIGBUS. */
static bool has_states(const struct mirror *m) {
  return !m->is_solid && !m->is_pageless &&
         mirror_meta_bytes(m) > MIRROR_HEADER_LEN;
}

/* Gives the memory of the states back, if no thread of this process moves,
 * sweeps or looks at any of them.  Otherwise a later round tries again.  A
 * reader of another process may still look, and makes the kernel allocate some
 * again; a later round finds that, too. */
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

/* Whether a retired mirror is to be taken down, and whether this is the first
 * time. */
static bool is_to_take_down(struct mirror *m, bool *is_first) {
  pthread_mutex_lock(&m->cache->lock);
  *is_first = m->has_retire_ref;
  m->has_retire_ref = false;
  bool is = *is_first || m->states_gone;
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

/* Whether a mirror is left to the thread.  A mirror without pages is not: it
 * takes little time, and many of them would hold memory until the thread comes.
 */
static bool is_for_thread_locked(const struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  const struct page_cache *pc = m->cache;
  bool is_empty = m->charged_pages == 0 && m->n_blocks <= EMPTY_MAX_BLOCKS;
  return pc->has_threads && !pc->stop && !is_empty;
}

/* The reference keeps the mirror until its states are gone, because until then
 * the policy may pick its pages. */
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

/* Whether a pin table that ends is of a process that reads no more.  It is so
 * while the cache has threads.  After that the owner frees all tables because
 * it ends itself, and their processes go on reading what they have pinned.
 * (A cache that never had threads shares its memory with no process.) */
static bool tables_end_with_pins(struct page_cache *pc) {
  pthread_mutex_lock(&pc->lock);
  bool has_threads = pc->has_threads;
  pthread_mutex_unlock(&pc->lock);
  return has_threads;
}

/* Frees a mirror without references, and so without pin tables.  It punches
 * the pages, because a process may have kept a descriptor of them. */
static void bury(struct mirror *m) {
  struct page_cache *pc = m->cache;
  if (!m->states_gone && !pc->is_left) /* it never was the image's */
    reclaim_retire_states(m);
  if (m->n_pages > 0 && tables_end_with_pins(pc))
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
  uint64_t garbage = m->garbage, live = m->charged_meta - garbage;
  pthread_mutex_unlock(&m->cache->lock);
  /* The account has more than the kernel if only half a block was ever used. */
  uint64_t idle = all > live ? all - live : 0;
  return idle > garbage ? idle : garbage;
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

/* Cleans one mirror.  Sets `*waits` if rounds have to go on for it: it has pins
 * that may end, or another process may make its holes take memory. */
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

/* Moves the states of a retired mirror out of RESIDENT.  A round does this for
 * all mirrors before it punches any, because a punch may take long: readers of
 * every retired epoch then notice soon. */
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
  /* Twice, because a sweep that reaches the end only begins again at the next
   * call. */
  bool any = false;
  for (int i = 0; i < 2 && !any; i++)
    for_each_mirror(pc, sweep_step, &any);
  return any;
}
