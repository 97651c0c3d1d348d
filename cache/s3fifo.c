#include "cache/s3fifo.h"

#include <assert.h>
#include <errno.h>
#include <sys/mman.h>

#define MAX_PAGES (1ull << 28)
#define MIN_INDEX 64u

/* For each page of a cache that is not full, and as much again for a ghost. */
_Static_assert(sizeof(struct s3fifo_entry) == 24, "entries have no padding");

/* Of an age in insertions, as far as an entry remembers it. */
#define AGE_MASK ((1u << 30) - 1)

/* Zeroed memory, which takes none until its first use.  NULL: failure. */
static void *map_array(size_t len) {
  void *at = mmap(NULL, len, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return at == MAP_FAILED ? NULL : at;
}

static size_t entries_len(const struct s3fifo *p) {
  return p->n_entries * sizeof *p->entries;
}

static size_t index_len(const struct s3fifo *p) {
  return p->max_index * sizeof *p->index;
}

static uint32_t entries_for(uint64_t max_pages) {
  return 1 + 2 * (uint32_t)max_pages; /* P2 */
}

static uint32_t index_for(uint64_t max_pages) {
  uint32_t n = MIN_INDEX;
  while (n < max_pages)
    n *= 2;
  return n;
}

int s3fifo_init(struct s3fifo *p, uint64_t max_pages,
                s3fifo_take_used_cb take_used, s3fifo_unused_cb unused,
                void *used_arg) {
  if (max_pages > MAX_PAGES)
    max_pages = MAX_PAGES;
  *p = (struct s3fifo){.take_used = take_used,
                       .unused = unused,
                       .used_arg = used_arg,
                       .window_percent = S3FIFO_WINDOW_PERCENT,
                       .factor = S3FIFO_FACTOR,
                       .n_entries = entries_for(max_pages),
                       .max_index = index_for(max_pages),
                       .n_index = MIN_INDEX,
                       .n_touched = 1};
  p->entries = map_array(entries_len(p));
  p->index = map_array(index_len(p));
  if (p->entries && p->index)
    return 0;
  s3fifo_fini(p);
  return -ENOMEM;
}

void s3fifo_fini(struct s3fifo *p) {
  if (p->entries)
    munmap(p->entries, entries_len(p));
  if (p->index)
    munmap(p->index, index_len(p));
  *p = (struct s3fifo){0};
}

int s3fifo_grow(struct s3fifo *p, uint64_t max_pages) {
  if (max_pages > MAX_PAGES)
    max_pages = MAX_PAGES;
  uint32_t n_entries = entries_for(max_pages), max_index = index_for(max_pages);
  if (n_entries > p->n_entries) {
    void *at = mremap(p->entries, entries_len(p),
                      n_entries * sizeof *p->entries, MREMAP_MAYMOVE);
    if (at == MAP_FAILED)
      return -ENOMEM;
    p->entries = at;
    p->n_entries = n_entries;
  }
  if (max_index > p->max_index) {
    void *at = mremap(p->index, index_len(p), max_index * sizeof *p->index,
                      MREMAP_MAYMOVE);
    if (at == MAP_FAILED)
      return -ENOMEM;
    p->index = at;
    p->max_index = max_index;
  }
  return 0;
}

/* ---- The index ----------------------------------------------------------- */

/* The index is a hash table that grows by one bucket at a time (linear
 * hashing), so that no insertion has to build a new table.  The mask names up
 * to twice as many buckets as exist.  The keys of a bucket from n_index on are
 * still in the bucket of the lower half from which it will be split. */
static uint32_t index_mask(const struct s3fifo *p) {
  return UINT32_MAX >> __builtin_clz(p->n_index - 1);
}

static uint32_t bucket(const struct s3fifo *p, uint64_t key) {
  uint32_t mask = index_mask(p), b = s3fifo_hash(p->factor, key) & mask;
  return b < p->n_index ? b : b & (mask >> 1);
}

static uint32_t find(const struct s3fifo *p, uint64_t key) {
  uint32_t i = p->index[bucket(p, key)];
  while (i && p->entries[i].key != key)
    i = p->entries[i].chain;
  return i;
}

/* Adds a bucket, and moves the keys to it that belong there. */
static void index_split(struct s3fifo *p) {
  uint32_t added = p->n_index++;
  uint32_t mask = index_mask(p);
  uint32_t *from = &p->index[added & (mask >> 1)], *to = &p->index[added];
  while (*from) {
    struct s3fifo_entry *e = &p->entries[*from];
    if ((s3fifo_hash(p->factor, e->key) & mask) == added) {
      *to = *from;
      *from = e->chain;
      to = &e->chain;
    } else {
      from = &e->chain;
    }
  }
  *to = 0;
}

static void index_add(struct s3fifo *p, uint32_t i) {
  if (p->n_indexed++ >= p->n_index && p->n_index < p->max_index)
    index_split(p);
  uint32_t *head = &p->index[bucket(p, p->entries[i].key)];
  p->entries[i].chain = *head;
  *head = i;
}

static void index_remove(struct s3fifo *p, uint32_t i) {
  uint32_t *at = &p->index[bucket(p, p->entries[i].key)];
  while (*at != i)
    at = &p->entries[*at].chain;
  *at = p->entries[i].chain;
  p->n_indexed--;
}

/* ---- The queues ---------------------------------------------------------- */

/* Appends at the newest end. */
static void enqueue(struct s3fifo *p, enum s3fifo_queue q, uint32_t i) {
  struct s3fifo_entry *e = &p->entries[i];
  e->queue = q;
  e->newer = 0;
  e->older = p->newest[q];
  if (e->older)
    p->entries[e->older].newer = i;
  else
    p->oldest[q] = i;
  p->newest[q] = i;
  p->len[q]++;
}

static void dequeue(struct s3fifo *p, uint32_t i) {
  struct s3fifo_entry *e = &p->entries[i];
  enum s3fifo_queue q = (enum s3fifo_queue)e->queue;
  if (e->newer)
    p->entries[e->newer].older = e->older;
  else
    p->newest[q] = e->older;
  if (e->older)
    p->entries[e->older].newer = e->newer;
  else
    p->oldest[q] = e->newer;
  p->len[q]--;
}

static void move(struct s3fifo *p, uint32_t i, enum s3fifo_queue q) {
  dequeue(p, i);
  enqueue(p, q, i);
}

static uint32_t small_len(const struct s3fifo *p) {
  return p->len[S3FIFO_WINDOW] + p->len[S3FIFO_SMALL];
}

static uint32_t window_max(const struct s3fifo *p) {
  return (uint32_t)((uint64_t)small_len(p) * p->window_percent / 100);
}

/* P4, after the small queue has gained or lost a page: then at most one page is
 * too much in the window. */
static void trim_window(struct s3fifo *p) {
  if (p->len[S3FIFO_WINDOW] <= window_max(p))
    return;
  uint32_t i = p->oldest[S3FIFO_WINDOW];
  p->take_used(p->used_arg, p->entries[i].key); /* from here on they count */
  move(p, i, S3FIFO_SMALL);
}

static void forget(struct s3fifo *p, uint32_t i) {
  dequeue(p, i);
  index_remove(p, i);
  p->entries[i].older = p->free;
  p->free = i;
}

/* Remembers a page that left; the oldest ghosts make room. */
static void make_ghost(struct s3fifo *p, uint32_t i) {
  move(p, i, S3FIFO_GHOST);
  while (p->len[S3FIFO_GHOST] > s3fifo_len(p))
    forget(p, p->oldest[S3FIFO_GHOST]);
}

bool s3fifo_has_room(const struct s3fifo *p, uint32_t n) {
  return 1ull + s3fifo_len(p) + p->len[S3FIFO_GHOST] + p->n_out + n <=
         p->n_entries;
}

static uint32_t take_entry(struct s3fifo *p) {
  uint32_t i = p->free;
  if (i) {
    p->free = p->entries[i].older;
    __builtin_prefetch(&p->entries[p->free], 1);
    return i;
  }
  assert(p->n_touched < p->n_entries); /* s3fifo_has_room() */
  return p->n_touched++;
}

static void add(struct s3fifo *p, enum s3fifo_queue q, uint64_t key) {
  uint32_t i = take_entry(p);
  p->entries[i].key = key;
  index_add(p, i);
  p->entries[i].born = p->n_insertions++ & AGE_MASK;
  enqueue(p, q, i);
}

/* ---- Asking for memory --------------------------------------------------- */

/* How many entries of a chain are asked for.  Few chains are longer. */
#define CHAIN_AHEAD 3

/* Asks for the chains of `n` buckets, which it overwrites: for the n-th entry
 * of all of them before the next one of any. */
static void expect_chains(const struct s3fifo *p, uint32_t *at, unsigned n) {
  for (unsigned i = 0; i < n; i++) {
    at[i] = p->index[at[i]];
    __builtin_prefetch(&p->entries[at[i]]);
  }
  for (int step = 1; step < CHAIN_AHEAD; step++)
    for (unsigned i = 0; i < n; i++) {
      at[i] = p->entries[at[i]].chain; /* 0 of entry 0 */
      __builtin_prefetch(&p->entries[at[i]]);
    }
}

static void expect_page(const struct s3fifo *p, uint64_t key) {
  if (p->expect)
    p->expect(p->used_arg, key);
}

/* Asks for what the insertion of the fresh pages needs.  As many pages may
 * leave the window. */
static void expect_fresh(const struct s3fifo *p) {
  uint32_t at[S3FIFO_FRESH], w = p->oldest[S3FIFO_WINDOW];
  for (unsigned i = 0; i < p->n_fresh; i++) {
    at[i] = bucket(p, p->fresh[i]);
    __builtin_prefetch(&p->index[at[i]], 1);
  }
  for (unsigned i = 0; i < p->n_fresh && w; i++, w = p->entries[w].newer)
    expect_page(p, p->entries[w].key);
  expect_chains(p, at, p->n_fresh);
}

/* The queue in which the next victim is looked for. */
static enum s3fifo_queue queue_of_victims(const struct s3fifo *p) {
  bool small =
      p->len[S3FIFO_SMALL] > 0 && (uint64_t)small_len(p) * 10 >= s3fifo_len(p);
  return small || !p->len[S3FIFO_MAIN] ? S3FIFO_SMALL : S3FIFO_MAIN;
}

/* A victim from MAIN leaves the index.  One from SMALL becomes a ghost, and the
 * oldest ghost leaves the index. */
void s3fifo_expect_picks(struct s3fifo *p, unsigned n) {
  s3fifo_take_in(p);
  enum s3fifo_queue q = queue_of_victims(p);
  uint32_t at[S3FIFO_AHEAD], n_at = 0;
  uint32_t v = p->oldest[q], g = p->oldest[S3FIFO_GHOST];
  for (unsigned i = 0; i < n && i < S3FIFO_AHEAD && v; i++) {
    uint32_t leaves = q == S3FIFO_MAIN ? v : g;
    expect_page(p, p->entries[v].key);
    if (leaves) {
      at[n_at] = bucket(p, p->entries[leaves].key);
      __builtin_prefetch(&p->index[at[n_at++]], 1);
    }
    v = p->entries[v].newer;
    g = p->entries[g].newer; /* 0 of entry 0 */
  }
  expect_chains(p, at, n_at);
}

/* ---- Pages --------------------------------------------------------------- */

static void take_in_one(struct s3fifo *p, uint64_t key) {
  uint32_t i = find(p, key);
  if (!i) {
    add(p, S3FIFO_WINDOW, key);
    trim_window(p);
    return;
  }
  assert(p->entries[i].queue == S3FIFO_GHOST);
  p->entries[i].born = p->n_insertions++ & AGE_MASK;
  move(p, i, S3FIFO_MAIN);
}

void s3fifo_take_in(struct s3fifo *p) {
  uint32_t n = p->n_fresh;
  if (n == 0)
    return;
  expect_fresh(p);
  p->n_fresh = 0;
  for (uint32_t i = 0; i < n; i++)
    take_in_one(p, p->fresh[i]);
}

/* A use of a fresh page does not count, as in the window, so the fresh pages of
 * a small cache are few. */
static uint32_t most_fresh(const struct s3fifo *p) {
  uint32_t n = 1 + s3fifo_len(p) / S3FIFO_FRESH_PART;
  return n < S3FIFO_FRESH ? n : S3FIFO_FRESH;
}

void s3fifo_insert(struct s3fifo *p, uint64_t key) {
  p->fresh[p->n_fresh++] = key;
  if (p->n_fresh >= most_fresh(p))
    s3fifo_take_in(p);
}

void s3fifo_adopt(struct s3fifo *p, uint64_t key) {
  s3fifo_take_in(p);
  add(p, S3FIFO_MAIN, key);
}

void s3fifo_remove(struct s3fifo *p, uint64_t key) {
  s3fifo_take_in(p);
  uint32_t i = find(p, key);
  if (!i || p->entries[i].queue == S3FIFO_GHOST)
    return;
  forget(p, i);
  trim_window(p);
}

void s3fifo_gone(struct s3fifo *p) {
  assert(p->n_out > 0);
  p->n_out--;
}

void s3fifo_restore(struct s3fifo *p, uint64_t key) {
  s3fifo_gone(p);
  s3fifo_take_in(p);
  uint32_t i = find(p, key);
  if (i)
    move(p, i, S3FIFO_MAIN);
  else
    add(p, S3FIFO_MAIN, key);
}

/* Lets entry `i` go. */
static uint64_t take(struct s3fifo *p, uint32_t i) {
  uint64_t key = p->entries[i].key;
  if (p->entries[i].queue == S3FIFO_SMALL)
    make_ghost(p, i);
  else
    forget(p, i);
  trim_window(p);
  p->n_out++;
  return key;
}

/* The next victim by S3-FIFO proper, 0 when there is none. */
static uint32_t next_victim(struct s3fifo *p, unsigned *chances) {
  while (s3fifo_len(p) > 0) {
    uint32_t i = p->oldest[queue_of_victims(p)];
    if (*chances == 0 || !p->take_used(p->used_arg, p->entries[i].key))
      return i;
    --*chances;
    move(p, i, S3FIFO_MAIN);
    trim_window(p);
  }
  return 0;
}

size_t s3fifo_pick_oldest(struct s3fifo *p, uint64_t *key) {
  s3fifo_take_in(p);
  uint32_t i = p->oldest[p->len[S3FIFO_SMALL] ? S3FIFO_SMALL : S3FIFO_MAIN];
  if (i)
    *key = take(p, i);
  return i != 0;
}

/* Also takes those neighbours of a victim that are in the same queue and were
 * not used.  It leaves those in the younger half of the queue, because a
 * sequential reader may read them next. */
static size_t take_group(struct s3fifo *p, uint64_t key, enum s3fifo_queue q,
                         uint64_t *keys, size_t max) {
  size_t n = 0;
  uint64_t first = key & ~(uint64_t)(S3FIFO_GROUP - 1);
  uint32_t left = p->unused(p->used_arg, first) & ~(1u << (key - first));
  for (; left && n < max; left &= left - 1) {
    uint32_t i = find(p, first + (uint32_t)__builtin_ctz(left));
    if (!i || p->entries[i].queue != q)
      continue;
    uint32_t age = (p->n_insertions - p->entries[i].born) & AGE_MASK;
    uint32_t len = q == S3FIFO_SMALL ? small_len(p) : p->len[q];
    if (age >= len / 2)
      keys[n++] = take(p, i);
  }
  return n;
}

size_t s3fifo_pick(struct s3fifo *p, size_t want, uint64_t *keys, size_t max,
                   unsigned *chances) {
  s3fifo_take_in(p);
  size_t n = 0;
  while (n < want && n < max) {
    uint32_t i = next_victim(p, chances);
    if (!i)
      break;
    enum s3fifo_queue q = (enum s3fifo_queue)p->entries[i].queue;
    uint64_t key = take(p, i);
    keys[n++] = key;
    n += take_group(p, key, q, keys + n, max - n);
  }
  return n;
}

/* ---- Checking ------------------------------------------------------------ */

static bool is_fresh(const struct s3fifo *p, uint64_t key) {
  for (uint32_t i = 0; i < p->n_fresh; i++)
    if (p->fresh[i] == key)
      return true;
  return false;
}

bool s3fifo_has(const struct s3fifo *p, uint64_t key) {
  if (is_fresh(p, key))
    return true;
  uint32_t i = find(p, key);
  return i && p->entries[i].queue != S3FIFO_GHOST;
}

static void check_queue(const struct s3fifo *p, enum s3fifo_queue q) {
  uint32_t n = 0, older = 0;
  for (uint32_t i = p->oldest[q]; i; i = p->entries[i].newer) {
    const struct s3fifo_entry *e = &p->entries[i];
    n++;
    assert(n <= p->len[q]); /* otherwise the list is a circle */
    assert(e->queue == q && e->older == older);
    assert(find(p, e->key) == i); /* P1: the index has one entry of a key */
    older = i;
  }
  assert(n == p->len[q] && older == p->newest[q]);
}

/* P1. */
static void check_fresh(const struct s3fifo *p) {
  assert(p->n_fresh < S3FIFO_FRESH); /* else they would have been taken in */
  for (uint32_t i = 0; i < p->n_fresh; i++) {
    uint32_t at = find(p, p->fresh[i]);
    assert(!at || p->entries[at].queue == S3FIFO_GHOST);
    for (uint32_t later = i + 1; later < p->n_fresh; later++)
      assert(p->fresh[later] != p->fresh[i]);
  }
}

void s3fifo_check(const struct s3fifo *p) {
  uint32_t n = 0, n_free = 0;
  check_fresh(p);
  for (int q = 0; q < S3FIFO_N_QUEUES; q++) {
    check_queue(p, (enum s3fifo_queue)q);
    n += p->len[q];
  }
  for (uint32_t i = p->free; i; i = p->entries[i].older)
    n_free++;
  assert(p->n_indexed == n);
  assert(p->n_touched == 1 + n + n_free && p->n_touched <= p->n_entries);
  assert(s3fifo_has_room(p, 0));                  /* P3 */
  assert(p->len[S3FIFO_WINDOW] <= window_max(p)); /* P4 */
}
