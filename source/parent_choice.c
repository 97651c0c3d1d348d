#include "source/parent_choice.h"

#include <stdlib.h>
#include <string.h>

/* FNV-1a, of a text with the zero at its end. */
static uint64_t hash_text(uint64_t hash, const char *text) {
  do
    hash = (hash ^ (unsigned char)*text) * UINT64_C(1099511628211);
  while (*text++);
  return hash;
}

/* The last step of splitmix64: each bit of `x` moves half of the others. */
static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}

uint64_t parent_choice_seed(const char *place, const char *image) {
  uint64_t hash = hash_text(UINT64_C(14695981039346656037), place);
  return mix(hash_text(hash, image));
}

uint64_t parent_choice_score(uint64_t seed, uint64_t offset) {
  return mix(seed ^ mix(offset / PARENT_CHOICE_BLOCK + 1));
}

void parent_choice_took(struct parent_times *t, uint64_t ms) {
  t->ms[t->next] = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
  t->next = (t->next + 1) % PARENT_CHOICE_TIMES;
  t->n += t->n < PARENT_CHOICE_TIMES;
}

static int by_time(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return (x > y) - (x < y);
}

uint32_t parent_choice_patience(const struct parent_times *t,
                                uint32_t most_ms) {
  uint32_t sorted[PARENT_CHOICE_TIMES], ms = PARENT_CHOICE_LEAST_MS;
  if (t->n >= PARENT_CHOICE_ENOUGH) {
    memcpy(sorted, t->ms, t->n * sizeof sorted[0]);
    qsort(sorted, t->n, sizeof sorted[0], by_time);
    uint32_t p95 = sorted[t->n * 95 / 100];
    ms = p95 > ms ? p95 : ms;
  }
  return ms < most_ms ? ms : most_ms;
}
