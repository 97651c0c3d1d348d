#include "daemon/engine/looks.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/host.h"
#include "daemon/log.h"

struct look_job {
  struct pool_job job;
  struct host *host;
};

void looks_init(struct looks *looks) { pthread_mutex_init(&looks->lock, NULL); }

void looks_fini(struct looks *looks) { pthread_mutex_destroy(&looks->lock); }

static void hosted_look(struct served_image *h) {
  int r = image_refresh(h->image, 0);
  if (r < 0 && atomic_load_explicit(&h->missing, memory_order_relaxed))
    atomic_store_explicit(&h->missing, -r, memory_order_relaxed);
  if (r < 0 && !h->lost)
    log_event(LEVEL_WARN, "image-lost", LOG_TEXT("image", h->name),
              LOG_TEXT("reason", strerror(-r)));
  if (r == 0 && h->lost)
    log_event(LEVEL_INFO, "image-back", LOG_TEXT("image", h->name));
  h->lost = r < 0;
}

/* The next image of the round, which is the caller's to look at; `done` is the
 * one that it looked at before, if any.  NULL: the round is over. */
static struct served_image *looks_next(struct host *host,
                                       struct served_image *done) {
  struct looks *looks = &host->looks;
  struct served_image *next = NULL;
  pthread_mutex_lock(&looks->lock);
  if (done)
    done->looking = false;
  while (!next && looks->n_left) {
    struct served_image *h = &host->images[host->n_images - looks->n_left--];
    if (!h->looking)
      next = h;
  }
  if (next)
    next->looking = true;
  pthread_mutex_unlock(&looks->lock);
  return next;
}

static void look_job_end(struct pool_job *job) {
  struct look_job *look = (struct look_job *)job; /* its first member */
  struct looks *looks = &look->host->looks;
  pthread_mutex_lock(&looks->lock);
  looks->n_jobs--;
  pthread_mutex_unlock(&looks->lock);
  free(look);
}

static void look_job_run(struct pool_job *job) {
  struct host *host = ((struct look_job *)job)->host;
  struct served_image *h = NULL;
  while ((h = looks_next(host, h)))
    hosted_look(h);
  look_job_end(job);
}

/* How many jobs are to begin now; they are counted already. */
static unsigned looks_take_jobs(struct host *host) {
  struct looks *looks = &host->looks;
  pthread_mutex_lock(&looks->lock);
  unsigned n = looks->n_left && looks->n_jobs ? looks->n_jobs : 1;
  unsigned most = host->n_images - looks->n_jobs;
  if (n > most)
    n = most;
  if (!looks->n_left)
    looks->n_left = host->n_images;
  looks->n_jobs += n;
  pthread_mutex_unlock(&looks->lock);
  return n;
}

void looks_tick(struct host *host) {
  for (unsigned n = looks_take_jobs(host); n > 0; n--) {
    struct look_job *look = malloc(sizeof *look);
    if (!look) { /* the next tick tries again */
      pthread_mutex_lock(&host->looks.lock);
      host->looks.n_jobs--;
      pthread_mutex_unlock(&host->looks.lock);
      continue;
    }
    look->job = (struct pool_job){.run = look_job_run, .abandon = look_job_end};
    look->host = host;
    pool_submit(host->pool, host_look_lane(host), &look->job);
  }
}

void looks_stop(struct host *host) {
  pthread_mutex_lock(&host->looks.lock);
  host->looks.n_left = 0;
  pthread_mutex_unlock(&host->looks.lock);
}
