#include "daemon/engine/fill_dispatch.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "cache/image.h"
#include "daemon/engine/images.h"

enum {
  /* What a solid-state disk takes under load, and some more. */
  BEGUN_MAX_US = 2000,
  /* Enough to keep a disk busy, and little enough to go through. */
  BEGUN_MAX = 256,
};

struct fill_job {
  struct pool_job job;
  struct fill *fill;
  struct fill_dispatch_image *image;
  uint64_t since_ns;
  struct fill_job *next;
};

/* ---- By the pool --------------------------------------------------------- */

static struct fill *job_end(struct pool_job *job) {
  struct fill_job *f = container_of(job, struct fill_job, job);
  struct fill *fill = f->fill;
  free(f);
  return fill;
}

static void job_run(struct pool_job *job) { image_run_fill(job_end(job)); }

static void job_abandon(struct pool_job *job) {
  fill_abandon(job_end(job), -ECANCELED);
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
                         .image = image};
  return f;
}

static void hand_over(struct fill_job *f) {
  pool_submit(f->image->served->lane, &f->job);
}

/* ---- Pending ------------------------------------------------------------- */

static enum source_outcome start(struct fill_dispatch_image *image,
                                 struct fill *fill) {
  struct pending *pending = &image->served->images->pending;
  pending_begin(pending);
  enum source_outcome outcome = fill_start(fill, &image->runner);
  if (outcome != SOURCE_PENDING)
    pending_end(pending);
  return outcome;
}

/* On a thread of the source's. */
static void arrived(struct fill_runner *runner, struct fill *fill) {
  struct fill_dispatch_image *image =
      container_of(runner, struct fill_dispatch_image, runner);
  struct pending *pending = &image->served->images->pending;
  if (!fill_try_end(fill)) {
    struct fill_job *f = job_new(image, fill);
    if (f)
      hand_over(f);
  }
  pending_end(pending);
}

/* ---- Begun --------------------------------------------------------------- */

void fill_dispatch_init(struct fill_dispatch *d) {
  *d = (struct fill_dispatch){.tail = &d->head};
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
    enum source_outcome outcome =
        image->failed_round == round ? SOURCE_RETRY : start(image, f->fill);
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
      free(f);
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

static void run(struct fill_runner *runner, struct fill *fill) {
  struct fill_dispatch_image *image =
      container_of(runner, struct fill_dispatch_image, runner);
  enum source_outcome outcome = start(image, fill);
  if (outcome == SOURCE_DONE || outcome == SOURCE_PENDING)
    return;
  struct fill_job *f = job_new(image, fill);
  if (f && (outcome != SOURCE_RETRY || !begun_add(image->dispatch, f)))
    hand_over(f);
}

void fill_dispatch_image_init(struct fill_dispatch_image *image,
                              struct fill_dispatch *d,
                              const struct served_image *served) {
  *image = (struct fill_dispatch_image){
      .runner = {.run = run, .arrived = arrived},
      .dispatch = d,
      .served = served,
  };
}
