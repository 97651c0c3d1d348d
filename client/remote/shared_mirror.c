#include "client/remote/shared_mirror.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/lock.h"
#include "cache/barrier.h"
#include "cache/mirror.h"
#include "cache/view.h"

/* ---- The table of mappings ----------------------------------------------- */

struct mapping {
  dev_t dev;
  ino_t ino; /* of the memfd of pages */
  struct mirror *mirror;
  struct mapping *next;
};

/* The only state of the library that belongs to no handle.  A leaf. */
static pthread_mutex_t lock = LOCK_INITIALIZER;
static struct mapping *mappings; /* guarded by lock */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* Forgets the descriptor of the pages, and closes it if it is still that. */
static void mapping_drop_fd(struct mapping *p) {
  bool is_ours = mirror_fd_is(p->mirror, p->dev, p->ino);
  int fd = mirror_set_fd(p->mirror, -1);
  if (is_ours)
    close(fd);
}

/* The lock is held over a fork(2).  So a child finds the table whole, and then
 * gets a free lock, even if another thread used the table at that moment.  The
 * child may use the numbers of the descriptors for others. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }
static void after_fork_in_child(void) {
  lock_init(&lock);
  for (struct mapping *p = mappings; p; p = p->next)
    mapping_drop_fd(p);
}

static void watch_forks(void) {
  pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

/* Frees a mapping without references.  find_locked() takes no mapping whose
 * last reference is gone.  So another thread that looks at the same moment
 * makes a second mapping of the same memory, which does no harm. */
static void mapping_released(struct mirror *m) {
  pthread_mutex_lock(&lock);
  struct mapping **at = &mappings;
  while ((*at)->mirror != m)
    at = &(*at)->next;
  struct mapping *gone = *at;
  *at = gone->next;
  pthread_mutex_unlock(&lock);
  mapping_drop_fd(gone);
  free(gone);
  mirror_free(m);
}

static struct mapping *find_locked(const struct stat *st, uint64_t size,
                                   unsigned page_shift, uint64_t epoch) {
  lock_assert_held(&lock);
  for (struct mapping *p = mappings; p; p = p->next)
    if (p->dev == st->st_dev && p->ino == st->st_ino &&
        p->mirror->size == size && p->mirror->page_shift == page_shift &&
        p->mirror->epoch == epoch && mirror_ref_live(p->mirror))
      return p;
  return NULL;
}

static int map_locked(struct mirror_fds *fds, const struct stat *st,
                      uint64_t size, unsigned page_shift, uint64_t epoch,
                      struct mirror **out) {
  lock_assert_held(&lock);
  CLEANUP(cleanup_free) struct mapping *p = malloc(sizeof *p);
  if (!p)
    return -ENOMEM;
  int r = mirror_borrow(fds, size, page_shift, epoch, &p->mirror);
  if (r < 0)
    return r;
  p->mirror->released = mapping_released;
  p->dev = st->st_dev;
  p->ino = st->st_ino;
  p->next = mappings;
  *out = p->mirror;
  mappings = STEAL(p);
  return 0;
}

/* Another handle reads that memory already.  After a fork(2) its mapping has no
 * descriptor. */
static struct mirror *reuse_locked(struct mapping *p, struct mirror_fds *fds) {
  lock_assert_held(&lock);
  if (!mirror_fd_is(p->mirror, p->dev, p->ino))
    mirror_set_fd(p->mirror, steal_fd(&fds->pages));
  return p->mirror;
}

/* A mapping of the memory that the descriptors name.  It takes those that it
 * needs. */
static int mapping_get(struct mirror_fds *fds, uint64_t size,
                       unsigned page_shift, uint64_t epoch,
                       struct mirror **out) {
  struct stat st;
  int r = 0;
  pthread_once(&once, watch_forks);
  if (fstat(fds->pages, &st) < 0)
    return -errno;
  pthread_mutex_lock(&lock);
  struct mapping *found = find_locked(&st, size, page_shift, epoch);
  if (found)
    *out = reuse_locked(found, fds);
  else
    r = map_locked(fds, &st, size, page_shift, epoch, out);
  pthread_mutex_unlock(&lock);
  return r;
}

/* ---- Shared mirrors ---------------------------------------------------------
 */

/* In pages, for a daemon that states no number.  Any of its caches has room for
 * so many. */
enum { READ_AHEAD_UNKNOWN = 16 };

static void shared_mirror_free(struct shared_mirror *a) {
  if (a->page)
    shared_pins_unmap(a->page);
  mirror_unref(a->base.mirror);
  free(a);
}
CLEANUP_FUNCTION(struct shared_mirror *, shared_mirror_free)

static void shared_view_ended(struct shared_view *v) {
  shared_mirror_free((struct shared_mirror *)v);
}

static void shared_mirror_init(struct shared_mirror *a,
                               const struct shared_mirror_offer *offer) {
  struct shared_view *v = &a->base;
  v->n_refs = 1;
  v->free = shared_view_ended;
  v->read_ahead = offer->read_ahead ? offer->read_ahead : READ_AHEAD_UNKNOWN;
  v->counts = &a->page->counts;
  a->number = offer->table;
  a->table.slots = a->page->slots;
  a->table.page_slots =
      offer->page_slots ? offer->page_slots : PIN_MAX_PAGE_SLOTS;
  a->table.range_capacity = offer->range_capacity;
  a->table.mirror = v->mirror;
  v->view = view_of(v->mirror, &a->table);
  if (!barrier_register())
    v->view.fence = true; /* the evictor's barrier does not reach us */
}

int shared_mirror_new(const int fds[SHARED_MIRROR_N_FDS],
                      const struct shared_mirror_offer *offer,
                      struct shared_mirror **out) {
  CLEANUP(mirror_fds_close)
  struct mirror_fds mirror = {fds[SHARED_MIRROR_FD_PAGES],
                              fds[SHARED_MIRROR_FD_STATES],
                              fds[SHARED_MIRROR_FD_ACCESSED]};
  CLEANUP(cleanup_close) int pins = fds[SHARED_MIRROR_FD_PINS];
  CLEANUP(shared_mirror_freep) struct shared_mirror *a = calloc(1, sizeof *a);
  if (!a)
    return -ENOMEM;
  if (offer->range_capacity == 0 || offer->range_capacity > PIN_MAX_COUNT ||
      offer->page_slots > PIN_MAX_PAGE_SLOTS)
    return -EPROTO;
  int r = shared_pins_map(steal_fd(&pins), offer->range_capacity, &a->page);
  if (r < 0)
    return r;
  r = mapping_get(&mirror, offer->size, offer->page_shift, offer->epoch,
                  &a->base.mirror);
  if (r < 0)
    return r;
  shared_mirror_init(a, offer);
  *out = STEAL(a);
  return 0;
}
