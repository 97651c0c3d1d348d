/* Kept here: of R4, that a notice is heeded when it is taken in, and that a
 * cache that could not follow one ends with its connection. */
#include "client/remote/notice.h"

#include <errno.h>

#include "base/deadline.h"
#include "client/error.h"
#include "client/image_cache.h"
#include "client/remote/internal.h"

enum { MAX_NOTICE_RANGES = 16 /* that are dropped one by one */ };

int remote_notice_drop(struct remote *r, uint64_t offset, uint64_t len) {
  struct image_cache *s = r->base.image_cache;
  unsigned shift = image_page_shift(s->image);
  uint64_t end;
  if (len == 0)
    return 0;
  if (__builtin_add_overflow(offset, len, &end))
    end = UINT64_MAX;
  uint64_t first = offset >> shift;
  remote_unpin(r);
  return image_invalidate(s->image, first, ((end - 1) >> shift) - first + 1);
}

void remote_notice_failed(struct remote *r, int e) {
  struct cachet_error why;
  r->heard.invalidations = 0; /* no later connection goes on with it */
  error_set(&why, error_from_errno(-e), -e, "image \"%.100s\": follow a change",
            r->base.image_cache->name);
  connection_break(r->connection,
                   e == -ENOMEM ? CONNECTION_LOST_RETRY
                                : CONNECTION_LOST_REFUSED,
                   why.code, why.message);
}

/* The least range that holds all of a notice's; of length 0 if it has none. */
static void notice_hull(const Cachet__Wire__Invalidated *n, uint64_t *from,
                        uint64_t *len) {
  uint64_t to = 0;
  *from = UINT64_MAX;
  for (size_t i = 0; i < n->n_ranges; i++) {
    uint64_t offset = n->ranges[i]->offset, end;
    if (__builtin_add_overflow(offset, n->ranges[i]->length, &end))
      end = UINT64_MAX;
    if (end == offset)
      continue;
    *from = offset < *from ? offset : *from;
    to = end > to ? end : to;
  }
  *len = to > *from ? to - *from : 0;
}

/* Each range costs a look at what is pinned: many are taken as one. */
static int drop_ranges(struct remote *r, const Cachet__Wire__Invalidated *n) {
  int e = 0;
  if (n->n_ranges > MAX_NOTICE_RANGES) {
    uint64_t offset, len;
    notice_hull(n, &offset, &len);
    e = remote_notice_drop(r, offset, len);
  } else {
    for (size_t i = 0; e == 0 && i < n->n_ranges; i++)
      e = remote_notice_drop(r, n->ranges[i]->offset, n->ranges[i]->length);
  }
  return e;
}

static void handle_invalidated(struct remote *r,
                               const Cachet__Wire__Invalidated *n) {
  /* Without an image cache yet nothing is cached. */
  int e = r->base.image_cache ? drop_ranges(r, n) : 0;
  if (e < 0)
    remote_notice_failed(r, e);
  else
    connection_image_told(&r->heard, n);
}

static void handle_changed(struct remote *r, const Cachet__Wire__Changed *n) {
  struct connection_image image;
  if (!connection_read_image(n->info, &image) ||
      image.page_shift != r->heard.page_shift) {
    remote_violation(r, "what it says of the image cannot be");
    return;
  }
  uint64_t from = r->heard.epoch;
  r->heard = image;
  if (r->again_at)
    r->again_at = deadline_now(); /* of another epoch there may be a share */
  /* No image cache yet: it is going to be made of what was heard last. */
  int e = r->base.image_cache ? image_cache_set_epoch(r->base.image_cache, from,
                                                      image.size, image.epoch)
                              : 0;
  if (e < 0)
    remote_notice_failed(r, e);
}

bool remote_notice(struct remote *r, const wire_message *msg) {
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_INVALIDATED) {
    if (msg->invalidated->image == r->image_id)
      handle_invalidated(r, msg->invalidated);
    return true;
  }
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_CHANGED) {
    if (msg->changed->info && msg->changed->info->image == r->image_id)
      handle_changed(r, msg->changed);
    return true;
  }
  return false;
}
