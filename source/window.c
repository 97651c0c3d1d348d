#include "source/window.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/container_of.h"

struct window_source {
  struct source base;
  struct source *below; /* ours */
  struct window window; /* of `below`; as it was asked for, so that without a
                           length it follows the size of a successor */
  struct source_listener listener; /* to `below`, for */
  struct source_listener *above;   /* ours, or NULL: fixed while `below` has
                                      that one */
};

static const struct source_ops blocking_ops, calling_ops;

static struct window_source *window_of(struct source *src) {
  return (struct window_source *)src;
}

static enum source_outcome window_start(struct source *src,
                                        struct source_read *r) {
  struct window_source *s = window_of(src);
  r->offset += s->window.offset;
  return source_start(s->below, r);
}

static int window_read(struct source *src, uint64_t offset, void *buf,
                       size_t len) {
  struct window_source *s = window_of(src);
  return source_read_blocking(s->below, s->window.offset + offset, buf, len);
}

static int window_reopen(struct source *src, struct source **out) {
  struct window_source *s = window_of(src);
  struct source *below;
  *out = NULL;
  int r = source_reopen(s->below, &below);
  if (!below)
    return r;
  r = window_source_new(below, &s->window, out);
  if (r < 0)
    below->ops->close(below);
  return r;
}

static uint64_t window_worth(struct source *src) {
  struct source *below = window_of(src)->below;
  return below->ops->worth ? below->ops->worth(below) : 0;
}

static void window_advise(struct source *src, uint64_t offset, uint64_t len) {
  struct window_source *s = window_of(src);
  const struct window asked = {offset, len};
  /* The last page of the window may be cut.  No reader asks for what follows
   * it. */
  uint64_t cut = window_size(&asked, src->size);
  if (cut > 0)
    source_advise(s->below, s->window.offset + offset, cut);
}

static void window_forget(struct source *src) {
  source_forget(window_of(src)->below);
}

/* The part of the identity that the window adds to that of the source below. */
struct window_identity {
  uint64_t offset, size; /* little-endian */
};

static struct window_identity identity_of(const struct window_source *s) {
  return (struct window_identity){htole64(s->window.offset),
                                  htole64(s->base.size)};
}

static void window_identify(struct source *src, struct source_identity *out) {
  struct window_source *s = window_of(src);
  const struct window_identity id = identity_of(s);
  source_identify(s->below, out);
  if (out->len > 0)
    source_identity_add(out, &id, sizeof id);
}

static bool window_resume(struct source *src,
                          const struct source_identity *id) {
  struct window_source *s = window_of(src);
  const struct window_identity now = identity_of(s);
  struct source_identity below = *id;
  return source_identity_cut(&below, &now, sizeof now) &&
         source_resume(s->below, &below);
}

static void on_changed(struct source_listener *l) {
  struct window_source *s = container_of(l, struct window_source, listener);
  s->above->changed(s->above);
}

/* Passes on the part of the range that lies in the window, if there is one. */
static void on_invalid(struct source_listener *l, uint64_t offset,
                       uint64_t len) {
  struct window_source *s = container_of(l, struct window_source, listener);
  uint64_t begin = s->window.offset, end = begin + s->base.size;
  uint64_t from = offset > begin ? offset : begin;
  uint64_t to = offset + len < end ? offset + len : end;
  if (from < to)
    s->above->invalid(s->above, from - begin, to - from);
}

static void on_remark(struct source_listener *l, const char *text) {
  struct window_source *s = container_of(l, struct window_source, listener);
  if (s->above->remark)
    s->above->remark(s->above, text);
}

static void window_listen(struct source *src, struct source_listener *l) {
  struct window_source *s = window_of(src);
  if (l == s->above)
    return; /* no news is to be missed meanwhile */
  /* After this the source below makes no call, so `above` may change. */
  source_listen(s->below, NULL);
  s->above = l;
  if (l)
    source_listen(s->below, &s->listener);
}

static void window_close(struct source *src) {
  struct window_source *s = window_of(src);
  s->below->ops->close(s->below);
  free(s);
}

static const struct source_ops blocking_ops = {
    .kind = "window",
    .start = window_start,
    .read = window_read,
    .reopen = window_reopen,
    .identify = window_identify,
    .resume = window_resume,
    .worth = window_worth,
    .advise = window_advise,
    .forget = window_forget,
    .listen = window_listen,
    .close = window_close,
};

/* Over a source that only calls back.  There is no read(), which would lose the
 * deadline; see source_read_until(). */
static const struct source_ops calling_ops = {
    .kind = "window",
    .start = window_start,
    .reopen = window_reopen,
    .identify = window_identify,
    .resume = window_resume,
    .worth = window_worth,
    .advise = window_advise,
    .forget = window_forget,
    .listen = window_listen,
    .close = window_close,
};

int window_source_new(struct source *below, const struct window *w,
                      struct source **out) {
  return window_fits(w, below->size) ? window_source_new_later(below, w, out)
                                     : -ERANGE;
}

int window_source_new_later(struct source *below, const struct window *w,
                            struct source **out) {
  struct window_source *s = calloc(1, sizeof *s);
  if (!s)
    return -ENOMEM;
  s->base.ops = below->ops->read ? &blocking_ops : &calling_ops;
  s->base.size = window_size(w, below->size);
  s->base.fetch_size = below->fetch_size;
  s->below = below;
  s->window = *w;
  s->listener = (struct source_listener){
      .changed = on_changed, .invalid = on_invalid, .remark = on_remark};
  *out = &s->base;
  return 0;
}
