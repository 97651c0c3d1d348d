#include "cache/shared_pins.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "cache/budget.h"
#include "cache/internal.h"
#include "cache/view.h"

/* Limits of a user, in sixteenths of what the other users leave of the half
 * (see L1).  The leases of the user may grow up to the first limit.  The rest
 * is for new leases, which are small and get shares up to the second.  What
 * remains then is for leases that replace others whose pins still stand, up to
 * the third. */
enum { PART_TO_GROW = 3, PART_OF_NEW = 7, PART_OF_REPLACING = 8, PARTS = 16 };

struct shared_pins {
  struct pin_table table;
  struct pin_page *page;
  int fd;          /* -1: taken */
  bool is_charged; /* its page is in the account */

  /* under the cache lock */
  struct shared_pins_user *user; /* NULL: it has no share yet */
  LIST_ENTRY(shared_pins) of_user;
  uint64_t len; /* its share */
  uint32_t cut[PIN_N_SLOTS];
};

/* ---- Users --------------------------------------------------------------- */

static struct shared_pins_user **user_bucket(struct page_cache *pc,
                                             uint32_t number) {
  return &pc->shared_pins_users[number % SHARED_PINS_BUCKETS];
}

/* Makes a lease one of the user of that number.  If there is no such user, it
 * makes one.  False: no memory. */
static bool user_enter_locked(struct page_cache *pc, struct shared_pins *l,
                              uint32_t number) {
  lock_assert_held(&pc->lock);
  struct shared_pins_user **head = user_bucket(pc, number), *user = *head;
  while (user && user->number != number)
    user = user->next;
  if (!user && (user = calloc(1, sizeof *user))) {
    user->number = number;
    user->next = *head;
    *head = user;
  }
  l->user = user;
  if (user)
    LIST_INSERT_HEAD(&user->leases, l, of_user);
  return user != NULL;
}

static void user_leave_locked(struct page_cache *pc, struct shared_pins *l) {
  lock_assert_held(&pc->lock);
  struct shared_pins_user *user = l->user;
  LIST_REMOVE(l, of_user);
  if (!LIST_EMPTY(&user->leases))
    return;
  assert(user->len == 0);
  struct shared_pins_user **at = user_bucket(pc, user->number);
  while (*at != user)
    at = &(*at)->next;
  *at = user->next;
  free(user);
}

/* ---- Shares -------------------------------------------------------------- */

static unsigned page_shift(const struct shared_pins *l) {
  return l->table.mirror->page_shift;
}

static uint64_t size_len(const struct shared_pins *l,
                         struct shared_pins_size size) {
  uint64_t pages =
      size.page_slots + (uint64_t)size.range_capacity * PIN_N_RANGE_SLOTS;
  return pages << page_shift(l);
}

/* Sets a lease's share; L5. */
static void set_len_locked(struct page_cache *pc, struct shared_pins *l,
                           uint64_t len) {
  lock_assert_held(&pc->lock);
  l->user->len += len - l->len;
  pc->leased += len - l->len;
  l->len = len;
}

/* How many more bytes a user may have. */
static uint64_t room_locked(const struct page_cache *pc,
                            const struct shared_pins_user *user,
                            unsigned part) {
  lock_assert_held(&pc->lock);
  uint64_t others = pc->leased - user->len, half = pc->budget / 2;
  uint64_t most = others < half ? (half - others) / PARTS * part : 0;
  return most > user->len ? most - user->len : 0;
}

/* How large the share of a lease may become; 0: not even `least`.  Beyond
 * `least` it gets only a quarter of the room for growing, so that other leases
 * find some as well. */
static uint64_t limit_locked(const struct page_cache *pc,
                             const struct shared_pins *l, uint64_t least,
                             unsigned part) {
  lock_assert_held(&pc->lock);
  uint64_t missing = least > l->len ? least - l->len : 0;
  uint64_t most = pc->budget / 8;
  if (missing > room_locked(pc, l->user, part) || least > most)
    return 0;
  uint64_t grown = l->len + room_locked(pc, l->user, PART_TO_GROW) / 4;
  if (grown > most)
    grown = most;
  uint64_t len = l->len + missing;
  return grown > len ? grown : len;
}

