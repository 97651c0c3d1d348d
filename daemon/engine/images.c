#include "daemon/engine/images.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/container_of.h"
#include "base/lock.h"
#include "cache/mirror.h"
#include "daemon/log.h"
#include "daemon/rule.h"
#include "daemon/sandbox.h"

static void confine_thread(bool is_evictor) {
  sandbox_enter(is_evictor ? SANDBOX_EVICTOR : SANDBOX_RECLAIMER);
}

int images_init(struct images *images, uint64_t cache_size, unsigned n_threads,
                const struct pool_options *options) {
  struct page_cache_options cache = {
      .budget = cache_size, .evictor = true, .thread_began = confine_thread};
  *images = (struct images){.n_threads = n_threads};
  keeper_init(&images->keeper);
  pending_init(&images->pending);
  lock_init(&images->lock);
  images->list = calloc(IMAGES_MAX, sizeof(struct served_image *));
  images->totals = image_counters_new(n_threads);
  images->readers = reader_counts_new();
  images->pool = pool_new(options);
  if (!images->list || !images->totals || !images->readers || !images->pool)
    return -ENOMEM;
  images->invalidation_lane = pool_lane_new(images->pool, 1, false);
  images->look_lane = pool_lane_new(images->pool, 1, false);
  if (!images->invalidation_lane || !images->look_lane)
    return -ENOMEM;
  int r = page_cache_new(&cache, &images->cache);
  if (r == 0)
    page_cache_set_keeper(images->cache, &images->keeper.base);
  return r;
}

void images_restore(struct images *images, const struct restore_fds *from) {
  images->restore = restore_begin(&images->keeper, from);
  if (images->restore)
    restore_adopt(images->restore, images->cache);
}

void images_restored(struct images *images) { restore_finish(images->restore); }

/* ---- One image ----------------------------------------------------------- */

/* Also frees one that was made half way. */
static void served_image_free(struct served_image *h) {
  image_free(h->image);
  pool_lane_free(h->lane);
  rule_unref(h->allow);
  reader_counts_unref(h->readers);
  retrying_unref(h->retrying);
  free(h->path);
  free(h->name);
  free(h);
}

/* Gives the pool a thread for each image that may be checked or is being ended.
 * Both may hang, and an image that was removed counts until it has ended. */
static void count_alive_locked(struct images *images, unsigned n) {
  lock_assert_held(&images->lock);
  images->n_alive = n;
  pool_lane_set_own(images->look_lane, n ? n : 1);
}

static void end_run(struct pool_job *job) {
  struct served_image *h = container_of(job, struct served_image, end);
  struct images *images = h->images;
  served_image_free(h);
  pthread_mutex_lock(&images->lock);
  count_alive_locked(images, images->n_alive - 1);
  pthread_mutex_unlock(&images->lock);
}

static void tell_listeners_locked(struct served_image *h) {
  lock_assert_held(&h->images->lock);
  struct image_listener *listener;
  LIST_FOREACH(listener, &h->listeners, link)
    loop_post(listener->loop, &listener->task);
}

static struct rule *rule_of_locked(const struct served_image *h) {
  lock_assert_held(&h->images->lock);
  return h->allow ? h->allow : h->images->allow;
}

static uint64_t terms_by(const struct rule *rule, bool share) {
  return rule_number(rule) << 1 | share;
}

static uint64_t terms_of(struct served_image *h, bool share) {
  pthread_mutex_lock(&h->images->lock);
  uint64_t terms = terms_by(rule_of_locked(h), share);
  pthread_mutex_unlock(&h->images->lock);
  return terms;
}

static void keep_terms(struct served_image *h, const struct mirror *m) {
  keeper_set_terms(&h->images->keeper, m,
                   atomic_load_explicit(&h->terms, memory_order_relaxed));
}

/* Runs on the thread that found the change. */
static void on_changed(void *arg, struct image *img) {
  struct served_image *h = arg;
  struct mirror *m = image_mirror(img);
  keep_terms(h, m);
  log_peer_event(LEVEL_INFO, "image-changed", LOG_TEXT("image", h->name),
                 LOG_NUMBER("size", m->size));
  mirror_unref(m);
  atomic_store_explicit(&h->missing, 0, memory_order_relaxed);
  atomic_fetch_add_explicit(&h->n_epochs, 1, memory_order_relaxed);
  pthread_mutex_lock(&h->images->lock);
  tell_listeners_locked(h);
  pthread_mutex_unlock(&h->images->lock);
}

