/* Looks: whether images changed, all of them once in a while.
 *
 * A round goes through the images in turn.  A timer begins it, and one job of
 * the pool walks it: so an idle daemon wakes for all its images together.  A
 * round that is not over when the timer comes again gets more jobs, twice as
 * many each time, which go on behind the images that are being looked at.  So
 * an image whose look takes long, or hangs, delays no other by much.
 *
 * An image whose source says that it changed is looked at beside the rounds.
 *
 *   L1  An image is looked at by one job at a time: a round passes over those
 *       whose look of an earlier round has not ended.
 *   L2  There are never more jobs than images that live; the pool has a thread
 *       for each in a lane of their own. */
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

/* The time has come: begins a round, or has the last one go on.  Not after
 * looks_stop(). */
void looks_tick(struct looks *looks);

/* Looks at the image now, unless somebody does: then that one does once more.
 * On the pool. */
void looks_at(struct looks *looks, struct served_image *h);

/* Ends the round behind the images that are being looked at. */
void looks_stop(struct looks *looks);

#endif
