#include "daemon/serve/attachment.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "daemon/engine/capped_count.h"
#include "daemon/engine/images.h"
#include "daemon/engine/restore.h"
#include "daemon/log.h"
#include "daemon/serve/session.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

enum {
  /* How often the loop looks for leases that are done. */
  TICK_MS = 250,
  /* A refused Attach looks for them too, but not sooner than this after the
   * last time, because it walks all of the set: a client may send an Attach
   * again and again. */
  COLLECT_MS = 10,
};

/* A client that does not say how much it wants relies on the first size, and
 * may get up to the second. */
static const struct shared_pins_size whole_least = {PIN_MAX_PAGE_SLOTS, 1};
static const struct shared_pins_size whole_most = {PIN_MAX_PAGE_SLOTS, 64};

static uint32_t within(uint32_t n, uint32_t least, uint32_t most) {
  return n < least ? least : n > most ? most : n;
}

/* The size that a client asked for, within what a client may have. */
static struct shared_pins_size size_within(struct shared_pins_size size) {
  return (struct shared_pins_size){
      within(size.page_slots, LEASE_LEAST_PAGE_SLOTS, PIN_MAX_PAGE_SLOTS),
      within(size.range_capacity, LEASE_LEAST_RANGE_CAPACITY, PIN_MAX_COUNT)};
}

/* A process or a user that holds attachments. */
struct attachment_holder {
  enum { HOLDER_PROCESS, HOLDER_USER } kind;
  uint32_t number; /* its pid, or uid */
  unsigned n;
  struct attachment_holder *next;
};

struct attachment {
  struct attachments *set;
  LIST_ENTRY(attachment) of_set;
  bool is_started; /* it is in the lists above and below, and `gone` is added */
  struct session *session; /* that asked for it; NULL: it is closed */
  LIST_ENTRY(attachment) of_session;
  struct session *sender; /* that has not sent its descriptors yet; or NULL */
  struct shared_pins *lease;
  uint32_t kept; /* its record in the keeper, plus 1; 0: it is not kept */
  pid_t pid;
  uid_t uid;
  int pidfd;
  struct event gone; /* the pidfd is readable: the process has ended */
  /* A6.  The former is referenced; NULL: its image is gone. */
  struct reader_counts *of_image, *of_all;
  struct capped_count hits, misses;

  /* Guarded by the lock of the census.  Both holders are NULL until it is in
   * the census. */
  uint64_t table; /* its number; fixed */
  struct attachment *next_table;
  struct attachment_holder *process, *user;
};

/* ---- The census ---------------------------------------------------------- */

static struct attachment_holder **holder_find(struct attachment_census *census,
                                              int kind, uint32_t number) {
  uint32_t bucket = (number * 2 + (uint32_t)kind) % ATTACHMENT_BUCKETS;
  struct attachment_holder **at = &census->holders[bucket];
  while (*at && ((int)(*at)->kind != kind || (*at)->number != number))
    at = &(*at)->next;
  return at;
}

/* One more attachment of a process or a user; NULL: no memory. */
static struct attachment_holder *holder_get(struct attachment_census *census,
                                            int kind, uint32_t number) {
  struct attachment_holder **at = holder_find(census, kind, number);
  if (!*at) {
    *at = calloc(1, sizeof **at);
    if (!*at)
      return NULL;
    (*at)->kind = kind;
    (*at)->number = number;
  }
  (*at)->n++;
  return *at;
}

/* NULL is allowed. */
static void holder_put(struct attachment_census *census,
                       struct attachment_holder *h) {
  if (!h || --h->n)
    return;
  *holder_find(census, (int)h->kind, h->number) = h->next;
  free(h);
}

static void release_locked(struct attachment_census *census,
                           struct attachment *a) {
  lock_assert_held(&census->lock);
  holder_put(census, a->process);
  holder_put(census, a->user);
  a->process = a->user = NULL;
}

/* Counts the attachment at its process and at its user.  0 or -ENOMEM: then at
 * neither. */
static int hold_locked(struct attachment_census *census, struct attachment *a) {
  lock_assert_held(&census->lock);
  a->process = holder_get(census, HOLDER_PROCESS, (uint32_t)a->pid);
  a->user = holder_get(census, HOLDER_USER, a->uid);
  if (a->process && a->user)
    return 0;
  release_locked(census, a);
  return -ENOMEM;
}

