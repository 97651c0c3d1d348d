#include "daemon/engine/looks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/lock.h"
#include "daemon/engine/images.h"
#include "daemon/engine/warm.h"
#include "daemon/log.h"
#include "daemon/missing.h"

struct look_job {
  struct pool_job job;
  struct looks *looks;
};

void looks_init(struct looks *looks, struct images *images) {
  *looks = (struct looks){.images = images};
  lock_init(&looks->lock);
}

void looks_fini(struct looks *looks) { pthread_mutex_destroy(&looks->lock); }

static void served_image_look(struct served_image *h) {
  int missing = atomic_load_explicit(&h->missing, memory_order_relaxed);
  bool was_missing = missing;
  int r = image_refresh(h->image, 0);
  if (r < 0 && missing) /* unless it is there meanwhile, by another source */
    atomic_compare_exchange_strong_explicit(
        &h->missing, &missing, -r, memory_order_relaxed, memory_order_relaxed);
  if (r < 0 && !h->lost)
    log_event(LEVEL_WARN, "image-lost", LOG_TEXT("image", h->name),
              LOG_TEXT("reason", lost_reason(-r)));
  if (r == 0 && h->lost)
    log_event(LEVEL_INFO, "image-back", LOG_TEXT("image", h->name));
  h->lost = r < 0;
  if (r == 0 && was_missing && h->warm)
    warm_begin(h);
}

/* It was looked at.  True: it is to be once more. */
static bool look_ended_locked(struct looks *looks, struct served_image *h) {
  lock_assert_held(&looks->lock);
  assert(h->looking); /* L1: it was this job's */
  bool again = h->look_again;
  h->look_again = false;
  h->looking = again;
  return again;
}

void looks_at(struct looks *looks, struct served_image *h) {
  pthread_mutex_lock(&looks->lock);
  bool is_ours = !h->looking;
  h->looking = true;
  h->look_again = !is_ours;
  pthread_mutex_unlock(&looks->lock);
  while (is_ours) {
    served_image_look(h);
    pthread_mutex_lock(&looks->lock);
    is_ours = look_ended_locked(looks, h);
    pthread_mutex_unlock(&looks->lock);
  }
}

/* The next image of the round, which is the caller's to look at; `done` is the
 * one that it looked at before, if any, and may be the next.  NULL: the round
 * is over. */
static struct served_image *looks_next(struct looks *looks,
                                       struct served_image *done) {
  struct served_image *next = NULL;
  pthread_mutex_lock(&looks->lock);
  if (done && look_ended_locked(looks, done)) {
    pthread_mutex_unlock(&looks->lock);
    return done;
  }
  while (looks->is_under_way) {
    next = images_next(looks->images, &looks->next);
    looks->is_under_way = next != NULL;
    if (!next || !next->looking)
      break;
    images_unref(next);
  }
  if (next)
    next->looking = true;
  pthread_mutex_unlock(&looks->lock);
  images_unref(done);
  return next;
}

static void look_job_end(struct pool_job *job) {
  struct look_job *look = (struct look_job *)job; /* its first member */
  struct looks *looks = look->looks;
  pthread_mutex_lock(&looks->lock);
  looks->n_jobs--;
  pthread_mutex_unlock(&looks->lock);
  free(look);
}

static void look_job_run(struct pool_job *job) {
  struct looks *looks = ((struct look_job *)job)->looks; /* its first member */
  struct served_image *h = NULL;
  while ((h = looks_next(looks, h))) {
    served_image_look(h);
    images_remove_unused(h);
  }
  look_job_end(job);
}

/* How many jobs are to begin now; they are counted already. */
static unsigned looks_take_jobs(struct looks *looks) {
  unsigned n_images = images_count_alive(looks->images);
  pthread_mutex_lock(&looks->lock);
  unsigned n = looks->is_under_way && looks->n_jobs ? looks->n_jobs : 1;
  unsigned most = n_images > looks->n_jobs ? n_images - looks->n_jobs : 0;
  if (n > most)
    n = most;
  if (!looks->is_under_way) {
    looks->is_under_way = true;
    looks->next = 0;
  }
  looks->n_jobs += n;
  pthread_mutex_unlock(&looks->lock);
  return n;
}

void looks_tick(struct looks *looks) {
  for (unsigned n = looks_take_jobs(looks); n > 0; n--) {
    struct look_job *look = malloc(sizeof *look);
    if (!look) { /* the next tick tries again */
      pthread_mutex_lock(&looks->lock);
      looks->n_jobs--;
      pthread_mutex_unlock(&looks->lock);
      continue;
    }
    look->job = (struct pool_job){.run = look_job_run, .abandon = look_job_end};
    look->looks = looks;
    pool_submit(looks->images->look_lane, &look->job);
  }
}

void looks_stop(struct looks *looks) {
  pthread_mutex_lock(&looks->lock);
  looks->is_under_way = false;
  pthread_mutex_unlock(&looks->lock);
}
