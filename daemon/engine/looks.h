/* Looks: periodic checks whether images have changed.
 *
 * A round checks all images, one after the other.  A timer starts a round, and
 * one job of the pool runs it: so an idle daemon wakes once for all its images.
 * If a round has not ended when the timer fires again, it gets more jobs, twice
 * as many each time.  They continue behind the images that are being checked.
 * So an image whose check takes long, or hangs, hardly delays the others.
 *
 * If the source of an image reports a change, the image is checked at once,
 * independently of the rounds.
 *
 *   L1  One job at a time checks an image: a round skips images whose check by
 *       an earlier round has not ended.
 *   L2  There are never more jobs than images that live.  The pool has a lane
 *       for them, with a thread for each. */
#ifndef DAEMON_ENGINE_LOOKS_H
#define DAEMON_ENGINE_LOOKS_H

#include <pthread.h>
#include <stdbool.h>

struct images;
struct served_image;

struct looks {
  struct images *images;
  pthread_mutex_t lock; /* images.lock may be taken under it */
  /* Guarded by lock. */
  bool is_under_way; /* a round, */
  unsigned next;     /* and the index of its next image */
  unsigned n_jobs;   /* that are queued or running */
};

void looks_init(struct looks *looks, struct images *images);
void looks_fini(struct looks *looks);

/* The timer has fired: starts a round, or gives the last one more jobs.  Not
 * after looks_stop(). */
void looks_tick(struct looks *looks);

/* Checks the image now.  If another job is checking it, that job does so once
 * more.  On the pool. */
void looks_at(struct looks *looks, struct served_image *h);

/* Ends the round after the images that are being checked. */
void looks_stop(struct looks *looks);

#endif
