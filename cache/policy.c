#include "cache/policy.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_CHANCES 64

void policy_init(struct policy *p) { memset(p, 0, sizeof *p); }

void policy_fini(struct policy *p) {
  free(p->entries);
  free(p->index);
}

static uint32_t bucket(const struct policy *p, uint64_t key) {
  return (uint32_t)((key * 0x9e3779b97f4a7c15ull) >> 32) & (p->n_index - 1);
}

static uint32_t find(const struct policy *p, uint64_t key) {
  if (!p->n_index)
    return 0;
  uint32_t i = p->index[bucket(p, key)];
  while (i && p->entries[i].key != key)
    i = p->entries[i].chain;
  return i;
}

static void index_add(struct policy *p, uint32_t i) {
  uint32_t *head = &p->index[bucket(p, p->entries[i].key)];
  p->entries[i].chain = *head;
  *head = i;
}

static void index_remove(struct policy *p, uint32_t i) {
  uint32_t *at = &p->index[bucket(p, p->entries[i].key)];
  while (*at != i)
    at = &p->entries[*at].chain;
  *at = p->entries[i].chain;
}

/* Appends at the newest end. */
static void enqueue(struct policy *p, enum policy_queue q, uint32_t i) {
  struct policy_entry *e = &p->entries[i];
  e->queue = (uint8_t)q;
  e->newer = 0;
  e->older = p->newest[q];
  if (e->older)
    p->entries[e->older].newer = i;
  else
    p->oldest[q] = i;
  p->newest[q] = i;
  p->len[q]++;
}

static void dequeue(struct policy *p, uint32_t i) {
  struct policy_entry *e = &p->entries[i];
  enum policy_queue q = (enum policy_queue)e->queue;
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

static void forget(struct policy *p, uint32_t i) {
  dequeue(p, i);
  index_remove(p, i);
  p->entries[i].older = p->free;
  p->free = i;
}

/* Remembers a page that left; the oldest ghosts make room. */
static void make_ghost(struct policy *p, uint32_t i) {
  dequeue(p, i);
  enqueue(p, POLICY_GHOST, i);
  while (p->len[POLICY_GHOST] > policy_len(p))
    forget(p, p->oldest[POLICY_GHOST]);
}

static int grow_index(struct policy *p, uint32_t n) {
  uint32_t *index = calloc(n, sizeof *index);
  if (!index)
    return -ENOMEM;
  free(p->index);
  p->index = index;
  p->n_index = n;
  for (int q = 0; q < POLICY_N_QUEUES; q++)
    for (uint32_t i = p->newest[q]; i; i = p->entries[i].older)
      index_add(p, i);
  return 0;
}

static int grow(struct policy *p, uint64_t n_entries) {
  if (n_entries > UINT32_MAX / 2)
    return -ENOMEM;
  uint32_t n_index = p->n_index ? p->n_index : 64;
  while (n_index < n_entries)
    n_index *= 2;
  struct policy_entry *entries =
      realloc(p->entries, n_entries * sizeof *entries);
  if (!entries)
    return -ENOMEM;
  p->entries = entries;
  if (n_index != p->n_index) {
    int r = grow_index(p, n_index);
    if (r < 0)
      return r;
  }
  for (uint32_t i = p->n_entries ? p->n_entries : 1; i < n_entries; i++) {
    entries[i].older = p->free;
    p->free = i;
  }
  p->n_entries = (uint32_t)n_entries;
  return 0;
}

int policy_reserve(struct policy *p, uint32_t n) {
  uint64_t need = 1ull + policy_len(p) + p->len[POLICY_GHOST] + p->n_out + n;
  if (need <= p->n_entries)
    return 0;
  uint64_t doubled = 2ull * p->n_entries;
  return grow(p, need > doubled ? need : doubled);
}

void policy_insert(struct policy *p, uint64_t key) {
  enum policy_queue q = POLICY_SMALL;
  uint32_t i = find(p, key);
  if (i) {
    assert(p->entries[i].queue == POLICY_GHOST);
    dequeue(p, i);
    q = POLICY_MAIN;
  } else {
    i = p->free;
    assert(i); /* policy_reserve() */
    p->free = p->entries[i].older;
    p->entries[i].key = key;
    index_add(p, i);
  }
  p->entries[i].born = p->n_insertions++;
  enqueue(p, q, i);
}

void policy_remove(struct policy *p, uint64_t key) {
  uint32_t i = find(p, key);
  if (i && p->entries[i].queue != POLICY_GHOST)
    forget(p, i);
}

void policy_gone(struct policy *p) {
  assert(p->n_out > 0);
  p->n_out--;
}

void policy_restore(struct policy *p, uint64_t key) {
  policy_gone(p);
  uint32_t i = find(p, key);
  if (!i) {
    policy_insert(p, key);
    i = find(p, key);
  }
  dequeue(p, i);
  enqueue(p, POLICY_MAIN, i);
}

/* Lets entry `i` go. */
static uint64_t take(struct policy *p, uint32_t i) {
  uint64_t key = p->entries[i].key;
  if (p->entries[i].queue == POLICY_SMALL)
    make_ghost(p, i);
  else
    forget(p, i);
  p->n_out++;
  return key;
}

/* The next victim by S3-FIFO proper, 0 when there is none. */
static uint32_t next_victim(struct policy *p, unsigned *chances,
                            bool (*used)(void *, uint64_t, bool), void *arg) {
  while (policy_len(p) > 0) {
    bool small = p->len[POLICY_SMALL] > 0 &&
                 (uint64_t)p->len[POLICY_SMALL] * 10 >= policy_len(p);
    if (!p->len[POLICY_MAIN])
      small = true;
    uint32_t i = p->oldest[small ? POLICY_SMALL : POLICY_MAIN];
    if (*chances == 0 || !used(arg, p->entries[i].key, true))
      return i;
    --*chances;
    dequeue(p, i);
    enqueue(p, POLICY_MAIN, i);
  }
  return 0;
}

/* Takes the neighbours of a victim that are as unused: in the same queue, not
 * used, and not in the younger half of it (they may be read next). */
static size_t take_group(struct policy *p, uint64_t key, enum policy_queue q,
                         uint64_t *keys, size_t max,
                         bool (*used)(void *, uint64_t, bool), void *arg) {
  size_t n = 0;
  uint64_t first = key & ~(uint64_t)(POLICY_GROUP - 1);
  for (uint64_t k = first; k < first + POLICY_GROUP && n < max; k++) {
    uint32_t i = k == key ? 0 : find(p, k);
    if (!i || p->entries[i].queue != q || used(arg, k, false))
      continue;
    uint32_t age = p->n_insertions - p->entries[i].born;
    if (age >= p->len[q] / 2)
      keys[n++] = take(p, i);
  }
  return n;
}

size_t policy_pick(struct policy *p, size_t want, uint64_t *keys, size_t max,
                   bool (*used)(void *arg, uint64_t key, bool clear),
                   void *arg) {
  unsigned chances = SECOND_CHANCES;
  size_t n = 0;
  while (n < want && n < max) {
    uint32_t i = next_victim(p, &chances, used, arg);
    if (!i)
      break;
    enum policy_queue q = (enum policy_queue)p->entries[i].queue;
    uint64_t key = take(p, i);
    keys[n++] = key;
    n += take_group(p, key, q, keys + n, max - n, used, arg);
  }
  return n;
}
