#include "daemon/serve/reply.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/source.h"
#include "daemon/serve/stats.h"
#include "proto/status.h"

/* Images in one answer to GetStats, at most. */
enum { REPLY_N_IMAGES = 128 };

static void fill_info(Cachet__Wire__ImageInfo *info, uint32_t number,
                      const struct served_image *h, const struct mirror *m) {
  cachet__wire__image_info__init(info);
  info->image = number;
  info->name = h->name;
  info->size = m->size;
  info->page_size = (uint32_t)mirror_page_size(m);
  info->epoch = m->epoch;
  info->missing = atomic_load_explicit(&h->missing, memory_order_relaxed) != 0;
}

/* Sets that part of the identity that is the same on every machine.  An
 * identity that is too long is left out.  `info` points into `id`. */
static void fill_identity(Cachet__Wire__ImageInfo *info, const struct mirror *m,
                          struct source_identity *id) {
  source_identify(m->source, id);
  if (id->content_len > PROTO_MAX_IDENTITY)
    return;
  info->identity.len = id->content_len;
  info->identity.data = id->bytes + (id->len - id->content_len);
}

/* ---- Of the daemon ------------------------------------------------------- */

void reply_welcome(struct connection *c, uint64_t id,
                   const struct server_context *context) {
  const struct limits *limits = &context->limits;
  Cachet__Wire__Welcome welcome = CACHET__WIRE__WELCOME__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  welcome.version = PROTO_VERSION;
  welcome.max_message = limits->max_message;
  welcome.max_payload = limits->piece_len;
  welcome.max_ranges = limits->max_ranges;
  welcome.max_read = limits->max_read;
  welcome.max_requests = limits->max_requests;
  welcome.share = context->share && listener_is_local(c->listener);
  welcome.change = context->maker.add != NULL;
  welcome.drain = true;
  welcome.agent = (char *)"cachetd";
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_WELCOME;
  msg.welcome = &welcome;
  connection_reply(c, &msg);
}

static void fill_found(Cachet__Wire__ImageInfo *info,
                       const struct found_name *found, uint32_t page_size) {
  cachet__wire__image_info__init(info);
  info->name = (char *)found->name;
  info->size = found->size;
  info->page_size = page_size;
  info->unopened = true;
}

static void fill_served(Cachet__Wire__ImageInfo *info, uint32_t number,
                        struct served_image *h) {
  struct mirror *m = image_mirror(h->image);
  fill_info(info, number, h, m);
  mirror_unref(m);
}

/* Merges the images in the table with those that can be found, by name.  It
 * leaves out found names that the table uses for an image which the peer may
 * not read.  If there are more names than fit, the rest comes in a later
 * answer. */
static void merge(struct connection *c, struct images *images,
                  const struct reply_listing *what,
                  struct served_image *const *page, unsigned n_page,
                  Cachet__Wire__ImageInfo *list, Cachet__Wire__Images *answer) {
  bool is_cut = what->n_names == REPLY_MAX_LISTED;
  unsigned n = 0, i = 0, k = 0;
  while (n < REPLY_MAX_LISTED &&
         (k < what->n_names || (i < n_page && !is_cut))) {
    int order = i == n_page ? 1
                : k == what->n_names
                    ? -1
                    : strcmp(page[i]->name, what->names[k].name);
    if (order <= 0)
      fill_served(&list[n++], what->number_of(c, page[i]), page[i]);
    else if (!images_hides(images, &c->peer, what->names[k].name))
      fill_found(&list[n++], &what->names[k], what->page_size);
    i += order <= 0;
    k += order >= 0;
  }
  answer->n_images = n;
  answer->more = n == REPLY_MAX_LISTED || is_cut;
}

void reply_images(struct connection *c, uint64_t id, struct images *images,
                  const struct reply_listing *what) {
  struct served_image *page[REPLY_MAX_LISTED];
  Cachet__Wire__ImageInfo list[REPLY_MAX_LISTED];
  Cachet__Wire__ImageInfo *pointers[REPLY_MAX_LISTED];
  Cachet__Wire__Images answer = CACHET__WIRE__IMAGES__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  unsigned n_page =
      images_page(images, &c->peer, what->after, page, REPLY_MAX_LISTED);
  merge(c, images, what, page, n_page, list, &answer);
  for (unsigned i = 0; i < answer.n_images; i++)
    pointers[i] = &list[i];
  answer.images = pointers;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_IMAGES;
  msg.images = &answer;
  connection_reply(c, &msg);
  for (unsigned i = 0; i < n_page; i++)
    images_unref(page[i]);
}

