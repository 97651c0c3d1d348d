#include "client/remote/admin.h"

#include "client/handle.h"
#include "client/remote/remote.h"

/* So that progress can be shown, and a time-out is one of a piece. */
#define WARM_MAX_LEN (16ull << 20)

struct admin {
  struct backend *backend;
};

enum cachet_status admin_open(const struct uri *u,
                              const struct options *options, struct admin **out,
                              struct cachet_error *err) {
  struct admin *a = malloc(sizeof *a);
  if (!a)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a connection");
  enum cachet_status status = remote_connect(u, options, &a->backend, err);
  if (status != CACHET_OK)
    free(a);
  else
    *out = a;
  return status;
}

void admin_close(struct admin *a) {
  if (!a)
    return;
  a->backend->ops->close(a->backend);
  free(a);
}

/* ---- Images -------------------------------------------------------------- */

struct lister {
  void (*fn)(void *arg, const struct admin_image *image);
  void *arg;
};

static int list_answer(void *arg, const wire_message *msg) {
  const struct lister *l = arg;
  for (size_t i = 0; i < msg->images->n_images; i++) {
    const Cachet__Wire__ImageInfo *info = msg->images->images[i];
    struct admin_image image = {.name = info->name,
                                .size = info->size,
                                .epoch = info->epoch,
                                .page_size = info->page_size,
                                .missing = info->missing};
    l->fn(l->arg, &image);
  }
  return 0;
}

enum cachet_status admin_list(struct admin *a,
                              void (*fn)(void *arg,
                                         const struct admin_image *image),
                              void *arg, struct cachet_error *err) {
  Cachet__Wire__List list = CACHET__WIRE__LIST__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_LIST;
  msg.list = &list;
  struct lister l = {fn, arg};
  return remote_command(a->backend, &msg, CACHET__WIRE__MESSAGE__BODY_IMAGES,
                        list_answer, &l, err);
}

/* ---- Counters ------------------------------------------------------------ */

struct counter {
  void (*fn)(void *arg, const char *image, const char *name, uint64_t value);
  void *arg;
};

static void count_all(const struct counter *c, const char *image,
                      Cachet__Wire__Stat *const *stats, size_t n) {
  for (size_t i = 0; i < n; i++)
    c->fn(c->arg, image, stats[i]->name, stats[i]->value);
}

static int stats_answer(void *arg, const wire_message *msg) {
  const Cachet__Wire__Stats *s = msg->stats;
  count_all(arg, NULL, s->daemon, s->n_daemon);
  for (size_t i = 0; i < s->n_images; i++)
    count_all(arg, s->images[i]->name, s->images[i]->stats,
              s->images[i]->n_stats);
  return 0;
}

enum cachet_status admin_stats(struct admin *a,
                               void (*fn)(void *arg, const char *image,
                                          const char *name, uint64_t value),
                               void *arg, struct cachet_error *err) {
  Cachet__Wire__GetStats get = CACHET__WIRE__GET_STATS__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_GET_STATS;
  msg.get_stats = &get;
  struct counter c = {fn, arg};
  return remote_command(a->backend, &msg, CACHET__WIRE__MESSAGE__BODY_STATS,
                        stats_answer, &c, err);
}

/* ---- Warming ------------------------------------------------------------- */

uint64_t admin_warm_max(const cachet *c) {
  if (!remote_is(c->backend))
    return WARM_MAX_LEN;
  uint64_t max = remote_max_read(c->backend);
  return max < WARM_MAX_LEN ? max : WARM_MAX_LEN;
}

enum cachet_status admin_warm(cachet *c, uint64_t offset, uint64_t len,
                              struct cachet_error *err) {
  if (!remote_is(c->backend))
    return error_set(err, CACHET_E_UNSUPPORTED, 0,
                     "image \"%.100s\": warm: there is no daemon",
                     c->image_cache->name);
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT, *ranges[] = {&range};
  range.offset = offset;
  range.length = len;
  Cachet__Wire__Warm warm = CACHET__WIRE__WARM__INIT;
  warm.n_ranges = 1;
  warm.ranges = ranges;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_WARM;
  msg.warm = &warm;
  return remote_command(c->backend, &msg, CACHET__WIRE__MESSAGE__BODY_DONE,
                        NULL, NULL, err);
}