static unsigned holder_count(struct attachment_census *census, int kind,
                             uint32_t number) {
  const struct attachment_holder *h = *holder_find(census, kind, number);
  return h ? h->n : 0;
}

/* A2, A3. */
static bool census_has_room(struct attachment_census *census,
                            const struct limits *limits,
                            const struct attachment *a) {
  unsigned of_process = holder_count(census, HOLDER_PROCESS, (uint32_t)a->pid);
  unsigned of_user = holder_count(census, HOLDER_USER, a->uid);
  unsigned others = census->n - of_user;
  unsigned left = limits->max_attachments - others;
  return census->n < limits->max_attachments &&
         of_process < limits->max_process_attachments &&
         of_user < limits->max_user_attachments && of_user < left - left / 4 &&
         census->n_sending < limits->max_attachments_sending;
}

static struct attachment **census_bucket(struct attachment_census *census,
                                         uint64_t table) {
  return &census->tables[table % ATTACHMENT_BUCKETS];
}

/* The attachment of a table, if the same process holds it; or NULL. */
static struct attachment *census_find(struct attachment_census *census,
                                      uint64_t table, pid_t pid, uid_t uid) {
  struct attachment *a = *census_bucket(census, table);
  while (a && a->table != table)
    a = a->next_table;
  return a && a->pid == pid && a->uid == uid ? a : NULL;
}

static void census_remove(struct attachment_census *census,
                          struct attachment *a) {
  struct attachment **at = census_bucket(census, a->table);
  while (*at != a)
    at = &(*at)->next_table;
  *at = a->next_table;
  census->n--;
  census->n_sending -= a->sender != NULL;
  release_locked(census, a);
}

static void census_add(struct attachment_census *census, struct attachment *a) {
  a->next_table = *census_bucket(census, a->table);
  *census_bucket(census, a->table) = a;
  census->n++;
}

/* After a change: each attachment counts for a process and for a user. */
static void census_check_locked(const struct attachment_census *census) {
  lock_assert_held(&census->lock);
#ifdef CACHETD_DEBUG_CHECKS
  unsigned n = 0, n_sending = 0, n_held = 0;
  for (unsigned i = 0; i < ATTACHMENT_BUCKETS; i++) {
    for (const struct attachment *a = census->tables[i]; a; a = a->next_table) {
      assert(a->table % ATTACHMENT_BUCKETS == i);
      assert(a->process->number == (uint32_t)a->pid &&
             a->user->number == a->uid);
      n++;
      n_sending += a->sender != NULL;
    }
    for (const struct attachment_holder *h = census->holders[i]; h; h = h->next)
      n_held += h->n;
  }
  assert(n == census->n && n_sending == census->n_sending);
  assert(n_held == 2 * n);
#endif
}

/* The census is locked from the search for the table that is replaced until its
 * share was given on, so its owner, which may be another thread, cannot free
 * the lease meanwhile. */
static int census_enter_locked(struct attachment *a,
                               const struct attachment_wish *wish) {
  lock_assert_held(&a->set->census->lock);
  struct attachment_census *census = a->set->census;
  struct attachment *old = census_find(census, wish->replaces, a->pid, a->uid);
  bool whole = wish->size.page_slots == 0;
  if (!census_has_room(census, a->set->limits, a))
    return -EDQUOT;
  int r = hold_locked(census, a);
  if (r < 0)
    return r;
  r = shared_pins_give(
      a->lease, a->uid, whole ? whole_least : shared_pins_least(),
      whole ? whole_most : size_within(wish->size), old ? old->lease : NULL);
  if (r < 0) {
    release_locked(census, a);
    return r;
  }
  /* Before the new lease is recorded: if the daemon ended in between, the next
   * one would count the same share twice. */
  if (old)
    keeper_change_table(census->keeper, old->kept, old->lease);
  census_add(census, a);
  census->n_sending++;
  return 0;
}

/* Gives its lease a share, and adds it to the census. */
static int census_enter(struct attachment *a,
                        const struct attachment_wish *wish) {
  struct attachment_census *census = a->set->census;
  pthread_mutex_lock(&census->lock);
  int r = census_enter_locked(a, wish);
  census_check_locked(census);
  pthread_mutex_unlock(&census->lock);
  return r;
}

