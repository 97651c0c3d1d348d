#include "daemon/engine/fill_dispatch.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "cache/image.h"
#include "daemon/engine/images.h"
#include "daemon/engine/uring.h"

enum {
  /* What a solid-state disk takes under load, and some more. */
  BEGUN_MAX_US = 2000,
  /* Enough to keep a disk busy, and little enough to go through. */
  BEGUN_MAX = 256,
};

struct fill_job {
  struct pool_job job;
  struct fill *fill;
  struct fill_dispatch_image *image; /* referenced */
  uint64_t since_ns;
  struct fill_job *next;
};

static struct fill_dispatch_image *
image_ref(struct fill_dispatch_image *image) {
  atomic_fetch_add_explicit(&image->n_refs, 1, memory_order_relaxed);
  return image;
}

/* ---- By the pool --------------------------------------------------------- */

static void job_free(struct fill_job *f) {
  fill_dispatch_image_unref(f->image);
  free(f);
}

static void job_run(struct pool_job *job) {
  struct fill_job *f = container_of(job, struct fill_job, job);
  image_run_fill(f->fill);
  job_free(f);
}

static void job_abandon(struct pool_job *job) {
  struct fill_job *f = container_of(job, struct fill_job, job);
  fill_abandon(f->fill, -ECANCELED);
  job_free(f);
}

/* Of a fill that cannot end on this thread.  NULL: there is no memory, and the
 * fill is abandoned.  Any thread. */
static struct fill_job *job_new(struct fill_dispatch_image *image,
                                struct fill *fill) {
  struct fill_job *f = malloc(sizeof *f);
  if (!f) {
    fill_abandon(fill, -ENOMEM);
    return NULL;
  }
  *f = (struct fill_job){.job = {.run = job_run, .abandon = job_abandon},
                         .fill = fill,
                         .image = image_ref(image)};
  return f;
}

static void hand_over(struct fill_job *f) {
  pool_submit(f->image->served->lane, &f->job);
}

/* ---- Pending ------------------------------------------------------------- */

/* To let go of the image may need the pool, which a stop leaves there until
 * nothing is pending. */
static void end_pending(struct fill_dispatch_image *image) {
  struct pending *pending = &image->served->images->pending;
  atomic_fetch_sub_explicit(&image->n_pending, 1, memory_order_relaxed);
  fill_dispatch_image_unref(image);
  pending_end(pending);
}

/* With the ring only for the first time: see `ring` in struct source_read. */
static enum source_outcome start(struct fill_dispatch_image *image,
                                 struct fill *fill, struct ring *ring) {
  pending_begin(&image->served->images->pending);
  image_ref(image);
  atomic_fetch_add_explicit(&image->n_pending, 1, memory_order_relaxed);
  image->runner.ring = ring;
  enum source_outcome outcome = fill_start(fill, &image->runner);
  if (outcome != SOURCE_PENDING)
    end_pending(image);
  return outcome;
}

/* On a thread of the source's, or by the ring of the fill's. */
static void arrived(struct fill_runner *runner, struct fill *fill) {
  struct fill_dispatch_image *image =
      container_of(runner, struct fill_dispatch_image, runner);
  if (!fill_try_end(fill)) {
    struct fill_job *f = job_new(image, fill);
    if (f)
      hand_over(f);
  }
  end_pending(image);
}

/* ---- Begun --------------------------------------------------------------- */

void fill_dispatch_init(struct fill_dispatch *d, struct ring *ring) {
  *d = (struct fill_dispatch){.tail = &d->head, .ring = ring};
}

static struct fill_job *begun_unlink(struct fill_dispatch *d,
                                     struct fill_job **link) {
  struct fill_job *f = *link;
  *link = f->next;
  if (!*link)
    d->tail = link;
  d->n--;
  return f;
}

/* False: it is not to be. */
static bool begun_add(struct fill_dispatch *d, struct fill_job *f) {
  if (d->n == BEGUN_MAX || !busy_poll_is_due(&f->image->spin))
    return false;
  f->since_ns = clock_now_ns();
  f->next = NULL;
  *d->tail = f;
  d->tail = &f->next;
  d->n++;
  return true;
}

/* In the order in which they were begun, which is about that in which the
 * bytes come: so an image's are tried until one fails. */
bool fill_dispatch_try(struct fill_dispatch *d) {
  if (fill_dispatch_is_empty(d)) /* as before most sleeps */
    return false;
  uint64_t round = ++d->n_rounds, now = clock_now_ns();
  bool any = false;
  for (struct fill_job **at = &d->head, *f; (f = *at);) {
    struct fill_dispatch_image *image = f->image;
    enum source_outcome outcome = image->failed_round == round
                                      ? SOURCE_RETRY
                                      : start(image, f->fill, NULL);
    bool late = now - f->since_ns > BEGUN_MAX_US * UINT64_C(1000);
    if (outcome == SOURCE_RETRY && !late) {
      image->failed_round = round;
      at = &f->next;
      continue;
    }
    bool gone = outcome == SOURCE_DONE || outcome == SOURCE_PENDING;
    begun_unlink(d, at);
    busy_poll_ended(&image->spin, gone);
    any |= gone;
    if (gone)
      job_free(f);
    else
      hand_over(f);
  }
  return any;
}

void fill_dispatch_hand_over(struct fill_dispatch *d) {
  while (d->head)
    hand_over(begun_unlink(d, &d->head));
}

/* ---- Which of them ------------------------------------------------------- */

/* An image that has many fills pending gets no ring for more of them: they go
 * the way of a thread without a ring, at once. */
static struct ring *ring_for(struct fill_dispatch_image *image) {
  unsigned n = atomic_load_explicit(&image->n_pending, memory_order_relaxed);
  return n < URING_MAX_OF_IMAGE ? image->dispatch->ring : NULL;
}

static void run(struct fill_runner *runner, struct fill *fill) {
  struct fill_dispatch_image *image =
      container_of(runner, struct fill_dispatch_image, runner);
  enum source_outcome outcome = start(image, fill, ring_for(image));
  if (outcome == SOURCE_DONE || outcome == SOURCE_PENDING)
    return;
  struct fill_job *f = job_new(image, fill);
  if (f && (outcome != SOURCE_RETRY || !begun_add(image->dispatch, f)))
    hand_over(f);
}

struct fill_dispatch_image *
fill_dispatch_image_new(struct fill_dispatch *d, struct served_image *served) {
  struct fill_dispatch_image *image = calloc(1, sizeof *image);
  if (!image)
    return NULL;
  image->runner = (struct fill_runner){.run = run, .arrived = arrived};
  atomic_init(&image->n_refs, 1);
  image->dispatch = d;
  image->served = served;
  images_ref(served);
  return image;
}

void fill_dispatch_image_unref(struct fill_dispatch_image *image) {
  if (!image ||
      atomic_fetch_sub_explicit(&image->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  images_unref(image->served);
  free(image);
}