void reply_stats(struct connection *c, uint64_t id,
                 struct server_context *context, const char *after) {
  Cachet__Wire__Stats *stats = stats_collect(context, c, after, REPLY_N_IMAGES);
  if (!stats) {
    connection_reply_error(c, id, WIRE_E_NOMEM, 0, "stats: out of memory");
    return;
  }
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_STATS;
  msg.stats = stats;
  connection_reply(c, &msg); /* packs it: nothing is kept */
  free(stats);
}

/* ---- Of an image --------------------------------------------------------- */

void reply_opened(struct connection *c, uint64_t id, uint32_t number,
                  const struct served_image *h, const struct mirror *m) {
  Cachet__Wire__ImageInfo info;
  Cachet__Wire__Opened opened = CACHET__WIRE__OPENED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  struct source_identity identity;
  fill_info(&info, number, h, m);
  fill_identity(&info, m, &identity);
  info.invalidations = mirror_mark(m) + 1;
  opened.info = &info;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_OPENED;
  msg.opened = &opened;
  connection_reply(c, &msg);
}

void reply_attached(struct connection *c, uint64_t id, uint32_t number,
                    const struct served_image *h, const struct mirror *m,
                    const struct attachment_grant *grant) {
  Cachet__Wire__ImageInfo info;
  Cachet__Wire__Attached attached = CACHET__WIRE__ATTACHED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  fill_info(&info, number, h, m);
  attached.info = &info;
  attached.layout = MIRROR_LAYOUT;
  attached.table = grant->table;
  attached.page_slots = grant->size.page_slots;
  attached.range_capacity = grant->size.range_capacity;
  attached.read_ahead = grant->read_ahead;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ATTACHED;
  msg.attached = &attached;
  connection_reply(c, &msg);
}

void reply_grown(struct connection *c, uint64_t id,
                 const struct shared_pins_size *size) {
  Cachet__Wire__Grown grown = CACHET__WIRE__GROWN__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  grown.page_slots = size->page_slots;
  grown.range_capacity = size->range_capacity;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_GROWN;
  msg.grown = &grown;
  connection_reply(c, &msg);
}

void reply_done(struct connection *c, uint64_t id, uint64_t epoch) {
  Cachet__Wire__Done done = CACHET__WIRE__DONE__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  done.epoch = epoch;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DONE;
  msg.done = &done;
  connection_reply(c, &msg);
}

void reply_data(struct connection *c, uint64_t id,
                const struct reply_data *piece) {
  Cachet__Wire__Data data = CACHET__WIRE__DATA__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  data.epoch = piece->epoch;
  data.range = piece->range;
  data.offset = piece->offset;
  data.last = piece->last;
  data.resident = piece->resident;
  msg.id = id;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DATA;
  msg.data = &data;
  send_batch_frame(&c->net->out, &msg, piece->len);
}

/* ---- Notices ------------------------------------------------------------- */

static void put_notice(struct connection *c, wire_message *msg) {
  assert(frame_packed_len(msg) <= SEND_BATCH_SMALL_LEN);
  connection_reply(c, msg);
}

void reply_changed(struct connection *c, uint32_t number,
                   const struct served_image *h, const struct mirror *m) {
  Cachet__Wire__ImageInfo info;
  Cachet__Wire__Changed changed = CACHET__WIRE__CHANGED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  struct source_identity identity;
  fill_info(&info, number, h, m);
  fill_identity(&info, m, &identity);
  /* This says "none so far" (0 plus 1), whatever the number is: bytes that are
   * on their way may be older than the last invalidations. */
  info.invalidations = 1;
  changed.info = &info;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_CHANGED;
  msg.changed = &changed;
  put_notice(c, &msg);
}

void reply_invalidated(struct connection *c, uint32_t number,
                       const struct reply_invalidation *what) {
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT;
  Cachet__Wire__Range *ranges = &range;
  Cachet__Wire__Invalidated invalidated = CACHET__WIRE__INVALIDATED__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  range.offset = what->from;
  range.length = what->to - what->from;
  invalidated.image = number;
  invalidated.epoch = what->epoch;
  invalidated.invalidations = what->n_of_epoch + 1;
  invalidated.n_ranges = 1;
  invalidated.ranges = &ranges;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_INVALIDATED;
  msg.invalidated = &invalidated;
  put_notice(c, &msg);
}