/* Does nothing if it is not in the census. */
static void census_leave(struct attachment *a) {
  struct attachment_census *census = a->set->census;
  pthread_mutex_lock(&census->lock);
  if (a->process)
    census_remove(census, a);
  census_check_locked(census);
  pthread_mutex_unlock(&census->lock);
}

unsigned attachment_count(struct attachment_census *census) {
  pthread_mutex_lock(&census->lock);
  unsigned n = census->n;
  pthread_mutex_unlock(&census->lock);
  return n;
}

/* ---- Life ---------------------------------------------------------------- */

static uint64_t now_us(void) { return clock_now_ns() / 1000; }

/* Adds the hits and misses that its process has counted since the last time. */
static void attachment_count_up(struct attachment *a) {
  struct pin_counts c = shared_pins_get_counts(a->lease);
  uint64_t now = now_us();
  uint64_t n_hits = capped_count_take(&a->hits, c.n_hits, now);
  uint64_t n_misses = capped_count_take(&a->misses, c.n_misses, now);
  if (n_hits == 0 && n_misses == 0)
    return;
  reader_counts_add(a->of_all, n_hits, n_misses);
  if (a->of_image)
    reader_counts_add(a->of_image, n_hits, n_misses);
}

/* Begins to count, from the present numbers of the process.  `h` is the image,
 * or NULL. */
static void attachment_begin_count(struct attachment *a,
                                   const struct images *images,
                                   const struct served_image *h) {
  struct pin_counts c = shared_pins_get_counts(a->lease);
  a->hits = capped_count_begin(c.n_hits, now_us());
  a->misses = capped_count_begin(c.n_misses, now_us());
  a->of_all = images->readers;
  a->of_image = h ? reader_counts_ref(h->readers) : NULL;
}

/* Undoes attachment_start(). */
static void attachment_stop(struct attachment *a) {
  struct attachments *set = a->set;
  LIST_REMOVE(a, of_set);
  if (a->session)
    LIST_REMOVE(a, of_session);
  if (LIST_EMPTY(&set->list))
    event_del(&set->tick);
  event_del(&a->gone);
  assert(!a->sender || a->sender->sending == a); /* A3 */
  if (a->sender)
    a->sender->sending = NULL;
}

/* Also frees one that was made half way.
 *
 * The order matters at the end: another thread may use the lease as long as it
 * finds the attachment in the census, and the next process may trust the table
 * as long as the keeper has it.  Both have to be over when the lease goes. */
static void attachment_free(struct attachment *a) {
  if (a->lease)
    attachment_count_up(a);
  reader_counts_unref(a->of_image);
  if (a->is_started)
    attachment_stop(a);
  census_leave(a);
  keeper_remove_table(a->set->census->keeper, a->kept);
  if (a->pidfd >= 0)
    close(a->pidfd);
  shared_pins_free(a->lease);
  free(a);
}
CLEANUP_FUNCTION(struct attachment *, attachment_free)

void attachment_sent(struct attachment *a) {
  struct attachment_census *census = a->set->census;
  pthread_mutex_lock(&census->lock);
  assert(a->sender->sending == a); /* A3 */
  census->n_sending--;
  a->sender->sending = NULL;
  a->sender = NULL;
  census_check_locked(census);
  pthread_mutex_unlock(&census->lock);
}

void attachment_cancel(struct attachment *a) { attachment_free(a); }

static void on_gone(evutil_socket_t fd, short what, void *arg) {
  struct attachment *a = arg;
  (void)fd;
  (void)what;
  log_event(LEVEL_DEBUG, "attachment-gone",
            LOG_NUMBER("pid", (uint64_t)a->pid));
  attachment_free(a);
}

static void attachments_collect(struct attachments *set) {
  struct attachment *next;
  for (struct attachment *a = LIST_FIRST(&set->list); a; a = next) {
    next = LIST_NEXT(a, of_set);
    attachment_count_up(a);
    if (shared_pins_collect(a->lease))
      attachment_free(a);
  }
  set->collected_ms = clock_now_ms();
}

void attachment_session_closed(struct session *s) {
  struct attachment *next;
  for (struct attachment *a = LIST_FIRST(&s->attachments); a; a = next) {
    next = LIST_NEXT(a, of_session);
    LIST_REMOVE(a, of_session);
    a->session = NULL;
    if (shared_pins_collect(a->lease))
      attachment_free(a);
  }
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  attachments_collect(arg);
}

