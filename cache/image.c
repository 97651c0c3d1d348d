/* Images: a name, a present mirror, and how it gets a new one.
 *
 *   I1  `mirror` is the only mirror of the image that is not retired.
 *   I2  Bytes that a caller brings become a page under the lock under which
 *       invalidations are logged, and only if the log has none of that page
 *       since they were asked for. */
#include "cache/image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/container_of.h"
#include "base/lock.h"
#include "cache/adopt.h"
#include "cache/budget.h"
#include "cache/check.h"
#include "cache/evict.h"
#include "cache/fill.h"
#include "cache/fill_table.h"
#include "cache/internal.h"
#include "cache/mirror_table.h"
#include "cache/reclaim.h"
#include "cache/room.h"
#include "cache/rounds.h"
#include "cache/states.h"
#include "cache/waiter.h"

struct image {
  struct page_cache *cache;
  char *name;
  unsigned page_shift;
  unsigned n_refs; /* atomic: the owner, and each mirror */
  struct image_ops ops;
  struct source_listener listener; /* to all of its sources */

  /* Written under the cache's lock; read atomically (acquire) anywhere. */
  struct mirror *mirror; /* NULL once the image is freed */

  /* Guarded by the cache's lock. */
  uint64_t next_epoch;
  unsigned n_changing;    /* calls of `ops` that are under way */
  pthread_cond_t settled; /* there is none any more */
};

/* How old the last look at an image may be when this process has no timer. */
#define LOOK_INTERVAL_MS 1000

static int64_t now_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- Mirrors of an image ------------------------------------------------- */

/* For a source that is not an image's yet.  The caller has a reference then. */
static void source_begin(struct source *src) {
  src->n_refs = 1;
  src->looked_ms = now_ms();
  lock_init(&src->refresh_lock);
}

