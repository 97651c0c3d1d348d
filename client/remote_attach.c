/* Attaching: asking a daemon for its memory, over the connection.  How it is
 * mapped is attach.c's.
 *
 * Kept here, see remote_impl.h: R6, that pages are read in the daemon's memory
 * from its answer on, and in the store again once there is none; with R4, that
 * the store is emptied then, as no notice came meanwhile. */
#include "client/remote_impl.h"

#include <errno.h>

#include "client/store.h"

bool remote_attach_allowed(const struct remote *r) {
  return r->uri.kind == URI_UNIX &&
         !(r->options.flags & CACHET_NO_SHARED_MEMORY) &&
         channel_limits(r->channel)->share;
}

static void attach_send(struct remote *r) {
  Cachet__Wire__Attach attach = CACHET__WIRE__ATTACH__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  attach.image = r->image_id;
  r->attach_id = msg.id = channel_next_id(r->channel);
  r->attach_at = clock_now_ms();
  channel_want_fds(r->channel, true);
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ATTACH;
  msg.attach = &attach;
  channel_send(r->channel, &msg);
}

/* From here on pages are read from `a`; NULL: from the store, which knows
 * nothing of what happened meanwhile. */
static void attach_end(struct remote *r, struct attachment *a) {
  struct attachment *old = r->base.attachment;
  r->attach_id = 0;
  channel_want_fds(r->channel, false);
  r->base.attachment = a;
  if (old && !a) {
    int e = remote_drop_range(r, 0, UINT64_MAX);
    if (e < 0)
      remote_notice_failed(r, e);
  }
  attachment_unref(old);
  backend_changed(&r->base);
}

/* To the daemon the connection has attached, and gets no notices: without
 * memory of its we need a connection that was never asked for it. */
static void attach_give_up(struct remote *r) {
  channel_break(r->channel, CHANNEL_LOST_RETRY, CACHET_E_CONN,
                "its memory cannot be mapped here");
  r->story.sys_errno = EAGAIN; /* remote_wait_ready() goes on */
}

/* A table that came without its descriptors could not even be given back, so
 * there has to be room for them first. */
static bool has_room(const struct remote *r) {
  return channel_has_room_for_fds(r->channel, ATTACH_N_DESCRIPTORS);
}

void remote_attach_begin(struct remote *r) {
  if (has_room(r))
    attach_send(r);
  else
    attach_end(r, NULL);
}

void remote_attach_renew(struct remote *r) {
  if (has_room(r))
    attach_send(r);
  else
    attach_give_up(r);
}

static void handle_attached(struct remote *r,
                            const Cachet__Wire__Attached *msg) {
  struct channel_image image;
  struct attachment *a = NULL;
  int fds[ATTACH_N_DESCRIPTORS];
  enum channel_fds came = CHANNEL_FDS_WRONG;
  if (channel_read_image(msg->info, &image) && image.id == r->image_id &&
      msg->layout == MIRROR_LAYOUT)
    came = channel_take_fds(r->channel, fds, ATTACH_N_DESCRIPTORS);
  if (came == CHANNEL_FDS_WRONG) {
    remote_violation(r, "what it says of its memory cannot be");
    return;
  }
  int e = came == CHANNEL_FDS_LOST
              ? -EMFILE
              : attachment_new(fds, image.size, image.page_shift, image.epoch,
                               msg->range_capacity, &a);
  if (e == -EPROTO) {
    remote_violation(r, "its memory is not what it says");
    return;
  }
  /* A handle keeps its page size.  And what cannot be mapped here
   * (RLIMIT_AS), or received (RLIMIT_NOFILE), is read by the socket. */
  unsigned shift = r->base.store ? image_page_shift(r->base.store->image)
                                 : r->heard.page_shift;
  if (a && image.page_shift != shift) {
    attachment_unref(a);
    a = NULL;
  }
  attach_end(r, a);
  if (a)
    return;
  r->is_unshared = true;
  attach_give_up(r);
}

void remote_attach_answer(struct remote *r, const wire_message *msg) {
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ATTACHED)
    handle_attached(r, msg->attached);
  else if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ERROR)
    /* By the socket, then, as long as this connection lasts: a share that
     * becomes free meanwhile is not asked for before the next one. */
    attach_end(r, NULL);
  else
    remote_violation(r, "an answer of the wrong kind");
}