/* The largest size up to `most` that fits the limit; `least` does. */
static struct shared_pins_size fit_size(uint64_t pages,
                                        struct shared_pins_size least,
                                        struct shared_pins_size most) {
  struct shared_pins_size size = most;
  uint64_t ranges = (uint64_t)least.range_capacity * PIN_N_RANGE_SLOTS;
  if (size.page_slots > pages - ranges)
    size.page_slots = (uint32_t)(pages - ranges);
  uint64_t each = (pages - size.page_slots) / PIN_N_RANGE_SLOTS;
  if (size.range_capacity > each)
    size.range_capacity = (uint32_t)each;
  return size;
}

static void set_size_locked(struct page_cache *pc, struct shared_pins *l,
                            struct shared_pins_size size) {
  lock_assert_held(&pc->pins_lock);
  lock_assert_held(&pc->lock);
  uint64_t len = size_len(l, size);
  bool grows = len > l->len;
  set_len_locked(pc, l, len);
  assert(!grows ||
         (pc->leased <= pc->budget / 2 && len <= pc->budget / 8)); /* L1, L5 */
  l->table.page_slots = l->page->page_slots = size.page_slots;
  l->table.range_capacity = l->page->range_capacity = size.range_capacity;
}

/* Sets `cut` to the number of pages that each slot holds now, and returns the
 * sum in bytes.  If the lease was cut before, a slot counts at most as many as
 * it was cut to. */
static uint64_t count_pins_locked(const struct shared_pins *l,
                                  uint32_t cut[PIN_N_SLOTS]) {
  lock_assert_held(&l->table.mirror->cache->lock);
  uint64_t pages = 0;
  for (unsigned i = 0; i < PIN_N_SLOTS; i++) {
    uint64_t word = __atomic_load_n(&l->table.slots[i], __ATOMIC_ACQUIRE);
    cut[i] =
        pin_count(word) <= pin_capacity(&l->table, i) ? pin_count(word) : 0;
    pages += cut[i];
  }
  return pages << page_shift(l);
}

/* L4. */
static void cut_locked(struct page_cache *pc, struct shared_pins *l,
                       const uint32_t cut[PIN_N_SLOTS], uint64_t len) {
  lock_assert_held(&pc->pins_lock);
  lock_assert_held(&pc->lock);
  memcpy(l->cut, cut, sizeof l->cut);
  __atomic_store_n(&l->table.cut, l->cut, __ATOMIC_RELAXED); /* see trim() */
  set_len_locked(pc, l, len);
}

/* ---- Checks -------------------------------------------------------------- */

/* Its share is what its slots can hold. */
static void check_lease_locked(const struct shared_pins *l) {
  lock_assert_held(&l->table.mirror->cache->lock);
  const struct pin_table *t = &l->table;
  uint64_t pages = 0;
  assert(t->is_lent && t->slots == l->page->slots);
  assert(t->page_slots <= PIN_MAX_PAGE_SLOTS);
  assert(t->range_capacity <= PIN_MAX_COUNT);
  for (unsigned i = 0; i < PIN_N_SLOTS; i++)
    pages += pin_capacity(t, i);
  assert(l->len == pages << page_shift(l)); /* L4 */
}

static void check_user_locked(const struct page_cache *pc,
                              const struct shared_pins_user *user) {
  lock_assert_held(&pc->lock);
  uint64_t len = 0;
  const struct shared_pins *l;
  assert(!LIST_EMPTY(&user->leases));
  LIST_FOREACH(l, &user->leases, of_user) {
    assert(l->user == user && l->table.mirror->cache == pc);
    check_lease_locked(l);
    len += l->len;
  }
  assert(len == user->len);
}

