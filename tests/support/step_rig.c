#include "tests/support/step_rig.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "cache/page_cache.h"
#include "daemon/serve/fetch_quota.h"
#include "daemon/serve/read.h"

struct step_rig {
  struct page_cache *cache;
  struct served_image *served;
  struct fill_dispatch_image fills; /* its runner alone */
  struct server_context context;    /* its limits alone */
  struct service service;
  struct service_image image;
  struct session session; /* of no connection */
  struct subscription subscription;
  struct request request;
  struct read_answer answer;
};

static const char *const outcomes[] = {
    [STEP_MORE] = "MORE", [STEP_DONE] = "DONE",           [STEP_MISS] = "MISS",
    [STEP_FULL] = "FULL", [STEP_NEW_EPOCH] = "NEW_EPOCH",
};

static const char *const answers[] = {
    [READ_NOTHING] = "NOTHING",   [READ_DATA] = "DATA",
    [READ_FINISHED] = "FINISHED", [READ_LEASE] = "LEASE",
    [READ_REFUSED] = "REFUSED",
};

static void run_now(struct fill_runner *runner, struct fill *fill) {
  (void)runner;
  image_run_fill(fill);
}

static void *zeroed(size_t alignment, size_t len) {
  len = (len + alignment - 1) & ~(alignment - 1);
  void *p = aligned_alloc(alignment, len);
  assert(p);
  return memset(p, 0, len);
}

static struct served_image *serve(struct page_cache *cache,
                                  struct source *src) {
  static char name[] = "disk";
  struct served_image *h =
      zeroed(_Alignof(struct served_image), sizeof *h + sizeof h->counters[0]);
  const struct image_ops ops = {.needs_pages = true};
  int r = image_new(cache, name, src, STEP_RIG_PAGE_SHIFT, &ops, &h->image);
  assert(r == 0);
  h->name = name;
  return h;
}

static struct image_reader *reader_of(struct step_rig *rig) {
  return &rig->image.reader;
}

struct step_rig *step_rig_new(struct source *src) {
  struct step_rig *rig = zeroed(_Alignof(struct step_rig), sizeof *rig);
  const struct page_cache_options options = {.budget = 16 << 20};
  int r = page_cache_new(&options, &rig->cache);
  assert(r == 0);
  rig->served = serve(rig->cache, src);
  rig->fills.runner.run = run_now;
  rig->context.limits = limits_default();
  rig->service.context = &rig->context;
  rig->service.images.totals = image_counters_new(1);
  fetch_quota_init(&rig->service.quota);
  r = send_batch_init(&rig->service.net.out);
  assert(r == 0);
  rig->image.set = &rig->service.images;
  rig->image.counters = rig->served->counters;
  rig->image.reader =
      (struct image_reader){.served = rig->served, .fills = &rig->fills};
  rig->session.service = &rig->service;
  rig->subscription =
      (struct subscription){.session = &rig->session,
                            .image = &rig->image,
                            .asked = images_n_narrowed(rig->served) + 1,
                            .epoch = step_rig_epoch(rig)};
  return rig;
}

void step_rig_free(struct step_rig *rig) {
  fetch_quota_drop(&rig->request);
  send_batch_reset(&rig->service.net.out);
  send_batch_fini(&rig->service.net.out);
  image_reader_close(reader_of(rig));
  image_free(rig->served->image);
  page_cache_free(rig->cache);
  free(rig->service.images.totals);
  free(rig->served);
  free(rig);
}

void step_rig_attach(struct step_rig *rig, bool attached) {
  rig->subscription.attached = attached;
}

void step_rig_remove(struct step_rig *rig) { rig->subscription.ended = true; }

void step_rig_set_batch_len(struct step_rig *rig, uint32_t len) {
  rig->context.limits.batch_len = len;
}

void step_rig_set_piece_len(struct step_rig *rig, uint32_t len) {
  rig->context.limits.piece_len = len;
}

