#include "cache/fill_buffers.h"

#include <assert.h>
#include <malloc.h>
#include <stdlib.h>
#include <sys/mman.h>

/* What a region is cut into. */
struct cut {
  size_t len, buffer_len;
};

static const struct cut cut_buffers = {FILL_BUFFERS_LEN, FILL_BUFFER_LEN};
static const struct cut cut_blocks = {FILL_BLOCKS_LEN, FILL_BLOCK_LEN};

/* A shorter buffer saves a disk too little, and comes from malloc(3). */
#define BUFFER_MIN_LEN (FILL_BUFFER_LEN / 4)

#define HUGE_PAGE_LEN ((size_t)2 << 20) /* of 4 KiB pages */

/* As direct reads require it (source/file.c), also those by a ring. */
#define BUFFER_ALIGN 4096

static uint32_t all_free(const struct cut *cut) {
  return (UINT32_C(1) << cut->len / cut->buffer_len) - 1;
}

/* ---- A region ------------------------------------------------------------ */

static void region_init(struct fill_region *r, const struct cut *cut) {
  size_t len = cut->len + HUGE_PAGE_LEN; /* room to align it */
  uint8_t *at = mmap(NULL, len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return;
  size_t before = -(uintptr_t)at % HUGE_PAGE_LEN;
  if (before > 0)
    munmap(at, before);
  munmap(at + before + cut->len, HUGE_PAGE_LEN - before);
  r->at = at + before;
  r->free = all_free(cut);
  madvise(r->at, cut->len, MADV_HUGEPAGE);
}

static void region_fini(struct fill_region *r, const struct cut *cut) {
  if (!r->at)
    return;
  assert(r->free == all_free(cut)); /* U1: there is no fill any more */
  munmap(r->at, cut->len);
  r->at = NULL;
}

/* NULL: none is free. */
static uint8_t *region_get(struct fill_region *r, const struct cut *cut) {
  uint32_t free = __atomic_load_n(&r->free, __ATOMIC_RELAXED);
  while (free) {
    uint32_t rest = free & (free - 1);
    if (!__atomic_compare_exchange_n(&r->free, &free, rest, true,
                                     __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
      continue;
    __atomic_store_n(&r->was_used, true, __ATOMIC_RELAXED);
    return r->at + (size_t)__builtin_ctz(free) * cut->buffer_len;
  }
  return NULL;
}

/* False: they are none of its. */
static bool region_put(struct fill_region *r, const struct cut *cut,
                       const uint8_t *bytes) {
  size_t at = (uintptr_t)bytes - (uintptr_t)r->at;
  if (!r->at || at >= cut->len)
    return false;
  __atomic_fetch_or(&r->free, UINT32_C(1) << at / cut->buffer_len,
                    __ATOMIC_RELEASE);
  return true;
}

static bool region_trim(struct fill_region *r, const struct cut *cut) {
  uint32_t all = all_free(cut);
  if (!r->at)
    return false;
  if (__atomic_exchange_n(&r->was_used, false, __ATOMIC_RELAXED) ||
      !__atomic_compare_exchange_n(&r->free, &all, 0, false, __ATOMIC_ACQUIRE,
                                   __ATOMIC_RELAXED))
    return true;
  madvise(r->at, cut->len, MADV_DONTNEED);
  __atomic_store_n(&r->free, all_free(cut), __ATOMIC_RELEASE);
  return false;
}

/* ---- Both ---------------------------------------------------------------- */

void fill_buffers_init(struct fill_buffers *b) {
  region_init(&b->buffers, &cut_buffers);
  region_init(&b->blocks, &cut_blocks);
}

void fill_buffers_fini(struct fill_buffers *b) {
  region_fini(&b->buffers, &cut_buffers);
  region_fini(&b->blocks, &cut_blocks);
}

uint8_t *fill_buffers_get(struct fill_buffers *b, size_t len) {
  uint8_t *bytes = NULL;
  if (len >= BUFFER_MIN_LEN && len <= FILL_BUFFER_LEN)
    bytes = region_get(&b->buffers, &cut_buffers);
  else if (len > FILL_BUFFER_LEN && len <= FILL_BLOCK_LEN)
    bytes = region_get(&b->blocks, &cut_blocks);
  if (bytes)
    return bytes;
  if (len >= BUFFER_MIN_LEN)
    __atomic_store_n(&b->was_short, true, __ATOMIC_RELAXED);
  void *memory;
  return posix_memalign(&memory, BUFFER_ALIGN, len) == 0 ? memory : NULL;
}

void fill_buffers_put(struct fill_buffers *b, uint8_t *bytes) {
  if (!region_put(&b->buffers, &cut_buffers, bytes) &&
      !region_put(&b->blocks, &cut_blocks, bytes))
    free(bytes);
}

bool fill_buffers_trim(struct fill_buffers *b) {
  bool buffers = region_trim(&b->buffers, &cut_buffers);
  bool blocks = region_trim(&b->blocks, &cut_blocks);
  if (buffers || blocks)
    return true;
  if (b->buffers.at && b->blocks.at &&
      __atomic_exchange_n(&b->was_short, false, __ATOMIC_RELAXED))
    malloc_trim(0);
  return false;
}
