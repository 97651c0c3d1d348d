#include "daemon/serve/stats.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/serve/access.h"
#include "daemon/serve/metrics.h"

/* The answer and all it points at, in one block. */
struct collection {
  Cachet__Wire__Stats stats;
  Cachet__Wire__Stat daemon[METRICS_N];
  Cachet__Wire__Stat *daemon_list[METRICS_N];
  Cachet__Wire__ImageStats **image_list;
  struct image_collection {
    Cachet__Wire__ImageStats stats;
    char name[IMAGE_NAME_MAX + 1]; /* the image may be gone by then */
    Cachet__Wire__Stat list[METRICS_N];
    Cachet__Wire__Stat *pointers[METRICS_N];
  } images[];
};

/* Makes a list of the metrics that there are `of` it; returns how many. */
static size_t put_all(Cachet__Wire__Stat *list, Cachet__Wire__Stat **pointers,
                      unsigned of, const uint64_t values[METRICS_N]) {
  size_t n = 0;
  for (size_t i = 0; i < METRICS_N; i++) {
    if (!(metrics_table[i].of & of))
      continue;
    cachet__wire__stat__init(&list[n]);
    list[n].name = (char *)metrics_table[i].name;
    list[n].value = values[i];
    pointers[n] = &list[n];
    n++;
  }
  return n;
}

static void collect_image(struct served_image *h, struct image_collection *c) {
  Cachet__Wire__ImageStats *stats = &c->stats;
  uint64_t values[METRICS_N];
  unsigned of = metrics_of_image(h, values);
  cachet__wire__image_stats__init(stats);
  stats->name = strcpy(c->name, h->name);
  stats->stats = c->pointers;
  stats->n_stats = put_all(c->list, c->pointers, of, values);
}

/* The tag and the length of a message in another. */
enum { FIELD_LEN = 8 };

/* As many of the images as a Message has room for. */
static void collect_images(struct collection *c,
                           struct served_image *const *page, unsigned n_page) {
  size_t len = 2 * FIELD_LEN + cachet__wire__stats__get_packed_size(&c->stats);
  for (unsigned i = 0; i < n_page; i++) {
    collect_image(page[i], &c->images[i]);
    c->image_list[i] = &c->images[i].stats;
    len += FIELD_LEN +
           cachet__wire__image_stats__get_packed_size(&c->images[i].stats);
    if (len > FRAME_MAX_MESSAGE)
      return;
    c->stats.n_images++;
  }
}

static void collect_daemon(struct server_context *context,
                           const struct peer *peer, struct collection *c) {
  uint64_t values[METRICS_N];
  metrics_of_daemon(context, peer, values);
  c->stats.n_daemon =
      put_all(c->daemon, c->daemon_list, METRIC_OF_DAEMON, values);
}

Cachet__Wire__Stats *stats_collect(struct server_context *context,
                                   const struct connection *conn,
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
  unsigned n_page =
      images_page(&context->images, &conn->peer, after, page, most);
  if (!*after && access_may_see_daemon(context, conn))
    collect_daemon(context, &conn->peer, c);
  collect_images(c, page, n_page);
  c->stats.more = c->stats.n_images == most || c->stats.n_images < n_page;
  for (unsigned i = 0; i < n_page; i++)
    images_unref(page[i]);
  return &c->stats; /* the first member: free() takes it */
}