/* ---- What sources tell --------------------------------------------------- */

static void look_run(struct pool_job *job) {
  struct served_image *h = container_of(job, struct served_image, look);
  struct images *images = h->images;
  pthread_mutex_lock(&images->lock);
  h->look_is_queued = false;
  pthread_mutex_unlock(&images->lock);
  images->heed.look(images->heed.arg, h);
  images_unref(h);
}

static void look_abandon(struct pool_job *job) {
  images_unref(container_of(job, struct served_image, look));
}

static void drop_run(struct pool_job *job) {
  struct served_image *h = container_of(job, struct served_image, drop);
  struct images *images = h->images;
  pthread_mutex_lock(&images->lock);
  uint64_t from = h->doubted_from, to = h->doubted_to;
  h->drop_is_queued = false;
  pthread_mutex_unlock(&images->lock);
  images->heed.drop(images->heed.arg, h, from, to);
  images_unref(h);
}

static void drop_abandon(struct pool_job *job) {
  images_unref(container_of(job, struct served_image, drop));
}

/* Queues one that is not queued yet, of an image that somebody uses. */
static void queue_locked(struct served_image *h, struct pool_lane *lane,
                         struct pool_job *job, bool *is_queued) {
  lock_assert_held(&h->images->lock);
  if (*is_queued || h->n_refs == 0 || h->images->stopped)
    return;
  *is_queued = true;
  h->n_refs++;
  pool_submit(lane, job);
}

static void on_source_changed(void *arg) {
  struct served_image *h = arg;
  struct images *images = h->images;
  if (!images->heed.look)
    return;
  pthread_mutex_lock(&images->lock);
  queue_locked(h, images->look_lane, &h->look, &h->look_is_queued);
  pthread_mutex_unlock(&images->lock);
}

/* All ranges that arrive before the job runs are joined to one.  So a source
 * that reports very many ranges keeps one thread busy, and takes no memory. */
static void on_source_invalid(void *arg, uint64_t offset, uint64_t len) {
  struct served_image *h = arg;
  struct images *images = h->images;
  uint64_t to = offset + len;
  if (!images->heed.drop)
    return;
  pthread_mutex_lock(&images->lock);
  bool joins = h->drop_is_queued;
  h->doubted_from =
      joins && h->doubted_from < offset ? h->doubted_from : offset;
  h->doubted_to = joins && h->doubted_to > to ? h->doubted_to : to;
  queue_locked(h, images->invalidation_lane, &h->drop, &h->drop_is_queued);
  pthread_mutex_unlock(&images->lock);
}

static void on_source_remark(void *arg, const char *text) {
  const struct served_image *h = arg;
  log_peer_event(LEVEL_WARN, "source-remark", LOG_TEXT("image", h->name),
                 LOG_TEXT("remark", text));
}

/* ---- Making one ---------------------------------------------------------- */

/* Makes the image itself.  It continues with the mirror that the process before
 * has left, if it can. */
static int make_image(struct served_image *h, const struct image_add *add) {
  struct images *images = h->images;
  struct image_ops ops = {.changed = on_changed,
                          .source_changed = on_source_changed,
                          .source_invalid = on_source_invalid,
                          .source_remark = on_source_remark,
                          .arg = h,
                          .needs_pages = true};
  struct mirror *left =
      add->missing
          ? NULL
          : restore_take(images->restore, h->name, add->source, add->page_shift,
                         atomic_load_explicit(&h->terms, memory_order_relaxed));
  int r = image_new_over(images->cache, h->name, add->source, add->page_shift,
                         &ops, left, &h->image);
  if (r < 0)
    return r;
  struct mirror *m = image_mirror(h->image);
  keep_terms(h, m);
  mirror_unref(m);
  return 0;
}