void attachments_init(struct attachments *set, struct loop *loop,
                      struct attachment_census *census,
                      const struct limits *limits) {
  *set = (struct attachments){.loop = loop, .census = census, .limits = limits};
  LIST_INIT(&set->list);
}

void attachments_fini(struct attachments *set) {
  while (!LIST_EMPTY(&set->list))
    attachment_free(LIST_FIRST(&set->list));
}

/* A pidfd of the process at the other end.  Unlike its number, it is never that
 * of a later process.  Before Linux 6.5 it is found by the number: should the
 * process have ended and its number be in use again, the attachment lasts as
 * long as that other process, and no longer. */
static int peer_pidfd(int fd, const struct ucred *peer) {
  int pidfd;
  socklen_t len = sizeof pidfd;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
    return pidfd;
  if (errno != ENOPROTOOPT || peer->pid <= 0)
    return -EOPNOTSUPP;
  pidfd = pidfd_open(peer->pid, 0);
  return pidfd < 0 ? -EOPNOTSUPP : pidfd;
}

static int peer_ids(int fd, struct ucred *peer) {
  socklen_t len = sizeof *peer;
  return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &len) < 0 ? -EOPNOTSUPP
                                                                 : 0;
}

static int identify(struct attachment *a, int fd) {
  struct ucred peer;
  int r = peer_ids(fd, &peer);
  if (r < 0)
    return r;
  a->pid = peer.pid;
  a->uid = peer.uid;
  do
    if (getrandom(&a->table, sizeof a->table, 0) < 0)
      return -errno;
  while (a->table == 0);
  a->pidfd = peer_pidfd(fd, &peer);
  return a->pidfd < 0 ? a->pidfd : 0;
}

/* Adds it to its set: from here on the loop frees it when its process has
 * ended.  0 or -ENOMEM: then it is not in the set. */
static int attachment_start(struct attachment *a) {
  struct attachments *set = a->set;
  struct timeval tick = {.tv_usec = TICK_MS * 1000};
  event_assign(&a->gone, set->loop->base, a->pidfd, EV_READ, on_gone, a);
  if (event_add(&a->gone, NULL) < 0)
    return -ENOMEM;
  if (LIST_EMPTY(&set->list)) {
    event_assign(&set->tick, set->loop->base, -1, EV_PERSIST, on_tick, set);
    event_add(&set->tick, &tick);
  }
  LIST_INSERT_HEAD(&set->list, a, of_set);
  if (a->session)
    LIST_INSERT_HEAD(&a->session->attachments, a, of_session);
  a->is_started = true;
  return 0;
}

/* Enters it in the census.  If there is no room, it first frees the leases that
 * are done and that the tick has not found yet. */
static int enter(struct attachment *a, const struct attachment_wish *wish) {
  int r = census_enter(a, wish);
  if (r != -EDQUOT || clock_now_ms() - a->set->collected_ms < COLLECT_MS)
    return r;
  attachments_collect(a->set);
  return census_enter(a, wish);
}

/* Frees the attachment that was replaced, if it holds no pin, as is usual.
 * That makes room at once for the tables that other clients replace.  If
 * another thread owns it, the tick of that thread frees it. */
static void collect_replaced(struct attachment *a,
                             const struct attachment_wish *wish) {
  struct attachment_census *census = a->set->census;
  pthread_mutex_lock(&census->lock);
  struct attachment *old = census_find(census, wish->replaces, a->pid, a->uid);
  bool is_ours = old && old->set == a->set;
  pthread_mutex_unlock(&census->lock);
  if (is_ours && shared_pins_collect(old->lease))
    attachment_free(old);
}

/* Keeps the table for the next process: see A5. */
static int keep(struct attachment *a, const struct mirror *m, int table_fd) {
  const struct keeper_client client = {
      .number = a->table, .uid = a->uid, .pid = a->pid, .pidfd = a->pidfd};
  return keeper_add_table(a->set->census->keeper, m, &client, a->lease,
                          table_fd, &a->kept);
}

/* All of giving a lease that can fail, except the descriptors.  The limits come
 * first, because they refuse most often; the loop comes last, because it may
 * free the attachment from then on. */
static int prepare(struct attachment *a, struct mirror *m,
                   const struct attachment_wish *wish, int table_fd) {
  int r = enter(a, wish);
  if (r == 0)
    r = keep(a, m, table_fd);
  return r < 0 ? r : attachment_start(a);
}

