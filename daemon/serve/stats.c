#include "daemon/serve/stats.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/serve/service.h"

static const char *const stat_names[N_COUNTERS] = {
    [COUNTER_HITS] = "hits",     [COUNTER_MISSES] = "misses",
    [COUNTER_JOINS] = "joins",   [COUNTER_REQUESTS] = "requests",
    [COUNTER_ERRORS] = "errors", [COUNTER_BYTES] = "bytes_sent",
};

enum {
  N_DAEMON_STATS = N_COUNTERS + 16,
  N_IMAGE_STATS = N_COUNTERS + 1, /* and epochs */
};

/* The answer and all it points at, in one block. */
struct collection {
  Cachet__Wire__Stats stats;
  Cachet__Wire__Stat daemon[N_DAEMON_STATS];
  Cachet__Wire__Stat *daemon_list[N_DAEMON_STATS];
  Cachet__Wire__ImageStats **image_list;
  struct image_collection {
    Cachet__Wire__ImageStats stats;
    char name[IMAGE_NAME_MAX + 1]; /* the image may be gone by then */
    Cachet__Wire__Stat list[N_IMAGE_STATS];
    Cachet__Wire__Stat *pointers[N_IMAGE_STATS];
  } images[];
};

/* Appends a counter to a list of them.  The name is static. */
static void put(Cachet__Wire__Stat *list, Cachet__Wire__Stat **pointers,
                size_t *n, const char *name, uint64_t value) {
  Cachet__Wire__Stat *stat = &list[*n];
  cachet__wire__stat__init(stat);
  stat->name = (char *)name;
  stat->value = value;
  pointers[(*n)++] = stat;
}

static uint64_t sum(const struct served_image *h, enum counter which) {
  uint64_t total = 0;
  for (unsigned i = 0; i < h->images->n_threads; i++)
    total += counters_get(&h->counters[i], which);
  return total;
}

static void collect_image(const struct served_image *h,
                          struct image_collection *c) {
  Cachet__Wire__ImageStats *stats = &c->stats;
  cachet__wire__image_stats__init(stats);
  stats->name = strcpy(c->name, h->name);
  stats->stats = c->pointers;
  for (int i = 0; i < N_COUNTERS; i++)
    put(c->list, c->pointers, &stats->n_stats, stat_names[i],
        sum(h, (enum counter)i));
  put(c->list, c->pointers, &stats->n_stats, "epochs",
      atomic_load_explicit(&h->n_epochs, memory_order_relaxed));
  assert(stats->n_stats == N_IMAGE_STATS);
}

/* Of all images. */
static void sum_totals(struct images *images, uint64_t totals[N_COUNTERS]) {
  struct served_image *h;
  for (unsigned i = 0; (h = images_next(images, &i));) {
    for (int k = 0; k < N_COUNTERS; k++)
      totals[k] += sum(h, (enum counter)k);
    images_unref(h);
  }
}

static uint64_t sum_held(const struct server_context *context) {
  uint64_t total = 0;
  for (unsigned i = 0; i < context->n_services; i++)
    total += net_thread_held(&context->services[i]->net);
  return total;
}

static void collect_daemon(struct server_context *context,
                           struct collection *c) {
  Cachet__Wire__Stats *stats = &c->stats;
  uint64_t totals[N_COUNTERS] = {0};
  sum_totals(&context->images, totals);
  struct page_cache_stats pc;
  page_cache_get_stats(context->images.cache, &pc);
  const struct {
    const char *name;
    uint64_t value;
  } more[] = {
      {"fills", pc.n_fills},
      {"fill_errors", pc.n_fill_errors},
      {"filled_pages", pc.n_filled_pages},
      {"uncached_pages", pc.n_uncached_pages},
      {"evicted_pages", pc.n_evicted_pages},
      {"eviction_batches", pc.n_batches},
      {"epochs", pc.n_epochs},
      {"cache_used", pc.used},
      {"cache_size", pc.budget},
      {"cache_allocated", page_cache_allocated(context->images.cache)},
      {"connections", users_count(&context->users)},
      {"connections_accepted",
       atomic_load_explicit(&context->n_accepted, memory_order_relaxed)},
      {"connections_held", sum_held(context)},
      {"attachments",
       attachment_count((struct attachment_census *)&context->census)},
      {"pool_threads", pool_n_threads(context->images.pool)},
      {"images", images_count(&context->images)},
  };
  for (int i = 0; i < N_COUNTERS; i++)
    put(c->daemon, c->daemon_list, &stats->n_daemon, stat_names[i], totals[i]);
  for (size_t i = 0; i < sizeof more / sizeof more[0]; i++)
    put(c->daemon, c->daemon_list, &stats->n_daemon, more[i].name,
        more[i].value);
  assert(stats->n_daemon == N_DAEMON_STATS);
}

Cachet__Wire__Stats *stats_collect(struct server_context *context,
                                   const char *after, unsigned most) {
  size_t image_len = sizeof(struct image_collection) +
                     sizeof(Cachet__Wire__ImageStats *) +
                     sizeof(struct served_image *);
  struct collection *c = calloc(1, sizeof *c + most * image_len);
  if (!c)
    return NULL;
  c->image_list = (Cachet__Wire__ImageStats **)&c->images[most];
  struct served_image **page = (struct served_image **)&c->image_list[most];
  cachet__wire__stats__init(&c->stats);
  c->stats.daemon = c->daemon_list;
  c->stats.images = c->image_list;
  c->stats.n_images = images_page(&context->images, after, page, most);
  c->stats.more = c->stats.n_images == most;
  for (size_t i = 0; i < c->stats.n_images; i++) {
    collect_image(page[i], &c->images[i]);
    c->image_list[i] = &c->images[i].stats;
    images_unref(page[i]);
  }
  if (!*after)
    collect_daemon(context, c);
  return &c->stats; /* the first member: free() takes it */
}