/* Makes an image that is not in the table yet. */
static int served_image_new(struct images *images, const struct image_add *add,
                            struct served_image **out) {
  size_t counters_len = images->n_threads * sizeof(struct image_counters);
  assert(strlen(add->name) <= IMAGE_NAME_MAX);
  struct served_image *h =
      aligned_alloc(_Alignof(struct served_image), sizeof *h + counters_len);
  if (!h) {
    add->source->ops->close(add->source);
    retrying_unref(add->retrying);
    return -ENOMEM;
  }
  memset(h, 0, sizeof *h + counters_len);
  h->images = images;
  h->retrying = add->retrying;
  h->name = strdup(add->name);
  h->path = add->path ? strdup(add->path) : NULL;
  h->lane = pool_lane_new(images->pool, 1, true);
  h->allow = rule_ref(add->allow);
  atomic_init(&h->n_narrowed, 0);
  h->readers = reader_counts_new();
  atomic_init(&h->share, add->share);
  h->warm = add->warm;
  h->origin = add->origin;
  h->lost = add->missing != 0;
  h->n_refs = 1;
  h->look = (struct pool_job){.run = look_run, .abandon = look_abandon};
  h->drop = (struct pool_job){.run = drop_run, .abandon = drop_abandon};
  h->end.run = end_run;
  atomic_init(&h->missing, add->missing);
  atomic_init(&h->terms, terms_of(h, add->share));
  int r = -ENOMEM;
  if (h->name && (h->path || !add->path) && h->lane && h->readers)
    r = make_image(h, add);
  else
    add->source->ops->close(add->source);
  if (r < 0)
    served_image_free(h);
  else
    *out = h;
  return r;
}

/* ---- The table ----------------------------------------------------------- */

/* FNV-1a. */
static struct served_image_list *bucket_of(struct images *images,
                                           const char *name) {
  uint32_t hash = 2166136261u;
  for (; *name; name++)
    hash = (hash ^ (unsigned char)*name) * 16777619u;
  return &images->buckets[hash % IMAGES_BUCKETS];
}

static struct served_image *find_locked(struct images *images,
                                        const char *name) {
  lock_assert_held(&images->lock);
  struct served_image *h;
  LIST_FOREACH(h, bucket_of(images, name), in_bucket)
    if (strcmp(h->name, name) == 0)
      return h;
  return NULL;
}

/* Each image in the table is found by its name and by its index (G2), and
 * counts. */
static void check_locked(const struct images *images) {
  lock_assert_held(&images->lock);
#ifdef CACHETD_DEBUG_CHECKS
  unsigned n = 0, n_found = 0;
  for (unsigned i = 0; i < IMAGES_BUCKETS; i++) {
    const struct served_image *h;
    LIST_FOREACH(h, &images->buckets[i], in_bucket) {
      assert(h->index < images->n_list && images->list[h->index] == h);
      assert(h->n_refs > 0);
      assert(!atomic_load_explicit(&h->removed, memory_order_relaxed));
      n++;
      n_found += h->origin == IMAGE_FOUND;
    }
  }
  assert(n == images->n && n_found == images->n_found);
  assert(images->n_alive >= images->n);
#endif
}

/* Puts it into the table, or out of it. */
static void enter_locked(struct served_image *h) {
  lock_assert_held(&h->images->lock);
  struct images *images = h->images;
  LIST_INSERT_HEAD(bucket_of(images, h->name), h, in_bucket);
  images->n++;
  images->n_found += h->origin == IMAGE_FOUND;
}

static void leave_locked(struct served_image *h) {
  lock_assert_held(&h->images->lock);
  struct images *images = h->images;
  atomic_store_explicit(&h->removed, true, memory_order_relaxed);
  LIST_REMOVE(h, in_bucket);
  images->n--;
  images->n_found -= h->origin == IMAGE_FOUND;
  check_locked(images);
  tell_listeners_locked(h);
}

/* Whether one that was found has no user but those. */
static bool is_unused_locked(const struct served_image *h, unsigned n_refs) {
  if (!h)
    return false;
  lock_assert_held(&h->images->lock);
  return h->origin == IMAGE_FOUND && h->n_refs == n_refs &&
         !atomic_load_explicit(&h->removed, memory_order_relaxed);
}

/* Makes room for one more image in the table.  If it is full, it takes out an
 * image that was found and has no user, and stores it in `*victim`; the caller
 * then calls images_unref().  False: it is full, and there is no such image. */
