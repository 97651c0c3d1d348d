#include "daemon/engine/fill_dispatch.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "daemon/engine/image_reader.h"

enum {
  /* What a solid-state disk takes under load, and some more. */
  BEGUN_MAX_US = 2000,
  /* Enough to keep a disk busy, and little enough to go through. */
  BEGUN_MAX = 256,
};

struct fill_job {
  struct pool_job job;
  struct fill *fill;
  struct image_reader *reader;
  uint64_t since_ns;
  struct fill_job *next;
};

/* ---- By the pool --------------------------------------------------------- */

static struct fill *job_end(struct pool_job *job) {
  struct fill_job *f = (struct fill_job *)job; /* its first member */
  struct fill *fill = f->fill;
  free(f);
  return fill;
}

static void job_run(struct pool_job *job) { image_run_fill(job_end(job)); }

static void job_abandon(struct pool_job *job) {
  fill_abandon(job_end(job), -ECANCELED);
}

static void hand_over(struct fill_job *f) {
  const struct served_image *h = f->reader->served;
  pool_submit(h->images->pool, h->index, &f->job);
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
  if (d->n == BEGUN_MAX || !busy_poll_is_due(&f->reader->begun.spin))
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
    struct fill_dispatch_image *image = &f->reader->begun;
    int r = image->failed_round == round ? -EAGAIN : fill_try_run(f->fill);
    bool late = now - f->since_ns > BEGUN_MAX_US * UINT64_C(1000);
    if (r == -EAGAIN && !late) {
      image->failed_round = round;
      at = &f->next;
      continue;
    }
    begun_unlink(d, at);
    busy_poll_ended(&image->spin, r == 0);
    any |= r == 0;
    if (r == 0)
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

void fill_dispatch_submit(void *arg, struct fetch *fetch, struct fill *fill) {
  struct dispatched_fetch *asked = (struct dispatched_fetch *)fetch;
  (void)arg;
  int r = fill_try_run(fill);
  if (r == 0)
    return;
  struct fill_job *f = malloc(sizeof *f);
  if (!f) {
    fill_abandon(fill, -ENOMEM);
    return;
  }
  f->job.run = job_run;
  f->job.abandon = job_abandon;
  f->fill = fill;
  f->reader = asked->reader;
  if (r != -EAGAIN || !begun_add(asked->dispatch, f))
    hand_over(f);
}