void shared_pins_check_locked(const struct page_cache *pc) {
  lock_assert_held(&pc->lock);
  uint64_t leased = 0;
  for (unsigned i = 0; i < SHARED_PINS_BUCKETS; i++)
    for (const struct shared_pins_user *user = pc->shared_pins_users[i]; user;
         user = user->next) {
      assert(user->number % SHARED_PINS_BUCKETS == i);
      check_user_locked(pc, user);
      leased += user->len;
    }
  assert(leased == pc->leased);
}

/* After a change of a lease. */
static void check_changed_locked(const struct shared_pins *l) {
  const struct page_cache *pc = l->table.mirror->cache;
  lock_assert_held(&pc->lock);
#ifdef CACHETD_DEBUG_CHECKS
  if (l->user)
    check_user_locked(pc, l->user);
#endif
}

/* ---- Giving -------------------------------------------------------------- */

static int give_locked(struct page_cache *pc, struct shared_pins *l,
                       struct shared_pins_size least,
                       struct shared_pins_size most,
                       struct shared_pins *replaced) {
  lock_assert_held(&pc->lock);
  uint32_t cut[PIN_N_SLOTS];
  uint64_t before = replaced ? replaced->len : 0;
  uint64_t pinned = replaced ? count_pins_locked(replaced, cut) : 0;
  if (replaced)
    set_len_locked(pc, replaced, pinned);
  set_len_locked(pc, l, before - pinned);
  uint64_t limit = limit_locked(pc, l, size_len(l, least),
                                replaced ? PART_OF_REPLACING : PART_OF_NEW);
  if (!limit) {
    set_len_locked(pc, l, 0);
    if (replaced)
      set_len_locked(pc, replaced, before);
    return -EDQUOT;
  }
  set_size_locked(pc, l, fit_size(limit >> page_shift(l), least, most));
  if (replaced)
    cut_locked(pc, replaced, cut, pinned);
  return 0;
}

int shared_pins_give(struct shared_pins *l, uint32_t user,
                     struct shared_pins_size least,
                     struct shared_pins_size most,
                     struct shared_pins *replaced) {
  struct page_cache *pc = l->table.mirror->cache;
  int r = -ENOMEM;
  pthread_mutex_lock(&pc->pins_lock);
  pthread_mutex_lock(&pc->lock);
  bool has_user = l->user || user_enter_locked(pc, l, user);
  if (replaced && (replaced->user != l->user || replaced->table.cut))
    replaced = NULL;
  if (has_user)
    r = give_locked(pc, l, least, most, replaced);
  check_changed_locked(l);
  pthread_mutex_unlock(&pc->lock);
  pthread_mutex_unlock(&pc->pins_lock);
  return r;
}

void shared_pins_grow(struct shared_pins *l, struct shared_pins_size most) {
  struct page_cache *pc = l->table.mirror->cache;
  pthread_mutex_lock(&pc->pins_lock);
  pthread_mutex_lock(&pc->lock);
  struct shared_pins_size least = {l->table.page_slots,
                                   l->table.range_capacity};
  if (most.page_slots < least.page_slots)
    most.page_slots = least.page_slots;
  if (most.range_capacity < least.range_capacity)
    most.range_capacity = least.range_capacity;
  if (!l->table.cut) {
    uint64_t limit = limit_locked(pc, l, l->len, PART_OF_NEW);
    if (limit)
      set_size_locked(pc, l, fit_size(limit >> page_shift(l), least, most));
  }
  check_changed_locked(l);
  pthread_mutex_unlock(&pc->lock);
  pthread_mutex_unlock(&pc->pins_lock);
}

/* ---- Life ---------------------------------------------------------------- */

/* Makes the page of the table.  The other process gets a descriptor for
 * writing, so the memfd is sealed against resizing and against further
 * seals. */
static int make_page(struct shared_pins *l) {
  int fd = mirror_memfd("cachet-pins", PIN_PAGE_LEN, MEMFD_LOOKED_AT);
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
  };
  l->table.slots = l->page->slots;
  return 0;
}

CLEANUP_FUNCTION(struct shared_pins *, shared_pins_free)