static bool make_room_locked(struct images *images,
                             struct served_image **victim) {
  lock_assert_held(&images->lock);
  if (images->n_found < images->most_found)
    return true;
  for (unsigned i = 0; i < images->n_list && !*victim; i++) {
    images->next_victim = (images->next_victim + 1) % images->n_list;
    struct served_image *h = images->list[images->next_victim];
    if (is_unused_locked(h, 1))
      *victim = h;
  }
  if (*victim)
    leave_locked(*victim);
  return *victim;
}

/* The image that leaves the table for it, if there is one, is `*victim`; see
 * make_room_locked(). */
static int put_locked(struct images *images, struct served_image *h,
                      struct served_image **victim) {
  lock_assert_held(&images->lock);
  bool is_found = h->origin == IMAGE_FOUND;
  struct served_image *there = find_locked(images, h->name);
  if (there && (is_found || there->origin != IMAGE_FOUND))
    return -EEXIST;
  if (is_found && !make_room_locked(images, victim))
    return -ENFILE;
  unsigned index = 0;
  while (index < images->n_list && images->list[index])
    index++;
  if (index == IMAGES_MAX)
    return -ENFILE;
  if (there) {
    leave_locked(there);
    *victim = there;
  }
  if (index == images->n_list)
    images->n_list++;
  images->list[index] = h;
  h->index = index;
  enter_locked(h);
  count_alive_locked(images, images->n_alive + 1);
  check_locked(images);
  return 0;
}

int images_add(struct images *images, const struct image_add *add) {
  struct served_image *h, *victim = NULL;
  int r = served_image_new(images, add, &h);
  if (r < 0)
    return r;
  pthread_mutex_lock(&images->lock);
  r = put_locked(images, h, &victim);
  h->n_refs += r == 0; /* the caller's: another thread may remove the image */
  pthread_mutex_unlock(&images->lock);
  images_unref(victim);
  if (r < 0) {
    served_image_free(h);
    return r;
  }
  image_listen(h->image);
  images_unref(h);
  return 0;
}

bool images_remove(struct served_image *h) {
  struct images *images = h->images;
  pthread_mutex_lock(&images->lock);
  bool was_there = !atomic_load_explicit(&h->removed, memory_order_relaxed);
  if (was_there)
    leave_locked(h);
  pthread_mutex_unlock(&images->lock);
  if (was_there)
    images_unref(h);
  return was_there;
}

/* A reader may come and go between the check and the removal.  The pages that
 * it brought in are lost, and no reader misses them. */
void images_remove_unused(struct served_image *h) {
  struct images *images = h->images;
  if (image_has_pages(h->image))
    return;
  pthread_mutex_lock(&images->lock);
  bool is_unused = is_unused_locked(h, 2);
  if (is_unused)
    leave_locked(h);
  pthread_mutex_unlock(&images->lock);
  if (is_unused)
    images_unref(h);
}

enum image_origin images_origin(struct served_image *h) {
  pthread_mutex_lock(&h->images->lock);
  enum image_origin origin = h->origin;
  pthread_mutex_unlock(&h->images->lock);
  return origin;
}

bool images_may_become(struct served_image *h, const struct image_add *add) {
  if (add->missing || add->page_shift != image_page_shift(h->image))
    return false;
  pthread_mutex_lock(&h->images->lock);
  bool may = h->origin == IMAGE_FOUND && h->allow == add->allow;
  pthread_mutex_unlock(&h->images->lock);
  return may;
}

