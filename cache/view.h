/* A view: the reader's half of the page cache, with the code of a hit.
 *
 * A view gives one reader access to one mirror: it has addresses, and a pin
 * table of its own.  One thread at a time uses it.  A hit takes no lock, makes
 * no system call and allocates nothing. */
#ifndef CACHE_VIEW_H
#define CACHE_VIEW_H

#include "cache/mirror.h"
#include "cache/page_state.h"
#include "cache/pin.h"

#ifdef __cplusplus
extern "C" {
#endif

struct view {
  const uint8_t *base;
  const uint8_t *states;
  uint8_t *accessed;
  uint64_t *slots; /* the table's */
  struct pin_table *table;
  bool fence; /* the reader executes its own fences: no membarrier */
};

/* Publishes a pin, which replaces the pin in the slot.  From now on, pages that
 * are found RESIDENT do not change until the pin is cleared or overwritten. */
static inline void view_pin(const struct view *v, unsigned slot, uint64_t first,
                            uint32_t count) {
  __atomic_store_n(&v->slots[slot], pin_word(first, count), __ATOMIC_RELEASE);
  if (v->fence)
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
  else
    __atomic_signal_fence(__ATOMIC_SEQ_CST); /* pairs with barrier_run() */
}

static inline void view_unpin(const struct view *v, unsigned slot) {
  pin_clear(&v->slots[slot]);
}

static inline bool view_is_resident(const struct view *v, uint64_t page) {
  return page_state_look(&v->states[page]) == PAGE_RESIDENT;
}

/* Whether a page is zeros.  The mirror has no memory for such a page, and no
 * pin protects it: the state is all that there is to read. */
static inline bool view_is_zero(const struct view *v, uint64_t page) {
  return page_state_look(&v->states[page]) == PAGE_ZERO;
}

/* Whether a page can be read without its source. */
static inline bool view_is_known(const struct view *v, uint64_t page) {
  enum page_state state = page_state_look(&v->states[page]);
  return state == PAGE_RESIDENT || state == PAGE_ZERO;
}

/* The values of an accessed byte.  When a page was filled for a reader, or
 * ahead of it, the reader's first use of the page does not count.  Otherwise
 * every page of a scan would count as used, and the policy could not
 * distinguish a scan from the hot set. */
enum {
  ACCESSED_NOT = 0,   /* not used since it was last cleared */
  ACCESSED = 1,       /* used; the policy clears it */
  ACCESSED_FRESH = 2, /* not used since the fill; the next use makes it NOT */
};

/* Records a use of a page.  Relaxed: a lost use costs at most a miss. */
static inline void view_mark_accessed(const struct view *v, uint64_t page) {
  uint8_t was = __atomic_load_n(&v->accessed[page], __ATOMIC_RELAXED);
  if (was != ACCESSED)
    __atomic_store_n(&v->accessed[page],
                     was == ACCESSED_FRESH ? ACCESSED_NOT : ACCESSED,
                     __ATOMIC_RELAXED);
}

/* Pins one page and loads its state.  If the page is resident, records a use
 * and returns true.  If it returns false, the pin stands but protects nothing
 * yet; it will protect the page after a fill that is requested now. */
static inline bool view_pin_page(const struct view *v, unsigned slot,
                                 uint64_t page) {
  view_pin(v, slot, page, 1);
  if (!view_is_resident(v, page))
    return false;
  view_mark_accessed(v, page);
  return true;
}

/* The address of a page.  No other function computes it. */
static inline const uint8_t *view_page(const struct view *v, unsigned shift,
                                       uint64_t page) {
  return v->base + (page << shift);
}

/* Opens a view of `m` and references it.  The view has a pin table of its own,
 * whose pins the evictor honours from now on. 0 or -ENOMEM. */
int view_open(struct view *v, struct mirror *m);

/* Closes a view.  All its pins must be 0.  Does nothing with a zeroed view. */
void view_close(struct view *v);

/* A view that uses a table from elsewhere.  The caller keeps `m` and `t` alive.
 */
struct view view_of(const struct mirror *m, struct pin_table *t);

/* The evictor honours the pins of a table from view_list_table() until
 * view_unlist_table(), which leaves a table alone that is not listed.  The
 * mirror of the table belongs to a cache. */
void view_list_table(struct pin_table *t);
void view_unlist_table(struct pin_table *t);

/* Unmaps the pages of a retired mirror if nothing in this process reads them.
 */
void view_unmap_unread(struct mirror *m);

#ifdef __cplusplus
}
#endif

#endif
