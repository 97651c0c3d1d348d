#include "daemon/engine/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cache/adopt.h"
#include "cache/image.h"
#include "daemon/log.h"

struct old_mirror {
  struct mirror_fds fds; /* -1: not there; or adopted */
  struct mirror *m;      /* NULL: not adopted, or taken */
  const char *why_not;   /* it is not to be used; NULL: it may be */
};

struct old_table {
  int fd, pidfd;
  struct shared_pins *lease;
};

struct restore {
  struct keeper *keeper;
  struct page_cache *cache;
  uint32_t next_table;
  struct old_mirror mirrors[LEDGER_N_MIRRORS];
  struct old_table tables[LEDGER_N_TABLES];
};

/* ---- What was handed over ------------------------------------------------ */

static void close_fd(int *fd) {
  if (*fd >= 0)
    close(*fd);
  *fd = -1;
}

/* Whether a descriptor is of that kind, as /proc says. */
static bool is_of(int fd, const char *what) {
  char path[40], target[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t n = readlink(path, target, sizeof target - 1);
  if (n < 0)
    return false;
  target[n] = '\0';
  return strncmp(target, what, strlen(what)) == 0;
}

/* Moves a descriptor to `*to`, if that has none yet. */
static void put_fd(int *to, int *fd) {
  if (*to < 0) {
    *to = *fd;
    *fd = -1;
  }
}

static void sort_mirror_fd(struct old_mirror *old, int *fd) {
  if (is_of(*fd, "/memfd:cachet-pages "))
    put_fd(&old->fds.pages, fd);
  else if (is_of(*fd, "/memfd:cachet-states "))
    put_fd(&old->fds.states, fd);
  else if (is_of(*fd, "/memfd:cachet-accessed "))
    put_fd(&old->fds.accessed, fd);
}

static void sort_table_fd(struct old_table *old, int *fd) {
  if (is_of(*fd, "/memfd:cachet-pins "))
    put_fd(&old->fd, fd);
  else if (is_of(*fd, "anon_inode:[pidfd]") || is_of(*fd, "pidfd:"))
    put_fd(&old->pidfd, fd);
}

/* Gives a descriptor to the record that has its name.  If none has, the
 * descriptor is closed, and the manager removes all descriptors of that
 * name. */
static void sort_fd(struct restore *r, int *fd, const char *name) {
  uint32_t i;
  if (ledger_parse_name(name, 'm', LEDGER_N_MIRRORS, &i))
    sort_mirror_fd(&r->mirrors[i], fd);
  else if (ledger_parse_name(name, 't', LEDGER_N_TABLES, &i))
    sort_table_fd(&r->tables[i], fd);
  else
    fd_store_remove(&r->keeper->store, name);
  close_fd(fd);
}

/* Takes the ledger out of the descriptors; -1: it is not among them. */
static int take_ledger(const struct restore_fds *from) {
  int found = -1;
  for (unsigned i = 0; i < from->n; i++)
    if (strcmp(from->names[i], "ledger") == 0)
      put_fd(&found, &from->fds[i]);
  return found;
}

static void say_cold(const char *reason) {
  log_event(LEVEL_INFO, "cold-start", LOG_TEXT("reason", reason));
}

/* Drops all descriptors, because there is no ledger that says what they are. */
static void drop_all(const struct keeper *keeper,
                     const struct restore_fds *from) {
  for (unsigned i = 0; i < from->n; i++) {
    const struct mirror_fds fds = {.pages = -1, .states = from->fds[i]};
    if (is_of(from->fds[i], "/memfd:cachet-states ") ||
        is_of(from->fds[i], "/memfd:cachet-words ")) /* up to 1.2 */
      mirror_retire_remains(&fds);
    fd_store_remove(&keeper->store, from->names[i]);
    close_fd(&from->fds[i]);
  }
}

/* Begins without the memory of the process before.  The old ledger is removed
 * before the new one is stored, because both have the same name. */
static void begin_cold(struct keeper *keeper, const struct restore_fds *from,
                       const char *reason) {
  struct ledger ledger;
  drop_all(keeper, from);
  say_cold(reason);
  int r = ledger_new(&ledger);
  if (r == 0)
    r = keeper_begin(keeper, &ledger, false);
  if (r < 0)
    log_event(LEVEL_WARN, "nothing-is-kept", LOG_TEXT("reason", strerror(-r)),
              LOG_TEXT("meaning", "the next start is cold as well"));
}

static struct restore *restore_alloc(struct keeper *keeper) {
  struct restore *r = calloc(1, sizeof *r);
  if (!r)
    return NULL;
  r->keeper = keeper;
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++)
    r->mirrors[i].fds = (struct mirror_fds){-1, -1, -1};
  for (uint32_t i = 0; i < LEDGER_N_TABLES; i++)
    r->tables[i].fd = r->tables[i].pidfd = -1;
  return r;
}

