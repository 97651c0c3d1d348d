#include "cache/adopt.h"

#include <errno.h>

#include "base/lock.h"
#include "cache/budget.h"
#include "cache/evict.h"
#include "cache/internal.h"
#include "cache/mirror_table.h"
#include "cache/page_state.h"
#include "cache/rounds.h"
#include "cache/states.h"

void adopt_begin(struct page_cache *pc, struct mirror *m) {
  m->cache = pc;
  m->released = mirror_free;
}

/* ---- What it says -------------------------------------------------------- */

/* How many pages of a mirror have which state. */
struct census {
  uint64_t resident, stale, under_way; /* pages */
  bool is_right;                       /* no state has an unknown value */
};

/* The first page from `page` on whose state may not be ABSENT.  It skips whole
 * blocks that have no memory, because a look at them would make memory. */
static uint64_t next_state(const struct mirror *m, uint64_t page) {
  return page % STATES_PER_BLOCK ? page : mirror_next_states(m, page);
}

static struct census take_census(const struct mirror *m) {
  struct census census = {.is_right = true};
  for (uint64_t page = 0; (page = next_state(m, page)) < m->n_pages; page++)
    switch (page_state_look(&m->states[page])) {
    case PAGE_ABSENT:
    case PAGE_ZERO:
      break;
    case PAGE_RESIDENT:
      census.resident++;
      break;
    case PAGE_STALE:
      census.stale++;
      break;
    case PAGE_FILLING:
    case PAGE_EVICTING:
      census.under_way++;
      break;
    default:
      census.is_right = false;
    }
  return census;
}

/* The least that so many whole pages have allocated: of the image's last page
 * only its bytes are written. */
static uint64_t least_allocated(const struct mirror *m, uint64_t pages) {
  return pages == 0 ? 0 : ((pages - 1) << m->page_shift) + 1;
}

const char *adopt_check(const struct mirror *m) {
  const struct invalidation_log *log = &m->header->log;
  if (mirror_is_retired(m))
    return "its epoch was over";
  if (log->n_begun != log->n_over)
    return "an invalidation was under way";
  if (m->header->membarrier && !m->cache->membarrier)
    return "its readers rely on membarrier(2), which is not to be had";
  struct census census = take_census(m);
  if (!census.is_right)
    return "a page state is none";
  if (mirror_page_bytes(m) < least_allocated(m, census.resident))
    return "pages that it says are there are not";
  return NULL;
}

/* ---- Going on ------------------------------------------------------------ */

/* Makes FILLING and EVICTING pages STALE, and returns the new state.
 *
 * The process before may have ended at any step of an eviction.  If it had not
 * punched the page yet, a reader may have found it RESIDENT under a pin that
 * still stands.  If it was punching the page, no reader relies on it.  The
 * memory does not show which: a client that reads a hole makes a page of zeros.
 * STALE is right for both, and for a page that was half filled: a reader that
 * has it pinned keeps its bytes, no other reader gets them, and evict_stale()
 * punches the page once it is not pinned. */
static enum page_state clean(struct mirror *m, uint64_t page) {
  uint8_t *word = &m->states[page];
  enum page_state state = page_state_look(word);
  if (state == PAGE_FILLING)
    page_state_move(word, PAGE_FILLING, PAGE_EVICTING);
  if (state != PAGE_FILLING && state != PAGE_EVICTING)
    return state;
  page_state_move(word, PAGE_EVICTING, PAGE_STALE);
  return PAGE_STALE;
}

/* False: there is no memory to remember a stale page. */
static bool clean_all_locked(struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  m->n_stale = 0;
  for (uint64_t page = 0; (page = next_state(m, page)) < m->n_pages; page++)
    if (clean(m, page) == PAGE_STALE && !evict_note_stale_locked(m, page))
      return false;
  return true;
}

/* Charges the pages that the mirror holds, and adds them to the policy. */
static void enter_pages_locked(struct mirror *m) {
  lock_assert_held(&m->cache->lock);
  struct page_cache *pc = m->cache;
  for (uint64_t page = 0; (page = next_state(m, page)) < m->n_pages; page++) {
    enum page_state state = page_state_look(&m->states[page]);
    if (state == PAGE_ABSENT)
      continue;
    states_adopt_locked(m, page, state);
    if (state == PAGE_ZERO)
      continue;
    m->charged_pages += mirror_page_size(m);
    pc->used += mirror_page_size(m);
    if (state == PAGE_RESIDENT)
      s3fifo_adopt(&pc->policy, s3fifo_key(m->id, page));
  }
}

static int enter_locked(struct mirror *m, uint64_t n_resident) {
  struct page_cache *pc = m->cache;
  lock_assert_held(&pc->lock);
  if (!clean_all_locked(m))
    return -E2BIG;
  /* The cache may be smaller than it was. */
  int r = s3fifo_grow(&pc->policy, s3fifo_len(&pc->policy) + n_resident);
  if (r == 0 && !s3fifo_has_room(&pc->policy, (uint32_t)n_resident))
    r = -E2BIG;
  if (r == 0)
    r = mirror_table_add_locked(pc, m);
  if (r == 0)
    enter_pages_locked(m);
  return r;
}

int adopt_go_on(struct mirror *m) {
  struct page_cache *pc = m->cache;
  struct census census = take_census(m);
  pthread_mutex_lock(&pc->lock);
  int r = enter_locked(m, census.resident);
  pthread_cond_signal(&pc->wanted);
  rounds_note_activity_locked(pc); /* a round looks after the stale pages */
  pthread_mutex_unlock(&pc->lock);
  return r;
}

/* ---- Ending -------------------------------------------------------------- */

static void leave_resident(struct mirror *m) {
  for (uint64_t page = 0; (page = next_state(m, page)) < m->n_pages; page++) {
    enum page_state state = page_state_look(&m->states[page]);
    if (state == PAGE_RESIDENT)
      page_state_move(&m->states[page], PAGE_RESIDENT, PAGE_EVICTING);
    else if (state == PAGE_ZERO)
      page_state_move(&m->states[page], PAGE_ZERO, PAGE_ABSENT);
  }
}

int adopt_end(struct mirror *m) {
  struct page_cache *pc = m->cache;
  __atomic_store_n(&m->header->retired, 1, __ATOMIC_RELEASE);
  leave_resident(m);
  m->n_stale = 0;
  m->states_gone = true;
  pthread_mutex_lock(&pc->lock);
  int r = mirror_table_add_locked(pc, m);
  if (r == 0) {
    m->charged_pages = mirror_page_bytes(m);
    pc->used += m->charged_pages;
  }
  pthread_mutex_unlock(&pc->lock);
  return r;
}