int images_replace(struct served_image *h, const struct image_add *change) {
  char *path = change->path ? strdup(change->path) : NULL;
  if (change->path && !path) {
    change->source->ops->close(change->source);
    retrying_unref(change->retrying);
    return -ENOMEM;
  }
  bool shared =
      atomic_exchange_explicit(&h->share, change->share, memory_order_relaxed);
  uint64_t terms = atomic_exchange_explicit(
      &h->terms, terms_of(h, change->share), memory_order_relaxed);
  int r = image_replace(h->image, change->source);
  if (r < 0) {
    atomic_store_explicit(&h->share, shared, memory_order_relaxed);
    atomic_store_explicit(&h->terms, terms, memory_order_relaxed);
  }
  pthread_mutex_lock(&h->images->lock);
  char *unused = r < 0 ? path : h->path;
  struct retrying *uncounted = r < 0 ? change->retrying : h->retrying;
  if (r == 0) {
    h->retrying = change->retrying;
    bool is_in = !atomic_load_explicit(&h->removed, memory_order_relaxed);
    h->images->n_found -= is_in && h->origin == IMAGE_FOUND;
    h->images->n_found += is_in && change->origin == IMAGE_FOUND;
    h->origin = change->origin;
    h->path = path;
  }
  pthread_mutex_unlock(&h->images->lock);
  free(unused);
  retrying_unref(uncounted);
  return r;
}

bool images_count_source(struct served_image *h, struct retrying_counts *out) {
  pthread_mutex_lock(&h->images->lock);
  struct retrying *retrying = h->retrying ? retrying_ref(h->retrying) : NULL;
  pthread_mutex_unlock(&h->images->lock);
  if (!retrying)
    return false;
  retrying_count(retrying, out);
  retrying_unref(retrying);
  return true;
}

void images_print_path(struct served_image *h, char *to, size_t len) {
  pthread_mutex_lock(&h->images->lock);
  snprintf(to, len, "%s", h->path ? h->path : "its source");
  pthread_mutex_unlock(&h->images->lock);
}

static struct served_image *ref_locked(struct served_image *h) {
  if (!h)
    return NULL;
  lock_assert_held(&h->images->lock);
  h->n_refs++;
  return h;
}

/* G4. */
static bool may_read_locked(const struct served_image *h,
                            const struct peer *peer) {
  lock_assert_held(&h->images->lock);
  return !peer || rule_allows(rule_of_locked(h), peer);
}

struct served_image *images_find(struct images *images, const struct peer *peer,
                                 const char *name) {
  pthread_mutex_lock(&images->lock);
  struct served_image *h = find_locked(images, name);
  h = h && may_read_locked(h, peer) ? ref_locked(h) : NULL;
  pthread_mutex_unlock(&images->lock);
  return h;
}

bool images_hides(struct images *images, const struct peer *peer,
                  const char *name) {
  pthread_mutex_lock(&images->lock);
  struct served_image *h = find_locked(images, name);
  bool hides = h && !may_read_locked(h, peer);
  pthread_mutex_unlock(&images->lock);
  return hides;
}

bool images_may_read(struct served_image *h, const struct peer *peer) {
  pthread_mutex_lock(&h->images->lock);
  bool may = may_read_locked(h, peer);
  pthread_mutex_unlock(&h->images->lock);
  return may;
}

bool images_may_read_all(struct images *images, const struct peer *peer) {
  pthread_mutex_lock(&images->lock);
  bool may = rule_allows(images->allow, peer);
  pthread_mutex_unlock(&images->lock);
  return may;
}

/* The next one in the table, without a reference; as images_next(). */
static struct served_image *peek_locked(const struct images *images,
                                        unsigned *index) {
  lock_assert_held(&images->lock);
  while (*index < images->n_list) {
    struct served_image *h = images->list[(*index)++];
    if (h && !atomic_load_explicit(&h->removed, memory_order_relaxed))
      return h;
  }
  return NULL;
}

struct served_image *images_next(struct images *images, unsigned *index) {
  pthread_mutex_lock(&images->lock);
  struct served_image *h = ref_locked(peek_locked(images, index));
  pthread_mutex_unlock(&images->lock);
  return h;
}

/* A walk through the images that a peer may read.  Most images have the same
 * rule, so the walk keeps the result of the last one. */
struct peer_walk {
  const struct peer *peer;
  unsigned index;
  bool has_asked, may;
  const struct rule *asked;
};

/* The next one, without a reference; NULL: there is none. */
static struct served_image *walk_locked(const struct images *images,
                                        struct peer_walk *walk) {
  lock_assert_held(&images->lock);
  struct served_image *h;
  while ((h = peek_locked(images, &walk->index))) {
    const struct rule *rule = rule_of_locked(h);
    if (!walk->has_asked || rule != walk->asked)
      walk->may = may_read_locked(h, walk->peer);
    walk->has_asked = true;
    walk->asked = rule;
    if (walk->may)
      return h;
  }
  return NULL;
}

