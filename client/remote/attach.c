/* This file keeps R6: pages are read in the daemon's memory from its answer on,
 * and in the image cache again once there is no such memory.  It also keeps, of
 * R4 (notice.h), that the image cache is emptied then: an attached connection
 * gets no notices, so the cache may be stale. */
#include "client/remote/attach.h"

#include <errno.h>

#include "base/deadline.h"
#include "client/image_cache.h"
#include "client/remote/internal.h"
#include "client/remote/notice.h"
#include "client/remote/shared_mirror.h"

/* The pauses between two requests for a share that was refused.  Each is twice
 * as long as the one before, up to the second number. */
enum { AGAIN_FIRST_MS = 5, AGAIN_LAST_MS = 16000 };

static int64_t again_after(int *again_ms) {
  *again_ms = *again_ms ? 2 * *again_ms : AGAIN_FIRST_MS;
  if (*again_ms > AGAIN_LAST_MS)
    *again_ms = AGAIN_LAST_MS;
  return deadline_now() + *again_ms;
}

static struct shared_mirror *lent_mirror(const struct backend *b) {
  return (struct shared_mirror *)b->shared; /* NULL: there is none */
}

static bool attach_allowed(const struct remote *r) {
  return r->uri.kind == URI_UNIX &&
         !(r->options.flags & CACHET_NO_SHARED_MEMORY) &&
         connection_limits(r->connection)->share;
}

static void attach_send(struct remote *r) {
  Cachet__Wire__Attach attach = CACHET__WIRE__ATTACH__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  struct shared_mirror *old = lent_mirror(&r->base);
  attach.image = r->image_id;
  attach.page_slots = LEASE_LEAST_PAGE_SLOTS;
  attach.range_capacity = LEASE_LEAST_RANGE_CAPACITY;
  if (old) {
    attach.page_slots = old->table.page_slots;
    attach.range_capacity = old->table.range_capacity;
  }
  /* The old memory is given up before the request, because its share goes to
   * the new one: see A2 in shared_view.h.  If the epoch is not over, the handle
   * reads the old memory until the new one is mapped. */
  if (old && mirror_is_retired(old->base.mirror)) {
    old->base.is_given_up = true;
    attach.replaces = old->number;
    backend_changed(&r->base);
    remote_unpin(r); /* its pins would count against the new share */
  }
  debug_say(&r->base.debug, "asks to attach to the daemon's memory");
  r->attach_id = msg.id = connection_next_id(r->connection);
  r->attach_at = deadline_now();
  connection_want_fds(r->connection, true);
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ATTACH;
  msg.attach = &attach;
  connection_send(r->connection, &msg);
}

/* From here on pages are read from `a`; NULL: from the image cache.  That may
 * be stale, because no notices came while the handle was attached. */
static void attach_end(struct remote *r, struct shared_view *a) {
  struct shared_view *old = r->base.shared;
  r->attach_id = 0;
  connection_want_fds(r->connection, false);
  r->base.shared = a;
  if (old && !a) {
    int e = remote_notice_drop(r, 0, UINT64_MAX);
    if (e < 0)
      remote_notice_failed(r, e);
  } else if (a && !old && r->base.image_cache) {
    remote_notice_drop(r, 0, UINT64_MAX); /* to free the memory of its pages */
  }
  shared_view_unref(old);
  backend_changed(&r->base);
}

/* The daemon has no share for this handle, or this process has no room.  The
 * handle asks again, after growing pauses: so a handle that was opened while
 * shares were short gets one later. */
static void attach_refused(struct remote *r, bool is_full) {
  r->is_full = is_full;
  r->again_at = again_after(&r->again_ms);
  debug_say(&r->base.debug, "gets no share of it, and asks again in %d ms",
            r->again_ms);
  attach_end(r, NULL);
}

/* The handle reads through the socket as long as this connection lasts. */
static void attach_refused_for_good(struct remote *r) {
  debug_say(&r->base.debug, "reads by the socket: that memory is not shared");
  attach_end(r, NULL);
}

/* Gives the connection up.  The daemon regards it as attached and sends no
 * notices on it.  Without the memory the handle needs notices, and so a new
 * connection. */
static void attach_give_up(struct remote *r) {
  connection_break(r->connection, CONNECTION_LOST_CUT, CACHET_E_CONN,
                   "its memory cannot be mapped here");
}

/* Whether there is room for the descriptors.  It is checked before the request:
 * a table whose descriptors the kernel dropped could not even be given back. */
static bool has_room(const struct remote *r) {
  return connection_has_room_for_fds(r->connection, SHARED_MIRROR_N_FDS);
}

static void attach_begin(struct remote *r) {
  r->again_at = 0;
  if (has_room(r))
    attach_send(r);
  else
    attach_refused(r, false);
}

/* A handle keeps its page size, so memory with another one is not used. */
static bool attach_fits(const struct remote *r, unsigned shift) {
  return shift == (r->base.image_cache
                       ? image_page_shift(r->base.image_cache->image)
                       : r->heard.page_shift);
}

void remote_attach_ready(struct remote *r) {
  bool is_of_use = attach_allowed(r) && attach_fits(r, r->heard.page_shift) &&
                   !r->is_unshared;
  r->again_at = 0;
  r->is_unshared = false;
  if (is_of_use)
    attach_begin(r);
  else if (r->base.shared)
    attach_end(r, NULL); /* this connection shares nothing that is of use */
}