static void source_unref(struct source *src) {
  if (!src || __atomic_sub_fetch(&src->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  pthread_mutex_destroy(&src->refresh_lock);
  source_listen(src, NULL);
  src->ops->close(src);
}

static void image_unref(struct image *img) {
  if (__atomic_sub_fetch(&img->n_refs, 1, __ATOMIC_ACQ_REL) > 0)
    return;
  pthread_cond_destroy(&img->settled);
  free(img->name);
  free(img);
}

CLEANUP_FUNCTION(struct image *, image_unref)
CLEANUP_FUNCTION(struct source *, source_unref)
CLEANUP_FUNCTION(struct mirror *, mirror_unref)

/* Ends a mirror without references: takes it out of the account, frees its
 * memory, and gives up its source. */
static void end_mirror(struct mirror *m) {
  struct image *img = m->image;
  struct source *src = m->source;
  struct mirror_keeper *keeper = img->cache->keeper;
  if (keeper && !img->cache->is_left)
    keeper->ended(keeper, m);
  mirror_table_remove(m);
  mirror_free(m);
  source_unref(src);
  image_unref(img);
}

static void note_lent(struct mirror *m) { rounds_note_activity(m->cache); }

static void renew(struct mirror *old);

/* Makes `m`, which is in no table yet, a mirror of the image's.  It takes a
 * reference to `src`. */
static void bind_mirror(struct image *img, struct source *src,
                        struct mirror *m) {
  m->image = img;
  m->needs_pages = img->ops.needs_pages;
  m->released = reclaim_dead;
  m->on_end = end_mirror;
  m->on_lent = note_lent;
  m->on_conflict = renew;
  __atomic_fetch_add(&img->n_refs, 1, __ATOMIC_RELAXED);
  if (src)
    __atomic_fetch_add(&src->n_refs, 1, __ATOMIC_RELAXED);
  m->source = src;
}

/* Undoes bind_mirror(), after the mirror found no place in the table. */
static void unbind_mirror(struct mirror *m) {
  source_unref(m->source);
  image_unref(m->image);
  m->source = NULL;
  m->image = NULL;
  m->released = mirror_free;
}

/* A mirror that is not the image's yet.  It takes a reference to `src`. */
static int make_mirror(struct image *img, struct source *src, uint64_t size,
                       uint64_t epoch, struct mirror **out) {
  struct mirror *m;
  struct mirror_keeper *keeper = img->cache->keeper;
  bool membarrier = img->cache->membarrier;
  int r = mirror_new(size, img->page_shift, epoch, membarrier, &m);
  if (r < 0 && !img->ops.needs_pages)
    r = mirror_new_pageless(size, img->page_shift, epoch, &m);
  if (r < 0)
    return r;
  bind_mirror(img, src, m);
  r = mirror_table_add(img->cache, m);
  if (r < 0) {
    unbind_mirror(m);
    mirror_free(m);
    return r;
  }
  if (keeper)
    keeper->made(keeper, m, img->name);
  *out = m;
  return 0;
}

/* What a mirror takes before its first page: a page of its header, and the
 * states of one block, which are looked at before they are charged. */
#define NEW_MIRROR_LEN (MIRROR_HEADER_LEN + STATE_BLOCK_LEN)

/* Makes room, and then a mirror.  Mirrors that were retired just before may
 * hold the whole budget until the reclaimer has taken them down.  If no room
 * can be made, make_mirror() tries without. */
static int make_mirror_in_room(struct image *img, struct source *src,
                               uint64_t epoch, struct mirror **out) {
  struct page_cache *pc = img->cache;
  bool has_room = room_reserve(pc, img->page_shift, NEW_MIRROR_LEN);
  for (int i = 0; i < 4 && !has_room && rounds_await(pc); i++)
    has_room = room_reserve(pc, img->page_shift, NEW_MIRROR_LEN);
  int r = make_mirror(img, src, src->size, epoch, out);
  if (has_room)
    budget_release(pc, NEW_MIRROR_LEN);
  return r;
}

/* Ends a call of `ops`, which call_begins() or replace_mirror() has counted. */
static void call_ended(struct image *img) {
  struct page_cache *pc = img->cache;
  pthread_mutex_lock(&pc->lock);
  if (--img->n_changing == 0)
    pthread_cond_signal(&img->settled);
  pthread_mutex_unlock(&pc->lock);
}

/* Tells the owner that there is a new mirror.  replace_mirror() has counted the
 * call. */
static void tell_changed(struct image *img) {
  if (img->ops.changed)
    img->ops.changed(img->ops.arg, img);
  call_ended(img);
}

/* Counts a call of `ops`, so that image_free() waits for its end.  False: the
 * image is being freed, and its owner must not be called any more. */
static bool call_begins(struct image *img) {
  pthread_mutex_lock(&img->cache->lock);
  bool is_owned = img->mirror != NULL;
  img->n_changing += is_owned;
  pthread_mutex_unlock(&img->cache->lock);
  return is_owned;
}

static void on_source_changed(struct source_listener *l) {
  struct image *img = container_of(l, struct image, listener);
  if (!img->ops.source_changed || !call_begins(img))
    return;
  img->ops.source_changed(img->ops.arg);
  call_ended(img);
}

static void on_source_invalid(struct source_listener *l, uint64_t offset,
                              uint64_t len) {
  struct image *img = container_of(l, struct image, listener);
  if (!img->ops.source_invalid || !call_begins(img))
    return;
  img->ops.source_invalid(img->ops.arg, offset, len);
  call_ended(img);
}

static void on_source_remark(struct source_listener *l, const char *text) {
  struct image *img = container_of(l, struct image, listener);
  if (!img->ops.source_remark || !call_begins(img))
    return;
  img->ops.source_remark(img->ops.arg, text);
  call_ended(img);
}

/* Makes `m` the mirror of the image, and retires `old`.  `m` is NULL if there
 * is no memory for a successor now; see image_mirror().  Returns false, and
 * does nothing, if `old` is not current any more.
 *
 * The order: first no fetch can begin in `old` any more.  Then its waiters, and
 * then the readers, learn of it.  Only then its pages are punched, which takes
 * long.  Until then a reader that only looks at page states finds the pages
 * that it found before. */
static bool replace_mirror(struct image *img, struct mirror *old,
                           struct mirror *m) {
  struct page_cache *pc = img->cache;
  pthread_mutex_lock(&pc->lock);
  bool current = img->mirror == old && (m || !mirror_is_retired(old));
  struct waiter *woken = NULL;
  if (current) {
    if (m)
      __atomic_store_n(&img->mirror, m, __ATOMIC_RELEASE);
    img->n_changing += m != NULL;
    __atomic_store_n(&old->header->retired, 1, __ATOMIC_RELEASE);
    pc->stats.n_epochs++;
    woken = waiter_take_locked(pc);
  }
  pthread_mutex_unlock(&pc->lock);
  if (!current)
    return false;
  waiter_wake(woken);
  if (m)
    tell_changed(img);
  reclaim_retired(old);
  if (m)
    mirror_unref(old);
  return true;
}

static uint64_t take_epoch(struct image *img) {
  pthread_mutex_lock(&img->cache->lock);
  uint64_t epoch = img->next_epoch++;
  pthread_mutex_unlock(&img->cache->lock);
  return epoch;
}

/* The epoch of an empty mirror of the same version.  If a caller brings the
 * bytes (there is no source), the epoch is the daemon's, and only the daemon
 * changes it. */
static uint64_t twin_epoch(struct image *img, const struct mirror *old) {
  return old->source ? take_epoch(img) : old->epoch;
}

/* Gives the image a new mirror over the same source, because a page of `old`
 * cannot be invalidated any other way.  Does nothing if `old` is not current
 * any more.  If there is no memory for a new mirror, image_mirror() makes it
 * later. */
static void renew(struct mirror *old) {
  struct image *img = old->image;
  struct mirror *m = NULL;
  /* It makes no room first: that would evict, and this is called while
   * evicting. */
  make_mirror(img, old->source, old->size, twin_epoch(img, old), &m);
  if (!replace_mirror(img, old, m))
    mirror_unref(m);
}

/* ---- Life ---------------------------------------------------------------- */

static int make_image(struct page_cache *pc, const char *name,
                      unsigned page_shift, struct image **out) {
  if (page_shift < PAGE_SHIFT_MIN || page_shift > PAGE_SHIFT_MAX)
    return -EINVAL;
  CLEANUP(image_unrefp) struct image *img = calloc(1, sizeof *img);
  if (!img)
    return -ENOMEM;
  img->cache = pc;
  img->page_shift = page_shift;
  img->n_refs = 1;
  img->listener = (struct source_listener){.changed = on_source_changed,
                                           .invalid = on_source_invalid,
                                           .remark = on_source_remark};
  pthread_cond_init(&img->settled, NULL);
  img->name = strdup(name);
  if (!img->name)
    return -ENOMEM;
  *out = STEAL(img);
  return 0;
}

/* Takes over a mirror whose epoch is over; see image_new_past(). */
static int end_adopted(struct image *img, struct mirror *m) {
  bind_mirror(img, NULL, m);
  int r = adopt_end(m);
  if (r == 0)
    reclaim_retired(m);
  else
    unbind_mirror(m);
  mirror_unref(m);
  return r;
}

/* Makes `m` the mirror of the image.  If that fails, `m` is retired.  Returns 0
 * or a negative errno. */
static int go_on_with(struct image *img, struct source *src, struct mirror *m) {
  bind_mirror(img, src, m);
  int r = adopt_go_on(m);
  if (r == 0) {
    __atomic_store_n(&img->mirror, m, __ATOMIC_RELEASE);
    img->next_epoch = m->epoch + 1;
    return 0;
  }
  unbind_mirror(m);
  end_adopted(img, m);
  return r;
}

static int begin_afresh(struct image *img, struct source *src) {
  if (getrandom(&img->next_epoch, sizeof img->next_epoch, 0) !=
      (ssize_t)sizeof img->next_epoch)
    return -EIO;
  return make_mirror(img, src, src->size, take_epoch(img), &img->mirror);
}

int image_new_over(struct page_cache *pc, const char *name, struct source *src,
                   unsigned page_shift, const struct image_ops *ops,
                   struct mirror *m, struct image **out) {
  /* The source goes before the image that listens to it. */
  CLEANUP(image_unrefp) struct image *img = NULL;
  CLEANUP(source_unrefp) struct source *ours = src;
  CLEANUP(mirror_unrefp) struct mirror *left = m;
  source_begin(src);
  int r = make_image(pc, name, page_shift, &img);
  if (r < 0)
    return r;
  img->ops = *ops;
  if (!left || go_on_with(img, src, STEAL(left)) < 0)
    r = begin_afresh(img, src);
  if (r < 0)
    return r;
  *out = STEAL(img);
  return 0;
}

void image_listen(struct image *img) {
  struct mirror *m = image_mirror(img);
  source_listen(m->source, &img->listener);
  mirror_unref(m);
}

int image_new(struct page_cache *pc, const char *name, struct source *src,
              unsigned page_shift, const struct image_ops *ops,
              struct image **out) {
  return image_new_over(pc, name, src, page_shift, ops, NULL, out);
}

int image_new_past(struct page_cache *pc, const char *name, struct mirror *m) {
  CLEANUP(image_unrefp) struct image *img = NULL; /* the mirror has one, too */
  CLEANUP(mirror_unrefp) struct mirror *left = m;
  int r = make_image(pc, name, m->page_shift, &img);
  return r < 0 ? r : end_adopted(img, STEAL(left));
}

int image_new_remote(struct page_cache *pc, const char *name, uint64_t size,
                     unsigned page_shift, uint64_t epoch, struct image **out) {
  CLEANUP(image_unrefp) struct image *img = NULL;
  int r = make_image(pc, name, page_shift, &img);
  if (r == 0)
    r = make_mirror(img, NULL, size, epoch, &img->mirror);
  if (r < 0)
    return r;
  *out = STEAL(img);
  return 0;
}

/* The evictor may call renew() at the same time.  So this waits for the calls
 * of `ops` that are in progress, and takes the mirror away under the same hold
 * of the lock: renew() then finds none, and no call begins any more. */
void image_free(struct image *img) {
  if (!img)
    return;
  struct page_cache *pc = img->cache;
  pthread_mutex_lock(&pc->lock);
  check_quietly_locked(pc);
  while (img->n_changing)
    pthread_cond_wait(&img->settled, &pc->lock);
  struct mirror *m = img->mirror;
  __atomic_store_n(&img->mirror, NULL, __ATOMIC_RELEASE);
  bool is_left = pc->is_left, has_threads = pc->has_threads;
  if (!is_left)
    __atomic_store_n(&m->header->retired, 1, __ATOMIC_RELEASE);
  pthread_mutex_unlock(&pc->lock);
  if (has_threads)
    reclaim_retired(m);
  else if (!is_left)
    reclaim_retire_states(m);
  mirror_unref(m);
  image_unref(img);
}

unsigned image_page_shift(const struct image *img) { return img->page_shift; }

static struct mirror *present_mirror(struct image *img) {
  pthread_mutex_lock(&img->cache->lock);
  struct mirror *m = mirror_ref(img->mirror);
  pthread_mutex_unlock(&img->cache->lock);
  return m;
}

void *image_arg(const struct image *img) { return img->ops.arg; }

struct mirror *image_mirror(struct image *img) {
  struct mirror *m = present_mirror(img);
  if (mirror_is_retired(m)) { /* there was no memory for its successor */
    renew(m);
    mirror_unref(m);
    m = present_mirror(img);
  }
  return m;
}

bool image_has_pages(struct image *img) {
  pthread_mutex_lock(&img->cache->lock);
  const struct mirror *m = img->mirror;
  bool has = m->charged_pages || m->filling || m->n_uncached;
  pthread_mutex_unlock(&img->cache->lock);
  return has;
}

bool image_is_current(const struct image *img, const struct mirror *m) {
  return __atomic_load_n(&img->mirror, __ATOMIC_ACQUIRE) == m &&
         !mirror_is_retired(m);
}

/* Whether a source is that of the current mirror. */
static bool has_source(const struct image *img, const struct source *src) {
  pthread_mutex_lock(&img->cache->lock);
  bool has = img->mirror->source == src;
  pthread_mutex_unlock(&img->cache->lock);
  return has;
}

/* ---- Change -------------------------------------------------------------- */

/* Puts a mirror over `src` in the place of `old`.  0; -ESTALE: that is not
 * current any more; or another negative errno. */
static int succeed(struct image *img, struct mirror *old, struct source *src) {
  struct mirror *m;
  int r = make_mirror_in_room(img, src, take_epoch(img), &m);
  if (r < 0)
    return r;
  source_listen(src, &img->listener);
  if (replace_mirror(img, old, m))
    return 0;
  mirror_unref(m);
  return -ESTALE;
}

/* Looks at the source of `old`, and puts its successor in its place. */
static int look_locked(struct image *img, struct mirror *old) {
  lock_assert_held(&old->source->refresh_lock);
  struct mirror_keeper *keeper = img->cache->keeper;
  struct source *src;
  int r = source_reopen(old->source, &src);
  if (src) {
    source_begin(src);
    src->fetch_size = old->source->fetch_size;
    r = succeed(img, old, src);
    r = r == -ESTALE ? 0 : r; /* the next look finds the change again */
    source_unref(src);
  } else if (r == 0 && keeper) {
    keeper->looked(keeper, old);
  }
  return has_source(img, old->source) ? r : 0;
}

/* Waits for no look at a source that was replaced: that one may hang.  A look
 * that is under way beside this one, or renew(), may replace `old` first.  Then
 * succeed() is told so, and `src` takes the place of what they made.  If this
 * comes first, they are told so, and what they made is dropped. */
int image_replace(struct image *img, struct source *src) {
  int r;
  source_begin(src);
  do {
    struct mirror *old = image_mirror(img);
    r = succeed(img, old, src);
    mirror_unref(old);
  } while (r == -ESTALE);
  source_unref(src);
  return r;
}

/* If another thread replaces the mirror first, that is as good. */
void image_renew(struct image *img) {
  struct mirror *old = image_mirror(img);
  renew(old);
  mirror_unref(old);
}

/* Takes the refresh_lock of the present source, when nobody looks at that.
 * Returns the present mirror, with a reference; NULL: there is no source. */
static struct mirror *lock_source(struct image *img) {
  struct mirror *m = image_mirror(img);
  while (m->source) {
    pthread_mutex_lock(&m->source->refresh_lock);
    struct mirror *now = image_mirror(img);
    bool is_present = now->source == m->source;
    if (!is_present)
      pthread_mutex_unlock(&m->source->refresh_lock);
    mirror_unref(m);
    if (is_present)
      return now;
    m = now;
  }
  mirror_unref(m);
  return NULL;
}

static bool was_looked_at(const struct source *src, int interval_ms) {
  return now_ms() - __atomic_load_n(&src->looked_ms, __ATOMIC_RELAXED) <
         interval_ms;
}

int image_refresh(struct image *img, int min_interval_ms) {
  struct mirror *m = lock_source(img);
  int r = 0;
  if (!m)
    return 0;
  if (!was_looked_at(m->source, min_interval_ms)) {
    __atomic_store_n(&m->source->looked_ms, now_ms(), __ATOMIC_RELAXED);
    r = look_locked(img, m);
  }
  pthread_mutex_unlock(&m->source->refresh_lock);
  mirror_unref(m);
  return r;
}

int image_set_epoch(struct image *img, uint64_t size, uint64_t epoch) {
  struct mirror *old = image_mirror(img);
  int r = 0;
  if (old->epoch != epoch) {
    struct mirror *m;
    r = make_mirror(img, NULL, size, epoch, &m);
    if (r == 0 && !replace_mirror(img, old, m))
      mirror_unref(m);
  }
  mirror_unref(old);
  return r;
}

/* A mirror of the image that is retired and has RESIDENT states, from number
 * `*i` on, with a reference; NULL: there is none. */
static struct mirror *next_retired(const struct image *img, uint32_t *i) {
  struct page_cache *pc = img->cache;
  struct mirror *found = NULL;
  pthread_mutex_lock(&pc->lock);
  for (; *i < pc->n_mirrors && !found; ++*i) {
    struct mirror *m = pc->mirrors[*i];
    if (m && m->image == img && mirror_is_retired(m) && !m->states_gone &&
        mirror_ref_live(m))
      found = m;
  }
  pthread_mutex_unlock(&pc->lock);
  return found;
}

/* A reader that has not noticed the end of its epoch trusts the page states of
 * that epoch.  So the states that the reclaimer has not come to leave RESIDENT
 * now. */
static void leave_past_epochs(const struct image *img) {
  struct mirror *m;
  for (uint32_t i = 0; (m = next_retired(img, &i));) {
    reclaim_leave_resident(m);
    mirror_unref(m);
  }
}

int image_invalidate(struct image *img, uint64_t first, uint64_t count) {
  struct page_cache *pc = img->cache;
  struct mirror *m = image_mirror(img);
  struct invalidation_entry inv;
  if (first < m->n_pages && count > 0) {
    if (count > m->n_pages - first)
      count = m->n_pages - first;
    /* Before the fills are marked: a fill that begins after that is not marked,
     * so the source must not answer it from what it remembers. */
    if (m->source)
      source_forget(m->source);
    pthread_mutex_lock(&pc->lock);
    invalidation_log_begin(&m->header->log, &m->invalidations, &inv, first,
                           count);
    fill_table_mark_stale_locked(pc, m, first, count);
    pthread_mutex_unlock(&pc->lock);
    evict_range(m, first, count);
    pthread_mutex_lock(&pc->lock);
    invalidation_log_end(&m->header->log, &m->invalidations, &inv);
    pthread_mutex_unlock(&pc->lock);
  }
  leave_past_epochs(img);
  mirror_unref(m);
  return 0;
}

/* ---- Misses -------------------------------------------------------------- */

/* What a miss does first, on a thread that may wait.  In a process without
 * evictor and reclaimer it does their work. */
static void prepare(struct mirror *m, uint64_t first, uint64_t count) {
  struct page_cache *pc = m->cache;
  if (!was_looked_at(m->source, LOOK_INTERVAL_MS))
    image_refresh(m->image, LOOK_INTERVAL_MS);
  if (!pc->has_threads)
    evict_stale(m);
  if (states_need_charge(m, first, count) &&
      room_reserve(pc, m->page_shift, 2 * STATE_BLOCK_LEN))
    budget_release(pc, 2 * STATE_BLOCK_LEN);
}

enum fetch_outcome image_fetch(struct fetch *f, struct mirror *m,
                               uint64_t first, uint32_t count) {
  struct fill *begun[FETCH_MAX_FILLS];
  if (count > 0 && !f->runner)
    prepare(m, first, count);
  uint32_t n = fetch_begin(f, m, first, count, begun);
  for (uint32_t i = 0; i < n; i++)
    if (f->runner)
      f->runner->run(f->runner, begun[i]);
    else
      image_run_fill(begun[i]);
  return fetch_begun(f);
}

void image_run_fill(struct fill *fill) {
  int status = fill_read(fill);
  if (status == -ESTALE) {
    /* Before the waiters wake: a reader that tries again must find the new
     * epoch. */
    int r = image_refresh(fill->mirror->image, 0);
    if (r < 0)
      status = r;
  }
  fill_end(fill, status);
}

/* ---- Bytes that the caller brings ---------------------------------------- */

static bool are_absent(const struct mirror *m, uint64_t first, uint32_t count) {
  for (uint32_t i = 0; i < count; i++)
    if (page_state_look(&m->states[first + i]) != PAGE_ABSENT)
      return false;
  return true;
}

/* A fill for pages that are absent, and may be filled by bytes that were asked
 * for at `mark`.  They are within one block of states. */
static struct fill *begin_install_locked(struct mirror *m, uint64_t first,
                                         uint32_t count, uint64_t mark) {
  lock_assert_held(&m->cache->lock);
  if (!are_absent(m, first, count) || mirror_is_retired(m) || m->is_pageless ||
      mirror_dropped_since(m, mark, first, count) ||
      states_are_swept_locked(m, first) ||
      !states_charge_locked(m, first, count))
    return NULL;
  return fill_table_begin_locked(m->cache, m, first, count, true);
}

/* Installs all of the pages, or none: then false. */
static bool install(struct mirror *m, uint64_t first, uint32_t count,
                    const void *bytes, uint64_t mark) {
  struct page_cache *pc = m->cache;
  uint64_t len = (uint64_t)count << m->page_shift;
  uint64_t more = states_need_charge(m, first, count) ? STATE_BLOCK_LEN : 0;
  if (!room_reserve(pc, m->page_shift, len + more))
    return false;
  budget_release(pc, more);
  pthread_mutex_lock(&pc->lock);
  struct fill *fill = begin_install_locked(m, first, count, mark);
  pthread_mutex_unlock(&pc->lock);
  if (!fill) {
    budget_release(pc, len);
    return false;
  }
  size_t bytes_len = (size_t)(len - mirror_page_size(m)) +
                     mirror_page_len(m, first + count - 1);
  if (mirror_write(m, first, bytes, bytes_len) < 0) {
    mirror_punch(m, first, count);
    budget_release(pc, len);
    fill_abandon(fill, -ENOMEM);
    return false;
  }
  fill->reserved = len;
  fill_finish(fill);
  return true;
}

/* The first page of the aligned group that ends with page `last`, but none
 * before `first`. */
static uint64_t group_start(uint64_t last, uint64_t first) {
  uint64_t start = last & ~(uint64_t)(S3FIFO_GROUP - 1);
  return start > first ? start : first;
}

void image_install(struct mirror *m, uint64_t first, uint64_t count,
                   const void *bytes, uint64_t mark) {
  const uint8_t *from = bytes;
  if (first > m->n_pages || count > m->n_pages - first || m->is_pageless)
    return;
  for (uint64_t end = first + count, start; end > first; end = start) {
    start = group_start(end - 1, first);
    uint64_t n = end - start;
    bool whole = install(m, start, (uint32_t)n,
                         from + ((start - first) << m->page_shift), mark);
    for (uint64_t page = end; !whole && n > 1 && page-- > start;)
      install(m, page, 1, from + ((page - first) << m->page_shift), mark);
  }
}