struct served_image *images_only(struct images *images,
                                 const struct peer *peer) {
  struct peer_walk walk = {.peer = peer};
  pthread_mutex_lock(&images->lock);
  struct served_image *h = walk_locked(images, &walk);
  if (h && walk_locked(images, &walk))
    h = NULL;
  ref_locked(h);
  pthread_mutex_unlock(&images->lock);
  return h;
}

/* Puts `h` where it belongs in a page of `n`, if it does; returns how many
 * there are then. */
static unsigned page_insert(struct served_image **page, unsigned n,
                            unsigned most, struct served_image *h) {
  unsigned at = n;
  while (at > 0 && strcmp(h->name, page[at - 1]->name) < 0)
    at--;
  if (at == most)
    return n;
  if (n < most)
    n++;
  memmove(&page[at + 1], &page[at],
          (n - 1 - at) * sizeof(struct served_image *));
  page[at] = h;
  return n;
}

unsigned images_page(struct images *images, const struct peer *peer,
                     const char *after, struct served_image **page,
                     unsigned most) {
  struct peer_walk walk = {.peer = peer};
  unsigned n = 0;
  pthread_mutex_lock(&images->lock);
  struct served_image *h;
  while ((h = walk_locked(images, &walk)))
    if (strcmp(h->name, after) > 0)
      n = page_insert(page, n, most, h);
  for (unsigned i = 0; i < n; i++)
    ref_locked(page[i]);
  pthread_mutex_unlock(&images->lock);
  return n;
}

unsigned images_count(struct images *images, const struct peer *peer) {
  struct peer_walk walk = {.peer = peer};
  pthread_mutex_lock(&images->lock);
  unsigned n = peer ? 0 : images->n;
  while (peer && walk_locked(images, &walk))
    n++;
  pthread_mutex_unlock(&images->lock);
  return n;
}

unsigned images_count_alive(struct images *images) {
  pthread_mutex_lock(&images->lock);
  unsigned n = images->n_alive;
  pthread_mutex_unlock(&images->lock);
  return n;
}

void images_ref(struct served_image *h) {
  pthread_mutex_lock(&h->images->lock);
  ref_locked(h);
  pthread_mutex_unlock(&h->images->lock);
}

/* To end an image takes as long as its source takes to close.  So the pool does
 * it, as long as it runs, and not a thread that must not wait. */
void images_unref(struct served_image *h) {
  if (!h)
    return;
  struct images *images = h->images;
  bool is_here = false;
  pthread_mutex_lock(&images->lock);
  if (--h->n_refs == 0) {
    assert(LIST_EMPTY(&h->listeners));
    images->list[h->index] = NULL;
    is_here = images->stopped;
    if (!is_here)
      pool_submit(images->look_lane, &h->end);
  }
  pthread_mutex_unlock(&images->lock);
  if (is_here)
    end_run(&h->end);
}

void images_listen(struct served_image *h, struct image_listener *listener) {
  pthread_mutex_lock(&h->images->lock);
  LIST_INSERT_HEAD(&h->listeners, listener, link);
  pthread_mutex_unlock(&h->images->lock);
}

void images_unlisten(struct served_image *h, struct image_listener *listener) {
  pthread_mutex_lock(&h->images->lock);
  LIST_REMOVE(listener, link);
  pthread_mutex_unlock(&h->images->lock);
}

/* ---- Rules --------------------------------------------------------------- */

/* Puts a rule in the place of another one. */
static void put_rule(struct rule **at, struct rule *rule) {
  struct rule *old = *at;
  *at = rule_ref(rule);
  rule_unref(old);
}

/* A change from one rule to another, and whether any peer loses by it.  Most
 * images have the same two rules, so the last result is kept. */
struct rule_change {
  const struct rule *from, *to;
  bool narrows;
};

static bool narrows(struct rule_change *last, const struct rule *from,
                    const struct rule *to) {
  if (last->from != from || last->to != to)
    *last = (struct rule_change){from, to, !rule_covers(to, from)};
  return last->narrows;
}

/* G5: the listeners end what the rule forbids, and images_set_rules() goes on
 * with a new epoch. */