struct restore *restore_begin(struct keeper *keeper,
                              const struct restore_fds *from) {
  struct ledger ledger;
  int r = fd_store_init(&keeper->store, from->address);
  if (!from->address || r < 0) {
    say_cold(r < 0 ? "NOTIFY_SOCKET is no address"
                   : "there is no service manager that keeps descriptors");
    return NULL;
  }
  int fd = take_ledger(from);
  if (fd < 0 || ledger_adopt(&ledger, fd) < 0) {
    begin_cold(keeper, from,
               fd < 0 ? "nothing was kept"
                      : "what was kept has another layout, or is damaged");
    return NULL;
  }
  struct restore *restore = restore_alloc(keeper);
  if (!restore) {
    ledger_fini(&ledger);
    begin_cold(keeper, from, "no memory to look at what was kept");
    return NULL;
  }
  keeper_begin(keeper, &ledger, true);
  for (unsigned i = 0; i < from->n; i++)
    if (from->fds[i] >= 0)
      sort_fd(restore, &from->fds[i], from->names[i]);
  return restore;
}

/* ---- Adopting ------------------------------------------------------------ */

static bool is_whole(const struct mirror_fds *fds) {
  return fds->pages >= 0 && fds->states >= 0 && fds->accessed >= 0;
}

static bool is_there(const struct old_mirror *old) {
  return old->fds.pages >= 0 || old->fds.states >= 0 || old->fds.accessed >= 0;
}

/* Leaves a mirror alone, and says why.  Its header tells the clients that have
 * it mapped to attach again. */
static void leave_mirror(struct restore *r, uint32_t i, const char *why) {
  struct old_mirror *old = &r->mirrors[i];
  struct ledger_mirror *record = ledger_get_mirror(&r->keeper->ledger, i);
  bool has_name = ledger_mirror_is_whole(record);
  if (old->fds.states >= 0)
    mirror_retire_remains(&old->fds);
  mirror_fds_close(&old->fds);
  log_event(LEVEL_WARN, "image-cold",
            LOG_TEXT("image", has_name ? record->image : "?"),
            LOG_TEXT("reason", why),
            LOG_TEXT("meaning", "its memory is left to clients that have it "
                                "mapped"));
  keeper_drop_mirror(r->keeper, i);
}

static const char *adopt_mirror(struct restore *r, uint32_t i) {
  struct old_mirror *old = &r->mirrors[i];
  struct ledger_mirror *record = ledger_get_mirror(&r->keeper->ledger, i);
  if (!ledger_mirror_is_whole(record))
    return "what is written of it has a wrong checksum";
  if (!is_there(old) && ledger_state(&record->state) == LEDGER_WAITING)
    return "the service manager had not received it";
  if (!is_whole(&old->fds))
    return "a descriptor of it is missing";
  int states = fcntl(old->fds.states, F_DUPFD_CLOEXEC, 3); /* to retire it */
  struct mirror_remains remains = {.size = record->size,
                                   .epoch = record->epoch,
                                   .page_shift = record->page_shift,
                                   .fds = old->fds};
  old->fds = (struct mirror_fds){-1, states, -1};
  int e = mirror_adopt(&remains, &old->m);
  if (e < 0)
    return e == -EPROTO ? "its header, or its memory, is not what it should be"
                        : strerror(-e);
  mirror_fds_close(&old->fds);
  old->m->kept = i + 1;
  adopt_begin(r->cache, old->m);
  return NULL;
}

