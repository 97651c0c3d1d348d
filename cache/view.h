/* A view: the reader's half of the page cache.  The hot path lives here.
 *
 * A view is one reader's access to one mirror: addresses, and a pin table of
 * its own.  One thread at a time.  No lock, no system call, no allocation. */
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
  const uint8_t *words;
  uint8_t *touched;
  uint64_t *slots; /* the table's */
  struct pin_table *table;
  bool fence; /* the evictor does not use membarrier: fence ourselves */
};

/* Publishes a pin; it ends the one that the slot held.  From here the pages
 * that are found RESIDENT stay put until the pin is cleared or overwritten. */
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
  return page_state_look(&v->words[page]) == PAGE_RESIDENT;
}

/* Whether a page is zeros, of which the mirror has no memory: the answer is all
 * that there is to read, and no pin holds it. */
static inline bool view_is_zero(const struct view *v, uint64_t page) {
  return page_state_look(&v->words[page]) == PAGE_ZERO;
}

/* Whether a page can be had without its source. */
static inline bool view_is_known(const struct view *v, uint64_t page) {
  enum page_state state = page_state_look(&v->words[page]);
  return state == PAGE_RESIDENT || state == PAGE_ZERO;
}

/* What a page's accessed byte says.  A page that was brought in is not "used"
 * because the reader that it was brought in for, or was read ahead for, then
 * reads it: else every page of a scan would count as used, and the policy could
 * not tell it from the hot set. */
enum {
  ACCESSED_NOT = 0,   /* since the evictor looked last */
  ACCESSED = 1,       /* the one bit of frequency, which the evictor clears */
  ACCESSED_FRESH = 2, /* since it came in; the next use makes this NOT */
};

/* Notes that a page was used.  Relaxed: a lost use costs a miss at worst. */
static inline void view_touch(const struct view *v, uint64_t page) {
  uint8_t was = __atomic_load_n(&v->touched[page], __ATOMIC_RELAXED);
  if (was != ACCESSED)
    __atomic_store_n(&v->touched[page],
                     was == ACCESSED_FRESH ? ACCESSED_NOT : ACCESSED,
                     __ATOMIC_RELAXED);
}

/* Pins one page and looks: true if it is resident, and then it is pinned, and
 * touched.  False: the pin stands all the same (a fill that is asked for now
 * is protected by it) but protects nothing yet. */
static inline bool view_pin_page(const struct view *v, unsigned slot,
                                 uint64_t page) {
  view_pin(v, slot, page, 1);
  if (!view_is_resident(v, page))
    return false;
  view_touch(v, page);
  return true;
}

/* The one place that turns a page into an address. */
static inline const uint8_t *view_page(const struct view *v, unsigned shift,
                                       uint64_t page) {
  return v->base + (page << shift);
}

/* Opens a view of `m`, which it references, with a pin table of its own that
 * the evictor sees from here on.  0 or -ENOMEM. */
int view_open(struct view *v, struct mirror *m);

/* Ends a view; all its pins must be 0.  A zeroed view is left alone. */
void view_close(struct view *v);

/* A view through a table that lies elsewhere.  The caller keeps `m` and `t`. */
struct view view_of(const struct mirror *m, struct pin_table *t);

/* For a table: the evictor sees its pins from view_list_table() until
 * view_unlist_table().  Its mirror is of a cache. */
void view_list_table(struct pin_table *t);
void view_unlist_table(struct pin_table *t);

/* Unmaps the pages of a retired mirror that nothing in this process reads. */
void view_unmap_unread(struct mirror *m);

#ifdef __cplusplus
}
#endif

#endif