/* NULL: no memory. */
static struct shared_pins *alloc(struct mirror *m) {
  struct shared_pins *l = calloc(1, sizeof *l);
  if (!l)
    return NULL;
  l->fd = -1;
  l->table.is_lent = true;
  l->table.mirror = mirror_ref(m);
  return l;
}

int shared_pins_new(struct mirror *m, struct shared_pins **out) {
  CLEANUP(shared_pins_freep) struct shared_pins *l = alloc(m);
  if (!l)
    return -ENOMEM;
  /* It evicts nothing to get it, because its thread serves other requests, too.
   */
  l->is_charged = budget_reserve_table(m->cache, PIN_PAGE_LEN);
  int r = l->is_charged ? make_page(l) : -EAGAIN;
  if (r < 0)
    return r;
  /* Before another process gets the descriptor: its first pin must count. */
  view_list_table(&l->table);
  *out = STEAL(l);
  return 0;
}

/* ---- Adopting ------------------------------------------------------------ */

void shared_pins_describe(const struct shared_pins *l,
                          struct shared_pins_remains *out) {
  struct page_cache *pc = l->table.mirror->cache;
  pthread_mutex_lock(&pc->lock);
  *out = (struct shared_pins_remains){
      .fd = -1,
      .user = l->user ? l->user->number : 0,
      .size = {l->table.page_slots, l->table.range_capacity},
      .is_replaced = l->table.cut != NULL,
      .share = l->len,
  };
  pthread_mutex_unlock(&pc->lock);
}

/* L4: leaves the lease what is pinned in it now, up to its share.  The other
 * process stores no new pins there; if it does, the evictor ignores them. */
static void cut_to_share_locked(struct page_cache *pc, struct shared_pins *l,
                                uint64_t share) {
  lock_assert_held(&pc->lock);
  uint32_t cut[PIN_N_SLOTS];
  uint64_t len = 0;
  count_pins_locked(l, cut);
  for (unsigned i = 0; i < PIN_N_SLOTS; i++) {
    uint64_t more = (uint64_t)cut[i] << page_shift(l);
    if (more > share - len)
      cut[i] = 0;
    else
      len += more;
  }
  cut_locked(pc, l, cut, len);
}

static bool remains_are_right(const struct shared_pins_remains *remains) {
  struct stat st;
  int seals = fcntl(remains->fd, F_GET_SEALS);
  return remains->size.page_slots <= PIN_MAX_PAGE_SLOTS &&
         remains->size.range_capacity <= PIN_MAX_COUNT && seals >= 0 &&
         seals & F_SEAL_SHRINK && fstat(remains->fd, &st) == 0 &&
         st.st_size == PIN_PAGE_LEN;
}

/* Takes nothing from the head of the page: its client could write there. */
static int adopt_page(struct shared_pins *l,
                      struct shared_pins_remains *remains) {
  int r = remains_are_right(remains) ? 0 : -EPROTO;
  void *at = MAP_FAILED;
  if (r == 0)
    at = mmap(NULL, PIN_PAGE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED,
              remains->fd, 0);
  if (r == 0 && at == MAP_FAILED)
    r = -errno;
  close(remains->fd);
  remains->fd = -1;
  if (r < 0)
    return r;
  l->page = at;
  l->table.slots = l->page->slots;
  l->table.page_slots = remains->size.page_slots;
  l->table.range_capacity = remains->size.range_capacity;
  return 0;
}

static int adopt_share(struct shared_pins *l,
                       const struct shared_pins_remains *remains) {
  struct page_cache *pc = l->table.mirror->cache;
  pthread_mutex_lock(&pc->pins_lock);
  pthread_mutex_lock(&pc->lock);
  bool has_user = user_enter_locked(pc, l, remains->user);
  if (has_user) {
    pc->used += PIN_PAGE_LEN; /* the memory exists, with room or without */
    l->is_charged = true;
    set_len_locked(pc, l, size_len(l, remains->size));
    if (remains->is_replaced)
      cut_to_share_locked(pc, l, remains->share);
  }
  check_changed_locked(l);
  pthread_mutex_unlock(&pc->lock);
  pthread_mutex_unlock(&pc->pins_lock);
  return has_user ? 0 : -ENOMEM;
}