static void adopt_mirrors(struct restore *r) {
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++) {
    struct ledger_mirror *record = ledger_get_mirror(&r->keeper->ledger, i);
    enum ledger_state state = ledger_state(&record->state);
    if (state == LEDGER_STORED || state == LEDGER_WAITING) {
      const char *why = adopt_mirror(r, i);
      if (why)
        leave_mirror(r, i, why);
    } else if (state != LEDGER_FREE || is_there(&r->mirrors[i])) {
      /* The mirror had ended, or nothing is written of these descriptors. */
      mirror_fds_close(&r->mirrors[i].fds);
      keeper_drop_mirror(r->keeper, i);
    }
  }
}

/* Adopts the table of a client, so that its pins are honoured.  Returns NULL,
 * or why it cannot. */
static const char *adopt_table(struct restore *r, uint32_t i,
                               struct mirror *m) {
  struct old_table *old = &r->tables[i];
  struct shared_pins_remains remains;
  if (old->fd < 0)
    return "a pin table of it is missing";
  ledger_take_lease(ledger_get_table(&r->keeper->ledger, i), &remains);
  remains.fd = old->fd;
  old->fd = -1;
  int e = shared_pins_adopt(m, &remains, &old->lease);
  return e < 0 ? "a pin table of it is not what it should be" : NULL;
}

/* Leaves all mirrors alone, because of a table that may belong to any of
 * them. */
static void distrust_all(struct restore *r, const char *why) {
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++)
    if (!r->mirrors[i].why_not)
      r->mirrors[i].why_not = why;
}

/* Adopts a table that a client has. */
static void adopt_lent(struct restore *r, uint32_t i) {
  struct ledger_table *record = ledger_get_table(&r->keeper->ledger, i);
  if (!ledger_table_is_whole(record)) {
    distrust_all(r, "what is written of a pin table has a wrong checksum");
    return;
  }
  struct old_mirror *of = &r->mirrors[record->mirror];
  if (of->m && of->m->epoch == record->epoch && !of->why_not)
    of->why_not = adopt_table(r, i, of->m);
}

static void adopt_tables(struct restore *r) {
  for (uint32_t i = 0; i < LEDGER_N_TABLES; i++) {
    struct ledger_table *record = ledger_get_table(&r->keeper->ledger, i);
    struct old_table *old = &r->tables[i];
    enum ledger_state state = ledger_state(&record->state);
    if (state == LEDGER_LENT)
      adopt_lent(r, i);
    if (!old->lease && (state != LEDGER_FREE || old->fd >= 0)) {
      close_fd(&old->fd);
      close_fd(&old->pidfd);
      keeper_drop_table(r->keeper, i);
    }
  }
}

static void drop_tables_of(struct restore *r, const struct mirror *m) {
  for (uint32_t i = 0; i < LEDGER_N_TABLES; i++) {
    struct ledger_table *record = ledger_get_table(&r->keeper->ledger, i);
    if (!r->tables[i].lease || record->mirror != m->kept - 1)
      continue;
    shared_pins_free(r->tables[i].lease);
    r->tables[i].lease = NULL;
    close_fd(&r->tables[i].pidfd);
    keeper_drop_table(r->keeper, i);
  }
}

/* Leaves the mirrors alone of which a table is missing. */
static void leave_incomplete(struct restore *r) {
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++) {
    struct old_mirror *old = &r->mirrors[i];
    if (!old->m || !old->why_not)
      continue;
    __atomic_store_n(&old->m->header->retired, 1, __ATOMIC_RELEASE);
    drop_tables_of(r, old->m);
    mirror_unref(old->m);
    old->m = NULL;
    leave_mirror(r, i, old->why_not);
  }
}

void restore_adopt(struct restore *r, struct page_cache *pc) {
  r->cache = pc;
  adopt_mirrors(r);
  adopt_tables(r);
  leave_incomplete(r);
}

/* ---- Images -------------------------------------------------------------- */