void remote_attach_again(struct remote *r) {
  if (r->again_at && remote_is_ready(r) && deadline_now() >= r->again_at)
    attach_begin(r);
}

void remote_attach_renew(struct remote *r) {
  if (has_room(r))
    attach_send(r);
  else
    attach_give_up(r);
}

static void handle_attached(struct remote *r,
                            const Cachet__Wire__Attached *msg) {
  struct connection_image image;
  struct shared_mirror *a = NULL;
  int fds[SHARED_MIRROR_N_FDS];
  enum connection_fds came = CONNECTION_FDS_WRONG;
  if (connection_read_image(msg->info, &image) && image.id == r->image_id &&
      msg->layout == MIRROR_LAYOUT)
    came = connection_take_fds(r->connection, fds, SHARED_MIRROR_N_FDS);
  if (came == CONNECTION_FDS_WRONG) {
    remote_violation(r, "what it says of its memory cannot be");
    return;
  }
  struct shared_mirror_offer offer = {.size = image.size,
                                      .epoch = image.epoch,
                                      .page_shift = image.page_shift,
                                      .table = msg->table,
                                      .page_slots = msg->page_slots,
                                      .range_capacity = msg->range_capacity,
                                      .read_ahead = msg->read_ahead};
  int e = came == CONNECTION_FDS_LOST ? -EMFILE
                                      : shared_mirror_new(fds, &offer, &a);
  if (e == -EPROTO) {
    remote_violation(r, "its memory is not what it says");
    return;
  }
  /* Memory that cannot be mapped (RLIMIT_AS) or received (RLIMIT_NOFILE) is not
   * used either.  The handle then reads through the socket: the next connection
   * does not ask for memory.  Those after it do. */
  if (a && !attach_fits(r, image.page_shift)) {
    shared_view_unref(&a->base);
    a = NULL;
  }
  attach_end(r, a ? &a->base : NULL);
  if (a) {
    debug_say(&r->base.debug, "is attached to epoch %#llx, with %u page slots",
              (unsigned long long)image.epoch, (unsigned)msg->page_slots);
    r->again_ms = 0;
    return;
  }
  r->is_unshared = true;
  attach_give_up(r);
}

void remote_attach_answer(struct remote *r, const wire_message *msg) {
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ATTACHED)
    handle_attached(r, msg->attached);
  else if (msg->body_case != CACHET__WIRE__MESSAGE__BODY_ERROR)
    remote_violation(r, "an answer of the wrong kind");
  else if (msg->error->status == CACHET_E_UNSUPPORTED &&
           msg->error->sys_errno == EOPNOTSUPP)
    attach_refused_for_good(r);
  else
    attach_refused(r, msg->error->sys_errno == EAGAIN);
}

/* ---- A larger share ------------------------------------------------------ */

void remote_attach_grow(struct backend *b, uint32_t page_slots,
                        uint32_t range_capacity) {
  struct remote *r = remote_of(b);
  struct shared_mirror *a = lent_mirror(b);
  if (!a || !a->number || a->base.is_given_up || r->grow_id ||
      !remote_is_ready(r) || (r->grow_at && deadline_now() < r->grow_at))
    return;
  Cachet__Wire__Grow grow = CACHET__WIRE__GROW__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  grow.table = a->number;
  grow.page_slots = page_slots;
  grow.range_capacity = range_capacity;
  r->grow_id = msg.id = connection_next_id(r->connection);
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_GROW;
  msg.grow = &grow;
  a->base.is_growing = true;
  connection_send(r->connection, &msg);
  backend_changed(b);
}

void remote_attach_grow_end(struct remote *r) {
  struct shared_view *a = r->base.shared;
  r->grow_id = 0;
  if (a)
    a->is_growing = false;
  backend_changed(&r->base);
}

/* Takes the new size of the table.  False: the size is impossible. */
static bool table_grow(struct pin_table *t, const Cachet__Wire__Grown *msg) {
  if (msg->page_slots < t->page_slots || msg->page_slots > PIN_MAX_PAGE_SLOTS ||
      msg->range_capacity < t->range_capacity ||
      msg->range_capacity > PIN_MAX_COUNT)
    return false;
  t->page_slots = msg->page_slots;
  t->range_capacity = msg->range_capacity;
  return true;
}

void remote_attach_grow_answer(struct remote *r, const wire_message *msg) {
  struct shared_mirror *a = lent_mirror(&r->base);
  remote_attach_grow_end(r);
  if (!a)
    return;
  struct pin_table *t = &a->table;
  uint32_t page_slots = t->page_slots, range_capacity = t->range_capacity;
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_GROWN
          ? !table_grow(t, msg->grown)
          : msg->body_case != CACHET__WIRE__MESSAGE__BODY_ERROR) {
    remote_violation(r, "what it says of a pin table cannot be");
    return;
  }
  if (t->page_slots == page_slots && t->range_capacity == range_capacity) {
    r->grow_at = again_after(&r->grow_ms);
    return;
  }
  r->grow_at = r->grow_ms = 0;
  if (r->base.watch.grown)
    r->base.watch.grown(r->base.watch.arg);
}