static void narrow_locked(struct served_image *h) {
  lock_assert_held(&h->images->lock);
  h->change = RULE_NARROWED;
  atomic_fetch_add_explicit(&h->n_narrowed, 1, memory_order_release);
  tell_listeners_locked(h);
}

static void set_rule_locked(struct served_image *h, struct rule *all,
                            struct rule_change *last) {
  lock_assert_held(&h->images->lock);
  struct rule *own = h->next_rule ? h->next_rule->allow : h->allow;
  struct rule *now = own ? own : all;
  bool share = atomic_load_explicit(&h->share, memory_order_relaxed);
  uint64_t terms = terms_by(now, share);
  if (terms != atomic_exchange_explicit(&h->terms, terms, memory_order_relaxed))
    h->change = RULE_WIDENED; /* if it is not */
  if (narrows(last, rule_of_locked(h), now))
    narrow_locked(h);
  put_rule(&h->allow, own);
  h->next_rule = NULL;
}

static void set_rules_locked(struct images *images, struct rule *all,
                             const struct image_rule *list, size_t n) {
  lock_assert_held(&images->lock);
  struct rule_change last = {NULL, NULL, false};
  struct served_image *h;
  for (size_t i = 0; i < n; i++)
    if ((h = find_locked(images, list[i].name)))
      h->next_rule = &list[i];
  for (unsigned i = 0; (h = peek_locked(images, &i));)
    set_rule_locked(h, all, &last);
  put_rule(&images->allow, all);
  check_locked(images);
}

/* Which has a reference then. */
static struct served_image *next_changed(struct images *images, unsigned *index,
                                         enum rule_effect *change) {
  struct served_image *h;
  pthread_mutex_lock(&images->lock);
  while ((h = peek_locked(images, index)) && h->change == RULE_KEPT)
    ;
  if (h) {
    *change = ref_locked(h)->change;
    h->change = RULE_KEPT;
  }
  pthread_mutex_unlock(&images->lock);
  return h;
}

/* No client has pages of an image that is missing, so it needs no new epoch. */
static void follow_rule(struct served_image *h, enum rule_effect change) {
  if (atomic_load_explicit(&h->missing, memory_order_relaxed))
    return;
  if (change == RULE_NARROWED) {
    image_renew(h->image); /* on_changed() keeps the terms */
    return;
  }
  struct mirror *m = image_mirror(h->image);
  keep_terms(h, m);
  mirror_unref(m);
}

void images_set_rules(struct images *images, struct rule *all,
                      const struct image_rule *list, size_t n) {
  struct served_image *h;
  enum rule_effect change;
  pthread_mutex_lock(&images->lock);
  set_rules_locked(images, all, list, n);
  pthread_mutex_unlock(&images->lock);
  for (unsigned i = 0; (h = next_changed(images, &i, &change));) {
    follow_rule(h, change);
    images_unref(h);
  }
}

/* ---- The end ------------------------------------------------------------- */

/* Waits for PENDING reads before it stops the pool: one that ends may need a
 * thread of the pool. */
void images_stop(struct images *images) {
  pending_await_none(&images->pending);
  pthread_mutex_lock(&images->lock);
  check_locked(images);
  images->stopped = true;
  pthread_mutex_unlock(&images->lock);
  pool_stop(images->pool);
}

void images_stop_evicting(struct images *images) {
  if (!images->cache)
    return;
  page_cache_stop_threads(images->cache);
  if (keeper_leave(&images->keeper))
    page_cache_leave(images->cache);
}

void images_fini(struct images *images) {
  struct served_image *h;
  unsigned index = 0;
  images->stopped = true;
  while (images->list && (h = images_next(images, &index))) {
    images_remove(h);
    images_unref(h);
  }
  free(images->list);
  free(images->totals);
  rule_unref(images->allow);
  reader_counts_unref(images->readers);
  pool_lane_free(images->invalidation_lane);
  pool_lane_free(images->look_lane);
  pool_free(images->pool);
  restore_free(images->restore);
  if (images->cache)
    page_cache_free(images->cache);
  keeper_fini(&images->keeper);
  pthread_mutex_destroy(&images->lock);
  pending_fini(&images->pending);
}
