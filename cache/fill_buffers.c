#include "cache/fill_buffers.h"

#include <stdlib.h>
#include <sys/mman.h>

enum { N_BUFFERS = FILL_BUFFERS_LEN / FILL_BUFFER_LEN };

#define ALL_FREE ((1u << N_BUFFERS) - 1)

/* Less is read by the way of the kernel's memory, into whatever memory. */
#define BUFFER_MIN_LEN (FILL_BUFFER_LEN / 4)

void fill_buffers_init(struct fill_buffers *b) {
  size_t len = 2 * FILL_BUFFERS_LEN; /* room to align it */
  uint8_t *at = mmap(NULL, len, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED)
    return;
  size_t before = -(uintptr_t)at % FILL_BUFFERS_LEN;
  if (before > 0)
    munmap(at, before);
  munmap(at + before + FILL_BUFFERS_LEN, FILL_BUFFERS_LEN - before);
  b->region = at + before;
  b->free = ALL_FREE;
  madvise(b->region, FILL_BUFFERS_LEN, MADV_HUGEPAGE);
}

void fill_buffers_fini(struct fill_buffers *b) {
  if (b->region)
    munmap(b->region, FILL_BUFFERS_LEN);
  b->region = NULL;
}

uint8_t *fill_buffers_get(struct fill_buffers *b, size_t len) {
  uint32_t free = __atomic_load_n(&b->free, __ATOMIC_RELAXED);
  if (len < BUFFER_MIN_LEN || len > FILL_BUFFER_LEN)
    return malloc(len);
  while (free) {
    uint32_t rest = free & (free - 1);
    if (!__atomic_compare_exchange_n(&b->free, &free, rest, true,
                                     __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
      continue;
    __atomic_store_n(&b->was_used, true, __ATOMIC_RELAXED);
    return b->region + (size_t)__builtin_ctz(free) * FILL_BUFFER_LEN;
  }
  return malloc(len);
}

void fill_buffers_put(struct fill_buffers *b, uint8_t *bytes) {
  size_t at = (uintptr_t)bytes - (uintptr_t)b->region;
  if (!b->region || at >= FILL_BUFFERS_LEN)
    free(bytes);
  else
    __atomic_fetch_or(&b->free, 1u << at / FILL_BUFFER_LEN, __ATOMIC_RELEASE);
}

bool fill_buffers_trim(struct fill_buffers *b) {
  uint32_t all = ALL_FREE;
  if (!b->region)
    return false;
  if (__atomic_exchange_n(&b->was_used, false, __ATOMIC_RELAXED) ||
      !__atomic_compare_exchange_n(&b->free, &all, 0, false, __ATOMIC_ACQUIRE,
                                   __ATOMIC_RELAXED))
    return true;
  madvise(b->region, FILL_BUFFERS_LEN, MADV_DONTNEED);
  __atomic_store_n(&b->free, ALL_FREE, __ATOMIC_RELEASE);
  return false;
}
