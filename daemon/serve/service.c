#include "daemon/serve/service.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/net/connection.h"
#include "daemon/serve/session.h"

static int service_init_images(struct service *service) {
  struct server_context *context = service->context;
  service->readers = calloc(context->images.n, sizeof *service->readers);
  service->counters = calloc(context->images.n, sizeof *service->counters);
  if (!service->readers || !service->counters)
    return -ENOMEM;
  for (unsigned i = 0; i < context->images.n; i++)
    image_reader_init(&service->readers[i], &context->images.list[i],
                      service->dispatch);
  return 0;
}

int service_init(struct service *service, uint64_t max_held) {
  const struct server_context *context = service->context;
  uint64_t piece_len = 1ull << image_page_shift(context->images.list[0].image);
  if (piece_len < context->limits.piece_len)
    piece_len = context->limits.piece_len;
  attachments_init(&service->attachments, service->loop,
                   &service->context->census, &context->limits);
  notices_init(&service->notices, &service->net);
  service->ranges = calloc(context->limits.max_ranges, sizeof *service->ranges);
  if (net_thread_init(&service->net, max_held, piece_len) < 0 ||
      fetch_quota_init(&service->quota, context->images.n) < 0 ||
      !service->ranges)
    return -ENOMEM;
  return service_init_images(service);
}

void service_fini(struct service *service) {
  attachments_fini(&service->attachments);
  net_thread_fini(&service->net);
  fetch_quota_fini(&service->quota);
  free(service->ranges);
  free(service->readers);
  free(service->counters);
}

void service_close_readers(struct service *service) {
  for (unsigned i = 0; i < service->context->images.n; i++)
    image_reader_close(&service->readers[i]);
}

void service_image_changed(struct service *service, unsigned image) {
  struct image_reader *l = &service->readers[image];
  if (!image_reader_is_current(l))
    image_reader_close(l); /* lest it keeps the retired mirror */
  for (struct connection *c = service->net.conns, *next; c; c = next) {
    next = c->next;
    if (connection_may_send(c))
      notices_push(session_of(c));
    connection_settle(c);
  }
}

void service_close_all(struct service *service) {
  net_thread_close_all(&service->net);
  notices_check(&service->notices);
}
