#include "daemon/engine/ledger.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cache/mirror.h"

struct ledger_head {
  char magic[8];
  uint32_t layout;
  uint32_t mirror_len, table_len; /* of a record */
  uint32_t n_mirrors, n_tables;
};

struct ledger_memory {
  struct ledger_head head;
  struct ledger_mirror mirrors[LEDGER_N_MIRRORS] __attribute__((aligned(4096)));
  struct ledger_table tables[LEDGER_N_TABLES] __attribute__((aligned(4096)));
};

/* Increase it when a record changes, or what it means. */
enum { LAYOUT = 2 };

static const struct ledger_head right_head = {
    .magic = "ledger",
    .layout = LAYOUT,
    .mirror_len = sizeof(struct ledger_mirror),
    .table_len = sizeof(struct ledger_table),
    .n_mirrors = LEDGER_N_MIRRORS,
    .n_tables = LEDGER_N_TABLES,
};

static int map_memory(struct ledger *ledger) {
  void *at = mmap(NULL, sizeof *ledger->memory, PROT_READ | PROT_WRITE,
                  MAP_SHARED, ledger->fd, 0);
  if (at == MAP_FAILED)
    return -errno;
  ledger->memory = at;
  return 0;
}

int ledger_new(struct ledger *ledger) {
  *ledger = (struct ledger){0};
  ledger->fd =
      mirror_memfd("cachet-ledger", sizeof *ledger->memory, MEMFD_LOOKED_AT);
  if (ledger->fd < 0)
    return ledger->fd;
  int r = map_memory(ledger);
  if (r < 0)
    ledger_fini(ledger);
  else
    ledger->memory->head = right_head;
  return r;
}

int ledger_adopt(struct ledger *ledger, int fd) {
  *ledger = (struct ledger){.fd = fd};
  int r = mirror_is_own_memfd(fd, sizeof *ledger->memory) ? 0 : -EPROTO;
  if (r == 0)
    r = map_memory(ledger);
  if (r == 0 &&
      memcmp(&ledger->memory->head, &right_head, sizeof right_head) != 0)
    r = -EPROTO;
  if (r < 0)
    ledger_fini(ledger);
  return r;
}

void ledger_fini(struct ledger *ledger) {
  if (ledger->memory)
    munmap(ledger->memory, sizeof *ledger->memory);
  if (ledger->fd >= 0)
    close(ledger->fd);
  *ledger = (struct ledger){.fd = -1};
}

void ledger_spoil(struct ledger *ledger) { ledger->memory->head.layout = 0; }

struct ledger_mirror *ledger_get_mirror(const struct ledger *ledger,
                                        uint32_t i) {
  return &ledger->memory->mirrors[i];
}

struct ledger_table *ledger_get_table(const struct ledger *ledger, uint32_t i) {
  return &ledger->memory->tables[i];
}

/* ---- Checksums ----------------------------------------------------------- */

/* FNV-1a.  It detects a record that was written in part or overwritten, not one
 * that was forged. */
static uint64_t sum(const void *bytes, size_t len) {
  const unsigned char *p = bytes;
  uint64_t hash = UINT64_C(14695981039346656037);
  for (size_t i = 0; i < len; i++)
    hash = (hash ^ p[i]) * UINT64_C(1099511628211);
  return hash;
}

static uint64_t sum_mirror(const struct ledger_mirror *record) {
  struct ledger_mirror fixed;
  memcpy(&fixed, record, sizeof fixed); /* with its padding */
  fixed.state = 0;
  fixed.checksum = 0;
  return sum(&fixed, sizeof fixed);
}

static uint64_t sum_table(const struct ledger_table *record) {
  struct ledger_table fixed;
  memcpy(&fixed, record, sizeof fixed);
  fixed.state = 0;
  fixed.checksum = fixed.size = fixed.share = 0;
  return sum(&fixed, sizeof fixed);
}

void ledger_seal_mirror(struct ledger_mirror *record) {
  record->checksum = sum_mirror(record);
}

bool ledger_mirror_is_whole(const struct ledger_mirror *record) {
  return record->checksum == sum_mirror(record) &&
         memchr(record->image, '\0', sizeof record->image);
}

void ledger_seal_table(struct ledger_table *record) {
  record->checksum = sum_table(record);
}

bool ledger_table_is_whole(const struct ledger_table *record) {
  return record->checksum == sum_table(record) &&
         record->mirror < LEDGER_N_MIRRORS;
}

/* ---- Leases -------------------------------------------------------------- */

void ledger_put_lease(struct ledger_table *record,
                      const struct shared_pins_remains *lease) {
  uint64_t size = lease->size.page_slots | (uint64_t)lease->size.range_capacity
                                               << 32;
  __atomic_store_n(&record->share,
                   lease->is_replaced ? lease->share : LEDGER_WHOLE,
                   __ATOMIC_RELAXED);
  __atomic_store_n(&record->size, size, __ATOMIC_RELAXED);
}

void ledger_take_lease(const struct ledger_table *record,
                       struct shared_pins_remains *lease) {
  uint64_t size = __atomic_load_n(&record->size, __ATOMIC_RELAXED);
  uint64_t share = __atomic_load_n(&record->share, __ATOMIC_RELAXED);
  *lease = (struct shared_pins_remains){
      .fd = -1,
      .user = record->uid,
      .size = {(uint32_t)size, (uint32_t)(size >> 32)},
      .is_replaced = share != LEDGER_WHOLE,
      .share = share};
}

/* ---- Names --------------------------------------------------------------- */

void ledger_name_mirror(uint32_t i, char name[LEDGER_NAME_LEN]) {
  snprintf(name, LEDGER_NAME_LEN, "m%x", i);
}

void ledger_name_table(uint32_t i, char name[LEDGER_NAME_LEN]) {
  snprintf(name, LEDGER_NAME_LEN, "t%x", i);
}

bool ledger_parse_name(const char *name, char kind, uint32_t most,
                       uint32_t *i) {
  char *end, again[LEDGER_NAME_LEN];
  if (name[0] != kind)
    return false;
  unsigned long n = strtoul(name + 1, &end, 16);
  if (n >= most)
    return false;
  *i = (uint32_t)n;
  snprintf(again, sizeof again, "%c%x", kind, *i);
  return strcmp(again, name) == 0; /* each number has only one spelling */
}