/* Whether `a` is better than `b`.  A mirror whose epoch is not over is better
 * than one whose epoch is.  Of two such, the later is better: the process
 * before may have ended between making a successor and retiring the old mirror.
 * Epochs may wrap, so their difference is compared. */
static bool is_better(const struct mirror *a, const struct mirror *b) {
  bool a_is_over = mirror_is_retired(a), b_is_over = mirror_is_retired(b);
  return a_is_over != b_is_over ? b_is_over
                                : (int64_t)(a->epoch - b->epoch) > 0;
}

/* The mirror with which an image may continue; NULL: it has none. */
static struct old_mirror *find_mirror(struct restore *r, const char *image) {
  struct old_mirror *best = NULL;
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++) {
    struct old_mirror *old = &r->mirrors[i];
    if (!old->m ||
        strcmp(ledger_get_mirror(&r->keeper->ledger, i)->image, image) != 0)
      continue;
    if (!best || is_better(old->m, best->m))
      best = old;
  }
  return best;
}

static const char *why_not(struct restore *r, const struct mirror *m,
                           struct source *src, unsigned page_shift,
                           uint64_t terms) {
  const struct ledger_mirror *record =
      ledger_get_mirror(&r->keeper->ledger, m->kept - 1);
  if (m->page_shift != page_shift)
    return "the page size is another one";
  if (record->terms != terms)
    return "its access rule has changed";
  const char *why = adopt_check(m);
  if (!why && (m->size != src->size || !source_resume(src, &record->identity)))
    why = "its source has changed, or may have";
  return why;
}

struct mirror *restore_take(struct restore *r, const char *image,
                            struct source *src, unsigned page_shift,
                            uint64_t terms) {
  struct old_mirror *old = r ? find_mirror(r, image) : NULL;
  if (!old)
    return NULL;
  struct mirror *m = old->m;
  const char *why = why_not(r, m, src, page_shift, terms);
  if (why) {
    log_event(LEVEL_INFO, "image-cold", LOG_TEXT("image", image),
              LOG_TEXT("reason", why));
    return NULL;
  }
  log_event(LEVEL_INFO, "image-warm", LOG_TEXT("image", image),
            LOG_NUMBER("bytes", mirror_page_bytes(m)));
  old->m = NULL;
  return m;
}

const char *restore_next_name(const struct restore *r, uint32_t *i) {
  while (r && *i < LEDGER_N_MIRRORS) {
    const struct mirror *m = r->mirrors[*i].m;
    const char *name = ledger_get_mirror(&r->keeper->ledger, (*i)++)->image;
    if (m && !mirror_is_retired(m))
      return name;
  }
  return NULL;
}

void restore_finish(struct restore *r) {
  if (!r)
    return;
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++) {
    struct old_mirror *old = &r->mirrors[i];
    const char *image = ledger_get_mirror(&r->keeper->ledger, i)->image;
    if (old->m && image_new_past(r->cache, image, old->m) < 0)
      keeper_drop_mirror(r->keeper, i); /* its tables hold it */
    old->m = NULL;
  }
}

bool restore_next_table(struct restore *r, struct restored_table *out) {
  while (r && r->next_table < LEDGER_N_TABLES) {
    uint32_t i = r->next_table++;
    struct old_table *old = &r->tables[i];
    const struct ledger_table *record = ledger_get_table(&r->keeper->ledger, i);
    if (!old->lease)
      continue;
    *out = (struct restored_table){.lease = old->lease,
                                   .kept = i + 1,
                                   .client = {.number = record->number,
                                              .uid = record->uid,
                                              .pid = (pid_t)record->pid,
                                              .pidfd = old->pidfd}};
    old->lease = NULL;
    old->pidfd = -1;
    return true;
  }
  return false;
}

void restore_free(struct restore *r) {
  if (!r)
    return;
  for (uint32_t i = 0; i < LEDGER_N_TABLES; i++) {
    shared_pins_free(r->tables[i].lease);
    close_fd(&r->tables[i].pidfd);
  }
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++)
    mirror_unref(r->mirrors[i].m);
  free(r);
}
