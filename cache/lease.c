#include "cache/lease.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/page_cache_impl.h"

/* Pages that every lease may pin beside its ranges. */
#define SINGLE_PAGES (1 + PIN_N_PAGE_SLOTS)

struct lease {
  struct pin_table table;
  struct pin_page *page;
  int fd;           /* -1: taken */
  uint64_t n_pages; /* its share */
};

/* Takes a share of the cache; the lock is held.  In pages, of which a range
 * slot may hold `*capacity`; 0: there is none.  The share is a sixteenth of
 * what is left of the half, so that there is something for many, but no less
 * than what makes a table of any use. */
static uint64_t take_share_locked(struct page_cache *pc, unsigned shift,
                                  uint32_t *capacity) {
  uint64_t half = pc->budget / 2;
  uint64_t left = pc->leased < half ? (half - pc->leased) >> shift : 0;
  uint64_t least = SINGLE_PAGES + PIN_N_RANGE_SLOTS;
  uint64_t pages = left / 16 > least ? left / 16 : least;
  if (pages > left || pages > (pc->budget / 8) >> shift)
    return 0;
  uint64_t each = (pages - SINGLE_PAGES) / PIN_N_RANGE_SLOTS;
  *capacity = each < PIN_MAX_COUNT ? (uint32_t)each : PIN_MAX_COUNT;
  pages = SINGLE_PAGES + (uint64_t)*capacity * PIN_N_RANGE_SLOTS;
  pc->leased += pages << shift;
  return pages;
}

static int take_share(struct lease *l, struct mirror *m) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  l->n_pages = take_share_locked(pc, m->page_shift, &l->table.range_capacity);
  pthread_mutex_unlock(&pc->lock);
  return l->n_pages ? 0 : -EDQUOT;
}

static void give_share_back(struct lease *l) {
  struct mirror *m = l->table.mirror;
  pthread_mutex_lock(&m->cache->lock);
  assert(m->cache->leased >= l->n_pages << m->page_shift);
  m->cache->leased -= l->n_pages << m->page_shift;
  pthread_mutex_unlock(&m->cache->lock);
}

/* The other process gets a descriptor for writing: it can neither resize the
 * memory nor seal it against us. */
static int make_page(struct lease *l) {
  int fd = mirror_memfd("cachet-pins", PIN_PAGE_LEN);
  if (fd < 0)
    return fd;
  l->fd = fd;
  void *at =
      mmap(NULL, PIN_PAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED)
    return -errno;
  l->page = at;
  *l->page = (struct pin_page){
      .layout = MIRROR_LAYOUT,
      .n_slots = PIN_N_SLOTS,
      .range_capacity = l->table.range_capacity,
  };
  l->table.slots = l->page->slots;
  return 0;
}

int lease_new(struct mirror *m, struct lease **out) {
  struct lease *l = calloc(1, sizeof *l);
  if (!l)
    return -ENOMEM;
  l->fd = -1;
  l->table.mirror = m;
  int r = take_share(l, m);
  if (r == 0 && !budget_reserve(m->cache, m, PIN_PAGE_LEN))
    r = -EDQUOT;
  else if (r == 0 && (r = make_page(l)) < 0)
    budget_release(m->cache, PIN_PAGE_LEN);
  if (r < 0) {
    if (l->n_pages)
      give_share_back(l);
    if (l->fd >= 0)
      close(l->fd);
    free(l);
    return r;
  }
  mirror_ref(m);
  pin_table_list(&l->table); /* before anybody else has the descriptor */
  *out = l;
  return 0;
}

void lease_free(struct lease *l) {
  if (!l)
    return;
  struct mirror *m = l->table.mirror;
  pin_table_unlist(&l->table);
  munmap(l->page, PIN_PAGE_LEN);
  if (l->fd >= 0)
    close(l->fd);
  budget_release(m->cache, PIN_PAGE_LEN);
  give_share_back(l);
  free(l);
  mirror_unref(m);
}

const struct mirror *lease_mirror(const struct lease *l) {
  return l->table.mirror;
}

uint32_t lease_range_capacity(const struct lease *l) {
  return l->table.range_capacity;
}

int lease_take_fd(struct lease *l) {
  int fd = l->fd;
  assert(fd >= 0);
  l->fd = -1;
  return fd;
}

bool lease_is_done(const struct lease *l) {
  /* Acquire: what it read through the lease, it read before. */
  return __atomic_load_n(&l->page->done, __ATOMIC_ACQUIRE) != 0;
}

int pin_page_map(int fd, uint32_t range_capacity, struct pin_page **out) {
  struct stat st;
  int seals = fcntl(fd, F_GET_SEALS);
  void *at = MAP_FAILED;
  bool is_table = seals >= 0 && seals & F_SEAL_SHRINK && fstat(fd, &st) == 0 &&
                  st.st_size == PIN_PAGE_LEN;
  if (is_table)
    at = mmap(NULL, PIN_PAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  int e = errno;
  close(fd);
  if (at == MAP_FAILED)
    return is_table ? -e : -EPROTO;
  struct pin_page *page = at;
  if (page->layout != MIRROR_LAYOUT || page->n_slots != PIN_N_SLOTS ||
      page->range_capacity != range_capacity) {
    munmap(at, PIN_PAGE_LEN);
    return -EPROTO;
  }
  *out = page;
  return 0;
}

void pin_page_unmap(struct pin_page *page) {
  /* Release: our reads of the pages come before. */
  __atomic_store_n(&page->done, 1, __ATOMIC_RELEASE);
  munmap(page, PIN_PAGE_LEN);
}
