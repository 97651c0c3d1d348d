#include "daemon/engine/finder.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/lock.h"

_Static_assert((int)FOUND_NAME_MAX == (int)IMAGE_NAME_MAX,
               "what is found can be an image");

SLIST_HEAD(wait_list, finder_wait);

/* A look for a name. */
struct finder_look {
  struct pool_job job;
  struct finder *finder;
  char name[IMAGE_NAME_MAX + 1];
  struct wait_list waits;          /* guarded by the finder's lock */
  LIST_ENTRY(finder_look) in_list; /* likewise */
};

int finder_init(struct finder *finder, struct images *images,
                const struct finder_place *place, unsigned page_shift) {
  *finder = (struct finder){
      .images = images, .place = place, .page_shift = page_shift};
  LIST_INIT(&finder->looks);
  lock_init(&finder->lock);
  finder->look_lane = pool_lane_new(images->pool, FINDER_THREADS, false);
  finder->list_lane = pool_lane_new(images->pool, FINDER_LIST_THREADS, false);
  return finder->look_lane && finder->list_lane ? 0 : -ENOMEM;
}

void finder_fini(struct finder *finder) {
  pool_lane_free(finder->look_lane);
  pool_lane_free(finder->list_lane);
  pthread_mutex_destroy(&finder->lock);
}

bool finder_has_place(const struct finder *finder) {
  return finder->place && finder->place->is_any(finder->place->arg);
}

/* After a change: the looks are as many as are counted, each of another
 * name. */
static void check_locked(const struct finder *finder) {
  lock_assert_held(&finder->lock);
#ifdef CACHETD_DEBUG_CHECKS
  const struct finder_look *first = LIST_FIRST(&finder->looks), *l;
  unsigned n = 0;
  LIST_FOREACH(l, &finder->looks, in_list) {
    assert(l->finder == finder);
    assert(l == first || strcmp(l->name, first->name) != 0); /* F1 */
    n++;
  }
  assert(n == finder->n_looks && n <= FINDER_MAX_LOOKS);
#endif
}

/* ---- A look ---------------------------------------------------------------
 */

static struct image_add add_of(const struct finder *finder, const char *name,
                               const struct found_image *found) {
  return (struct image_add){.origin = IMAGE_FOUND,
                            .name = name,
                            .path = found->path,
                            .share = found->share,
                            .source = found->source,
                            .page_shift = finder->page_shift};
}

/* Opens an image, and adds it to the table.  Returns 0, or a negative errno.  0
 * does not mean that the image is in the table: another thread may have added
 * one of that name, or the directories may have changed. */
static int open_and_add(struct finder *finder, const char *name) {
  const struct finder_place *place = finder->place;
  struct found_image found = {0};
  int r = place->open(place->arg, name, &found);
  if (r < 0)
    return r;
  const struct image_add add = add_of(finder, name, &found);
  r = images_add(finder->images, &add);
  /* Checked after it was added: before that, finder_review() does not see it,
   * so a change of the directories in between would go unnoticed. */
  if (r == 0 && !place->is_current(place->arg, found.path, found.share)) {
    struct served_image *h = images_find(finder->images, NULL, name);
    if (h && images_origin(h) == IMAGE_FOUND)
      images_remove(h);
    images_unref(h);
  }
  free(found.path);
  return r == -EEXIST ? 0 : r;
}

/* ---- After a restart ----------------------------------------------------- */

enum {
  RESTORE_MAX = LEDGER_N_MIRRORS,
  RESTORE_LEAST_MS = 500, /* for all of them, however late the start is */
};

/* Names that a thread of its own opens one by one, because a directory may
 * hang.  It has a reference count, because the thread may outlive the wait for
 * it. */
struct restoring {
  const struct finder_place *place;
  pthread_mutex_t lock;
  pthread_cond_t opened;
  unsigned n;
  unsigned n_refs;   /* of the thread, and of waiters; guarded by lock, */
  unsigned n_opened; /* as is how many of these the thread is done with */
  struct {
    char name[IMAGE_NAME_MAX + 1];
    int result;
    struct found_image found;
  } all[RESTORE_MAX];
};

