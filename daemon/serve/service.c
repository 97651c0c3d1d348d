#include "daemon/serve/service.h"

#include <errno.h>
#include <stdlib.h>

#include "daemon/net/connection.h"
#include "daemon/serve/session.h"
#include "daemon/serve/subscription.h"

/* Has no reader keep the mirror of a past epoch, and tells its sessions. */
static void tell_of_epoch(struct service_image *si) {
  if (!image_reader_is_current(&si->reader))
    image_reader_close(&si->reader);
  struct subscription *sub;
  LIST_FOREACH(sub, &si->subscribers, of_image) {
    if (connection_may_send(&sub->session->conn))
      notices_push(sub->session);
    connection_flush(&sub->session->conn); /* the output is one for all */
  }
  subscription_settle_all(&si->subscribers);
}

/* Ends those of an image that was removed, or of peers that may not read it any
 * more. */
static void end_subscriptions(struct service_image *si) {
  bool removed =
      atomic_load_explicit(&si->reader.served->removed, memory_order_relaxed);
  for (struct subscription *sub = LIST_FIRST(&si->subscribers), *next; sub;
       sub = next) {
    struct session *s = sub->session;
    next = LIST_NEXT(sub, of_image);
    if (!removed && (sub->ended || subscription_is_allowed(sub)))
      continue;
    subscription_end(sub);
    notices_turn_ended(s); /* it owes no notice of it any more */
  }
}

static void image_changed(struct service_image *si) {
  end_subscriptions(si);
  tell_of_epoch(si);
}

int service_init(struct service *service, uint64_t max_held) {
  const struct server_context *context = service->context;
  attachments_init(&service->attachments, service->loop,
                   &service->context->census, &context->limits);
  notices_init(&service->notices, &service->net);
  fetch_quota_init(&service->quota);
  TAILQ_INIT(&service->ended);
  service->ranges = calloc(context->limits.max_ranges, sizeof *service->ranges);
  service->images.changed = image_changed;
  if (net_thread_init(&service->net, max_held) < 0 ||
      service_images_init(&service->images) < 0 || !service->ranges)
    return -ENOMEM;
  return 0;
}

void service_fini(struct service *service) {
  notices_fini(&service->notices);
  service_images_fini(&service->images);
  attachments_fini(&service->attachments);
  net_thread_fini(&service->net);
  free(service->ranges);
}

void service_close_readers(struct service *service) {
  struct service_image *si;
  LIST_FOREACH(si, &service->images.all, link)
    image_reader_close(&si->reader);
}

void service_close_all(struct service *service) {
  connection_drop_all(&service->net);
  notices_check(&service->notices);
}