int shared_pins_adopt(struct mirror *m, struct shared_pins_remains *remains,
                      struct shared_pins **out) {
  CLEANUP(shared_pins_freep) struct shared_pins *l = alloc(m);
  if (!l) {
    close(remains->fd);
    return -ENOMEM;
  }
  int r = adopt_page(l, remains);
  if (r == 0)
    r = adopt_share(l, remains);
  if (r < 0)
    return r;
  view_list_table(&l->table);
  *out = STEAL(l);
  return 0;
}

/* ---- Ending -------------------------------------------------------------- */

static void give_share_back(struct shared_pins *l) {
  struct page_cache *pc = l->table.mirror->cache;
  pthread_mutex_lock(&pc->lock);
  if (l->user) {
    set_len_locked(pc, l, 0);
    user_leave_locked(pc, l);
  }
  pthread_mutex_unlock(&pc->lock);
}

void shared_pins_free(struct shared_pins *l) {
  if (!l)
    return;
  struct mirror *m = l->table.mirror;
  view_unlist_table(&l->table);
  if (l->page)
    munmap(l->page, PIN_PAGE_LEN);
  if (l->fd >= 0)
    close(l->fd);
  if (l->is_charged)
    budget_release(m->cache, PIN_PAGE_LEN);
  give_share_back(l);
  free(l);
  mirror_unref(m);
}

struct shared_pins_size shared_pins_get_size(const struct shared_pins *l) {
  struct page_cache *pc = l->table.mirror->cache;
  pthread_mutex_lock(&pc->lock);
  struct shared_pins_size size = {l->table.page_slots, l->table.range_capacity};
  pthread_mutex_unlock(&pc->lock);
  return size;
}

int shared_pins_take_fd(struct shared_pins *l) {
  int fd = l->fd;
  assert(fd >= 0);
  l->fd = -1;
  return fd;
}

/* Whether a lease that was replaced has no pin left. */
static bool trim(struct shared_pins *l) {
  struct page_cache *pc = l->table.mirror->cache;
  uint32_t cut[PIN_N_SLOTS];
  if (!__atomic_load_n(&l->table.cut, __ATOMIC_RELAXED))
    return false; /* without the lock: this is asked often */
  pthread_mutex_lock(&pc->pins_lock);
  pthread_mutex_lock(&pc->lock);
  uint64_t len = count_pins_locked(l, cut);
  cut_locked(pc, l, cut, len);
  check_changed_locked(l);
  pthread_mutex_unlock(&pc->lock);
  pthread_mutex_unlock(&pc->pins_lock);
  return len == 0;
}

bool shared_pins_collect(struct shared_pins *l) {
  /* Acquire: the reads of the other process come before, so the pages may be
   * punched. */
  return __atomic_load_n(&l->page->done, __ATOMIC_ACQUIRE) != 0 || trim(l);
}

struct image *shared_pins_image(const struct shared_pins *l) {
  return l->table.mirror->image;
}

struct pin_counts shared_pins_get_counts(const struct shared_pins *l) {
  const struct pin_counts *c = &l->page->counts;
  return (struct pin_counts){__atomic_load_n(&c->n_hits, __ATOMIC_RELAXED),
                             __atomic_load_n(&c->n_misses, __ATOMIC_RELAXED)};
}

uint32_t shared_pins_read_ahead(const struct shared_pins *l) {
  const struct mirror *m = l->table.mirror;
  uint64_t pages = (internal_budget(m->cache) / 32) >> m->page_shift;
  return pages < PIN_MAX_COUNT ? (uint32_t)pages : PIN_MAX_COUNT;
}

int shared_pins_map(int fd, uint32_t range_capacity, struct pin_page **out) {
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

void shared_pins_unmap(struct pin_page *page) {
  /* Release: our reads of the pages come before; pairs with
   * shared_pins_collect(). */
  __atomic_store_n(&page->done, 1, __ATOMIC_RELEASE);
  munmap(page, PIN_PAGE_LEN);
}