/* Gives a reference back, and releases the lock.  The last one closes the
 * sources that were not taken. */
static void restoring_unref_locked(struct restoring *g) {
  lock_assert_held(&g->lock);
  bool is_last = --g->n_refs == 0;
  pthread_mutex_unlock(&g->lock);
  if (!is_last)
    return;
  for (unsigned i = 0; i < g->n_opened; i++) {
    if (g->all[i].found.source)
      g->all[i].found.source->ops->close(g->all[i].found.source);
    free(g->all[i].found.path);
  }
  pthread_cond_destroy(&g->opened);
  pthread_mutex_destroy(&g->lock);
  free(g);
}

static void *restoring_run(void *arg) {
  struct restoring *g = arg;
  pthread_mutex_lock(&g->lock);
  while (g->n_opened < g->n && g->n_refs > 1) {
    unsigned i = g->n_opened;
    struct found_image found = {0};
    pthread_mutex_unlock(&g->lock);
    int r = g->place->open(g->place->arg, g->all[i].name, &found);
    pthread_mutex_lock(&g->lock);
    g->all[i].result = r;
    g->all[i].found = found;
    g->n_opened++;
    pthread_cond_signal(&g->opened);
  }
  restoring_unref_locked(g);
  return NULL;
}

/* NULL: there is nothing to open, or no memory, or no thread. */
static struct restoring *restoring_begin(const struct finder *finder) {
  const struct restore *from = finder->images->restore;
  struct restoring *g = calloc(1, sizeof *g);
  pthread_t thread;
  const char *name;
  if (!g)
    return NULL;
  for (uint32_t i = 0; (name = restore_next_name(from, &i));)
    snprintf(g->all[g->n++].name, sizeof g->all[0].name, "%s", name);
  g->place = finder->place;
  g->n_refs = 2;
  lock_init(&g->lock);
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&g->opened, &attr);
  pthread_condattr_destroy(&attr);
  if (g->n > 0 && pthread_create(&thread, NULL, restoring_run, g) == 0) {
    pthread_detach(thread);
    return g;
  }
  pthread_mutex_lock(&g->lock);
  g->n_refs = 1;
  restoring_unref_locked(g);
  return NULL;
}

/* Waits until the `i`th was opened.  False: not in time. */
static bool restoring_await(struct restoring *g, unsigned i,
                            const struct timespec *until) {
  int r = 0;
  pthread_mutex_lock(&g->lock);
  while (g->n_opened == i && r == 0)
    r = pthread_cond_timedwait(&g->opened, &g->lock, until);
  bool is_opened = g->n_opened > i;
  pthread_mutex_unlock(&g->lock);
  return is_opened;
}

/* Adds an opened image to the table.  The thread no longer uses it. */
static void restoring_take(struct finder *finder, struct restoring *g,
                           unsigned i) {
  if (g->all[i].result < 0)
    return;
  const struct image_add add = add_of(finder, g->all[i].name, &g->all[i].found);
  g->all[i].found.source = NULL;
  images_add(finder->images, &add);
}

static struct timespec later_of(const struct timespec *a,
                                const struct timespec *b) {
  bool is_a =
      a->tv_sec != b->tv_sec ? a->tv_sec > b->tv_sec : a->tv_nsec > b->tv_nsec;
  return is_a ? *a : *b;
}

void finder_restore(struct finder *finder, const struct timespec *deadline) {
  struct timespec least = clock_after_ms(RESTORE_LEAST_MS),
                  until = later_of(deadline, &least);
  struct restoring *g =
      finder_has_place(finder) ? restoring_begin(finder) : NULL;
  if (!g)
    return;
  for (unsigned i = 0; i < g->n && restoring_await(g, i, &until); i++)
    restoring_take(finder, g, i);
  pthread_mutex_lock(&g->lock);
  restoring_unref_locked(g);
}

/* ---- Looking for one ------------------------------------------------------
 */

/* Finds the image, with a reference for the caller.  The first try does not
 * take an image that was configured: the caller did not find it in the table,
 * so its peer may not read it.  The search in the directories then takes as
 * long as for a name that does not exist, and the time shows nothing. */
