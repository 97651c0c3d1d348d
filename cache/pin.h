/* Pins: a reader publishes which pages it reads, and the evictor checks.
 *
 *     reader                                evictor (a batch of victims)
 *     1 store pin (release) + fence         1 RESIDENT -> EVICTING, each by CAS
 *     2 load state (acquire)                2 membarrier
 *     3 RESIDENT: use the bytes             3 read every pin (acquire)
 *       else: ask for a fill                4 pinned: back to RESIDENT
 *     4 store 0 (release)                     else: punch, then ABSENT
 *
 * Either the evictor's step 3 sees the pin, or the reader's step 2 sees
 * EVICTING, because each side has a full fence between its steps 1 and 2.  The
 * evictor's membarrier executes the reader's fence, so a hit needs only a
 * compiler fence.  Without membarrier the reader executes a fence itself (see
 * barrier.h).
 *
 * A table belongs to one reader (a handle, a worker) and one mirror.  Slot i
 * may name at most pin_capacity(i) pages; a pin of more pages is void.  The
 * evictor checks each slot by itself and never adds slots up.
 *
 * A table may grow: more of its page slots become valid, and a range slot may
 * name more pages.  The reader learns of this afterwards.  The evictor loads a
 * slot before its capacity, so it finds the capacity that the pin relies on. */
#ifndef CACHE_PIN_H
#define CACHE_PIN_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The slots of a table: one for the page of the last access, one for each
 * slice of one page, a few for ranges. */
enum {
  PIN_SLOT_CURSOR = 0,
  PIN_SLOT_PAGE = 1, /* the first of PIN_N_PAGE_SLOTS */
  PIN_N_PAGE_SLOTS = 64,
  PIN_SLOT_RANGE = PIN_SLOT_PAGE + PIN_N_PAGE_SLOTS,
  PIN_N_RANGE_SLOTS = 4,
  PIN_N_SLOTS = PIN_SLOT_RANGE + PIN_N_RANGE_SLOTS,
};

/* A pin, {first page, count}, in 64 bits, so that one access stores or loads
 * it. 0 is no pin. 40 bits of page number suffice, because a mirror must fit
 * the address space. */
#define PIN_COUNT_BITS 24
#define PIN_MAX_COUNT ((1u << PIN_COUNT_BITS) - 1)
#define PIN_MAX_PAGE ((1ull << (64 - PIN_COUNT_BITS)) - 1)

static inline uint64_t pin_word(uint64_t first, uint32_t count) {
  return first << PIN_COUNT_BITS | count;
}
static inline uint64_t pin_first(uint64_t word) {
  return word >> PIN_COUNT_BITS;
}
static inline uint32_t pin_count(uint64_t word) {
  return (uint32_t)(word & PIN_MAX_COUNT);
}

struct mirror;

/* What a reader has counted since it got the table: pages that it found
 * resident, and others.  It stores the numbers from time to time, and before it
 * ends.  A reader that does not count leaves 0.  Only statistics use them.  All
 * accesses are relaxed. */
struct pin_counts {
  uint64_t n_hits, n_misses;
};

/* A table that another process writes: one page of memory, in a memfd of its
 * own. */
struct pin_page {
  uint32_t layout; /* MIRROR_LAYOUT */
  uint32_t n_slots;
  uint32_t range_capacity;
  uint32_t done; /* the reader stores 1: it reads no more pages */
  uint32_t page_slots;
  uint32_t reserved;
  struct pin_counts counts;
  uint8_t unused[24];
  uint64_t slots[PIN_N_SLOTS];
};

#define PIN_PAGE_LEN 4096

struct pin_table {
  uint64_t *slots; /* PIN_N_SLOTS; written by the reader only */
  /* How many of the single-page slots are valid, counted from the first, and
   * how many pages a range slot may name.  For a lease the locks of the cache
   * guard them (see pins_lock), and they only grow. */
  uint32_t page_slots;
  uint32_t range_capacity;
  /* For a lease that was replaced: the capacity of each slot, in place of those
   * two.  Otherwise NULL.  Under the same locks. */
  const uint32_t *cut;
  bool is_lent; /* another process writes the slots: it may store anything */
  struct mirror *mirror;          /* fixed; the table holds a reference */
  struct pin_table *next, **link; /* the mirror's list, under the same locks */
};

/* The number of page slots in a table. */
#define PIN_MAX_PAGE_SLOTS ((uint32_t)PIN_SLOT_RANGE)

/* The reader may call it at any time, other threads under pins_lock or the lock
 * of the cache. */
static inline uint32_t pin_capacity(const struct pin_table *t, unsigned slot) {
  if (t->cut)
    return t->cut[slot];
  return slot < PIN_SLOT_RANGE ? slot < t->page_slots : t->range_capacity;
}

/* Returns the first slot from `slot` on that may hold a pin.  Most tables are
 * small, so a scan skips most slots. */
static inline unsigned pin_skip(const struct pin_table *t, unsigned slot) {
  bool is_idle = slot >= t->page_slots && slot < PIN_SLOT_RANGE;
  return is_idle ? (unsigned)PIN_SLOT_RANGE : slot;
}

/* Adds to the counts.  Only the thread of the reader may call it. */
static inline void pin_count_more(struct pin_counts *c, uint64_t n_hits,
                                  uint64_t n_misses) {
  __atomic_store_n(&c->n_hits, c->n_hits + n_hits, __ATOMIC_RELAXED);
  __atomic_store_n(&c->n_misses, c->n_misses + n_misses, __ATOMIC_RELAXED);
}

/* Withdraws a pin.  Release: the reader's reads of the pages happen before an
 * evictor that sees no pin (acquire, scan_pins()) punches them. */
static inline void pin_clear(uint64_t *slot) {
  __atomic_store_n(slot, 0, __ATOMIC_RELEASE);
}

#ifdef __cplusplus
}
#endif

#endif