void step_rig_ask(struct step_rig *rig, enum step_rig_kind kind,
                  const struct range *ranges, unsigned n_ranges) {
  static const enum request_kind kinds[] = {
      [STEP_RIG_READ] = REQUEST_READ,
      [STEP_RIG_READ_IN_PLACE] = REQUEST_READ_IN_PLACE,
      [STEP_RIG_WARM] = REQUEST_WARM,
      [STEP_RIG_ATTACH] = REQUEST_ATTACH,
  };
  fetch_quota_drop(&rig->request);
  rig->request = (struct request){.service = &rig->service,
                                  .session = &rig->session,
                                  .image = &rig->image,
                                  .subscription = &rig->subscription,
                                  .kind = kinds[kind],
                                  .plan = read_plan_of(ranges, n_ranges)};
}

static void put_into_batch(struct step_rig *rig) {
  struct send_batch *batch = &rig->service.net.out;
  Cachet__Wire__Done done = CACHET__WIRE__DONE__INIT; /* stands for the Data */
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DONE;
  msg.done = &done;
  send_batch_frame(batch, &msg, rig->answer.data.len);
  for (unsigned i = 0; i < rig->answer.n_segments; i++)
    send_batch_payload(batch, rig->answer.segments[i].iov_base,
                       rig->answer.segments[i].iov_len);
  if (image_reader_has_pins(reader_of(rig)))
    send_batch_pinned(batch, reader_of(rig));
}

struct rig_step step_rig_step(struct step_rig *rig, size_t most) {
  const struct read_answer *a = &rig->answer;
  enum step step = read_step(&rig->request, most, &rig->answer);
  bool answers_now = step == STEP_MORE || step == STEP_DONE;
  if (answers_now && a->kind == READ_DATA)
    put_into_batch(rig);
  return (struct rig_step){.outcome = outcomes[step],
                           .answer = answers_now ? answers[a->kind] : NULL,
                           .missing = rig->request.missing,
                           .n_missing = rig->request.n_missing,
                           .epoch = a->data.epoch,
                           .offset = a->data.offset,
                           .len = a->data.len,
                           .resident = a->data.resident,
                           .last = a->data.last,
                           .segments = a->segments,
                           .n_segments = a->n_segments,
                           .status = a->status,
                           .text = a->text};
}

void step_rig_send(struct step_rig *rig) {
  send_batch_reset(&rig->service.net.out);
  if (rig->answer.ends_fetch)
    fetch_quota_drop(&rig->request);
}

void step_rig_fetch(struct step_rig *rig) {
  fetch_quota_drop(&rig->request);
  bool waits = fetch_quota_start(&rig->request);
  assert(!waits);
}

void step_rig_enter_epoch(struct step_rig *rig) {
  const struct mirror *m = reader_of(rig)->mirror;
  if (rig->request.fetch && rig->request.fetch->mirror != m)
    fetch_quota_restart(&rig->request);
  rig->subscription.epoch = m->epoch;
}

void step_rig_renew(struct step_rig *rig) { image_renew(rig->served->image); }

void step_rig_invalidate(struct step_rig *rig, uint64_t first, uint64_t n) {
  int r = image_invalidate(rig->served->image, first, n);
  assert(r == 0);
}

uint64_t step_rig_epoch(struct step_rig *rig) {
  struct mirror *m = image_mirror(rig->served->image);
  uint64_t epoch = m->epoch;
  mirror_unref(m);
  return epoch;
}

unsigned step_rig_n_pins(const struct step_rig *rig) {
  return rig->image.reader.n_pages + rig->image.reader.n_ranges;
}

bool step_rig_has_fetch(const struct step_rig *rig) {
  return rig->request.fetch;
}

uint64_t step_rig_hits(const struct step_rig *rig) {
  return image_counters_get(rig->image.counters, COUNTER_HITS);
}

uint64_t step_rig_misses(const struct step_rig *rig) {
  return image_counters_get(rig->image.counters, COUNTER_MISSES);
}