static int look(struct finder *finder, const char *name,
                struct served_image **out) {
  enum { MAX_TRIES = 8 };
  for (int i = 0; i < MAX_TRIES; i++) {
    struct served_image *h = images_find(finder->images, NULL, name);
    if (h && (i > 0 || images_origin(h) == IMAGE_FOUND)) {
      *out = h;
      return 0;
    }
    images_unref(h);
    int r = open_and_add(finder, name);
    if (r < 0)
      return r;
  }
  return -EAGAIN; /* each time it was removed before it could be taken */
}

/* Ends a look: takes it off the list, so that no request can join it, and then
 * tells the requests that wait for it. */
static void look_end(struct finder_look *l, int result,
                     struct served_image *h) {
  struct finder *finder = l->finder;
  struct finder_wait *wait;
  pthread_mutex_lock(&finder->lock);
  LIST_REMOVE(l, in_list);
  finder->n_looks--;
  check_locked(finder);
  pthread_mutex_unlock(&finder->lock);
  while ((wait = SLIST_FIRST(&l->waits))) {
    SLIST_REMOVE_HEAD(&l->waits, link);
    wait->result = result;
    wait->image = h;
    if (h)
      images_ref(h);
    wait->done(wait);
  }
  images_unref(h);
  free(l);
}

static void look_run(struct pool_job *job) {
  struct finder_look *l = container_of(job, struct finder_look, job);
  struct served_image *h = NULL;
  int r = look(l->finder, l->name, &h);
  look_end(l, r, h);
}

static void look_abandon(struct pool_job *job) {
  look_end(container_of(job, struct finder_look, job), -ECANCELED, NULL);
}

/* The look for that name, or a new one, which is to be submitted; NULL: there
 * is no room for one. */
static struct finder_look *get_look_locked(struct finder *finder,
                                           const char *name, bool *is_new) {
  lock_assert_held(&finder->lock);
  struct finder_look *l;
  LIST_FOREACH(l, &finder->looks, in_list)
    if (strcmp(l->name, name) == 0)
      return l;
  if (finder->n_looks == FINDER_MAX_LOOKS || !(l = calloc(1, sizeof *l)))
    return NULL;
  l->job = (struct pool_job){.run = look_run, .abandon = look_abandon};
  l->finder = finder;
  memcpy(l->name, name, strlen(name) + 1);
  LIST_INSERT_HEAD(&finder->looks, l, in_list);
  finder->n_looks++;
  check_locked(finder);
  *is_new = true;
  return l;
}

void finder_find(struct finder *finder, const char *name,
                 struct finder_wait *wait) {
  bool is_new = false;
  struct finder_look *l = NULL;
  wait->image = NULL;
  wait->result = strlen(name) > IMAGE_NAME_MAX ? -ENOENT : -EAGAIN;
  if (wait->result != -ENOENT) {
    pthread_mutex_lock(&finder->lock);
    l = get_look_locked(finder, name, &is_new);
    if (l)
      SLIST_INSERT_HEAD(&l->waits, wait, link);
    pthread_mutex_unlock(&finder->lock);
  }
  if (is_new)
    pool_submit(finder->look_lane, &l->job);
  else if (!l)
    wait->done(wait);
}

/* ---- Images that are in the table ----------------------------------------
 */

static void review(struct finder *finder, struct served_image *h) {
  const struct finder_place *place = finder->place;
  struct found_image found = {0};
  char path[PATH_MAX + IMAGE_NAME_MAX + 2];
  images_print_path(h, path, sizeof path);
  if (place->is_current(place->arg, path,
                        atomic_load_explicit(&h->share, memory_order_relaxed)))
    return;
  int r = place->open(place->arg, h->name, &found);
  if (r == 0) {
    const struct image_add change = add_of(finder, h->name, &found);
    r = images_replace(h, &change);
  }
  if (r < 0)
    images_remove(h);
  free(found.path);
}

void finder_review(struct finder *finder) {
  struct served_image *h;
  for (unsigned i = 0; (h = images_next(finder->images, &i));) {
    if (images_origin(h) == IMAGE_FOUND)
      review(finder, h);
    images_unref(h);
  }
}