static int attachment_make(struct attachment *a, struct mirror *m,
                           const struct attachment_wish *wish,
                           struct attachment_grant *grant) {
  CLEANUP(mirror_fds_close) struct mirror_fds fds = {-1, -1, -1};
  int r = mirror_lend(m, &fds);
  if (r < 0)
    return r;
  CLEANUP(cleanup_close) int table_fd = shared_pins_take_fd(a->lease);
  r = prepare(a, m, wish, table_fd);
  if (r < 0)
    return r;
  collect_replaced(a, wish);
  keeper_lend_table(a->set->census->keeper, a->kept);
  *grant = (struct attachment_grant){
      .table = a->table,
      .size = shared_pins_get_size(a->lease),
      .read_ahead = shared_pins_read_ahead(a->lease),
      .fds = {steal_fd(&fds.pages), steal_fd(&fds.states),
              steal_fd(&fds.accessed), steal_fd(&table_fd)},
  };
  return 0;
}

int attachment_new(struct session *s, const struct served_image *h,
                   struct mirror *m, const struct attachment_wish *wish,
                   struct attachment_grant *grant) {
  CLEANUP(attachment_freep) struct attachment *a = calloc(1, sizeof *a);
  if (!a)
    return -ENOMEM;
  a->set = &s->service->attachments;
  a->session = a->sender = s;
  a->pidfd = -1;
  int r = identify(a, s->conn.fd);
  if (r < 0 || (r = shared_pins_new(m, &a->lease)) < 0)
    return r;
  attachment_begin_count(a, h->images, h);
  r = attachment_make(a, m, wish, grant);
  if (r < 0)
    return r;
  s->sending = STEAL(a);
  return 0;
}

int attachment_grow(struct session *s, uint64_t table,
                    struct shared_pins_size *size) {
  struct attachment_census *census = s->service->attachments.census;
  struct ucred peer;
  int r = peer_ids(s->conn.fd, &peer);
  if (r < 0)
    return r;
  pthread_mutex_lock(&census->lock);
  struct attachment *a = census_find(census, table, peer.pid, peer.uid);
  if (a) {
    shared_pins_grow(a->lease, size_within(*size));
    keeper_change_table(census->keeper, a->kept, a->lease);
    *size = shared_pins_get_size(a->lease);
  }
  pthread_mutex_unlock(&census->lock);
  return a ? 0 : -ENOENT;
}

/* ---- Of the process before ----------------------------------------------- */

/* The limits do not apply: clients keep the tables that they have. */
static int census_adopt(struct attachment *a) {
  struct attachment_census *census = a->set->census;
  pthread_mutex_lock(&census->lock);
  int r = hold_locked(census, a);
  if (r == 0)
    census_add(census, a);
  census_check_locked(census);
  pthread_mutex_unlock(&census->lock);
  return r;
}

/* If the manager has kept no pidfd, the process is found by its number.  If
 * that is the number of another process by now, the daemon keeps the table for
 * as long as that process lives. */
static int adopt(struct attachment *a) {
  if (a->pidfd < 0)
    a->pidfd = pidfd_open(a->pid, 0);
  if (a->pidfd < 0)
    return -errno;
  int r = census_adopt(a);
  return r < 0 ? r : attachment_start(a);
}

static void drop_table(struct attachments *set,
                       const struct restored_table *table) {
  if (table->client.pidfd >= 0)
    close(table->client.pidfd);
  keeper_remove_table(set->census->keeper, table->kept);
  shared_pins_free(table->lease);
}

void attachment_adopt(struct attachments *set, struct images *images,
                      const struct restored_table *table) {
  struct image *image = shared_pins_image(table->lease);
  struct attachment *a = calloc(1, sizeof *a);
  if (!a) {
    drop_table(set, table);
    return;
  }
  *a = (struct attachment){.set = set,
                           .lease = table->lease,
                           .kept = table->kept,
                           .pid = table->client.pid,
                           .uid = table->client.uid,
                           .pidfd = table->client.pidfd,
                           .table = table->client.number};
  attachment_begin_count(a, images, image ? image_arg(image) : NULL);
  /* It fails if the process is gone.  It also fails without memory, and then
   * the daemon could not notice the end of the process. */
  if (adopt(a) < 0)
    attachment_free(a);
}
