#include "source/threaded.h"

#include <errno.h>
#include <stdlib.h>

#include "base/container_of.h"
#include "source/offload.h"
#include "source/reactor.h"

struct threaded_source {
  struct source base;
  struct source *below; /* ours */
  struct reactor *reactor;
};

/* A read, from start() to its end. */
struct threaded_read {
  struct threaded_source *source;
  struct source_read *asked;
  struct task begin;
  struct offload work;
  int status;
};

static struct threaded_source *threaded_of(struct source *src) {
  return container_of(src, struct threaded_source, base);
}

/* ---- Reads --------------------------------------------------------------- */

static void on_thread(struct offload *work) {
  struct threaded_read *r = container_of(work, struct threaded_read, work);
  r->status = source_read_blocking(r->source->below, r->asked->offset,
                                   r->asked->buf, r->asked->len);
}

static void on_ended(struct offload *work) {
  struct threaded_read *r = container_of(work, struct threaded_read, work);
  r->asked->status = r->status;
  r->asked->done(r->asked); /* the source may be gone */
}

static void free_read(struct offload *work) {
  free(container_of(work, struct threaded_read, work));
}

static void begin_read(struct task *task) {
  struct threaded_read *r = container_of(task, struct threaded_read, begin);
  if (offload_begin(&r->work, r->source->reactor) == 0)
    return;
  struct source_read *asked = r->asked;
  free(r);
  asked->status = -EAGAIN;
  asked->done(asked);
}

static enum source_outcome threaded_start(struct source *src,
                                          struct source_read *asked) {
  struct threaded_source *s = threaded_of(src);
  struct threaded_read *r = calloc(1, sizeof *r);
  if (!r) {
    asked->status = -ENOMEM;
    return SOURCE_DONE;
  }
  r->source = s;
  r->asked = asked;
  r->begin.run = begin_read;
  r->work = (struct offload){.name = "source-read",
                             .run = on_thread,
                             .ended = on_ended,
                             .free_it = free_read};
  reactor_post(s->reactor, &r->begin); /* then all of it may be over */
  return SOURCE_PENDING;
}

/* ---- A source's other calls ---------------------------------------------- */

static int threaded_reopen(struct source *src, struct source **out) {
  struct threaded_source *s = threaded_of(src);
  struct source *below;
  *out = NULL;
  int r = source_reopen(s->below, &below);
  return below ? threaded_source_new(below, s->reactor, out) : r;
}

static void threaded_forget(struct source *src) {
  source_forget(threaded_of(src)->below);
}

static void threaded_close(struct source *src) {
  struct threaded_source *s = threaded_of(src);
  s->below->ops->close(s->below);
  free(s);
}

static const struct source_ops threaded_ops = {
    .kind = "threaded",
    .start = threaded_start,
    .reopen = threaded_reopen,
    .forget = threaded_forget,
    .close = threaded_close,
};

int threaded_source_new(struct source *below, struct reactor *reactor,
                        struct source **out) {
  struct threaded_source *s = calloc(1, sizeof *s);
  if (!s) {
    below->ops->close(below);
    return -ENOMEM;
  }
  s->base.ops = &threaded_ops;
  s->base.size = below->size;
  s->below = below;
  s->reactor = reactor;
  *out = &s->base;
  return 0;
}
