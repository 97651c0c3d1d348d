/* A lens: one worker's view of one image.
 *
 * It follows the image from epoch to epoch: it is opened on the present mirror
 * when it is needed and reopened when that one was retired.  Its pins protect
 * bytes from the moment they are found resident until the kernel has them (or
 * they are copied), never longer: see output.h.
 *
 * Worker thread only. */
#ifndef DAEMON_LENS_H
#define DAEMON_LENS_H

#include "cache/page_cache.h"
#include "daemon/fill_job.h"
#include "daemon/host.h"

struct lens {
  struct hosted *hosted;
  struct mirror *mirror; /* the view's, which references it; NULL: not open */
  struct view view;
  unsigned n_pages, n_ranges; /* pin slots in use, of either kind */
  struct lens *next_pinned;   /* the output's list of those that hold pins */
  uint64_t fetching;          /* bytes of its fetches in flight */
  struct request *first_turn, *last_turn; /* see request_fetch.h */
  unsigned n_turns;
  struct begun_image begun;
};

/* Whether the lens looks at the image's present epoch. */
static inline bool lens_is_current(const struct lens *l) {
  return l->mirror && image_is_current(l->hosted->image, l->mirror);
}

/* Looks at the present epoch, whatever it looked at before.  It holds no pins.
 * 0 or a negative errno. */
int lens_open(struct lens *l);

/* Looks at nothing, and so keeps no mirror alive.  It holds no pins. */
void lens_close(struct lens *l);

/* Whether `count` pages (at most FETCH_MAX_PAGES) can be pinned now, by
 * whatever calls of lens_pin(); after lens_unpin() they always can. */
bool lens_has_room(const struct lens *l, unsigned count);

/* Pins the leading pages of first .. first+count-1 that are resident, notes
 * that they were used, and returns how many they are. */
unsigned lens_pin(struct lens *l, uint64_t first, unsigned count);

/* Ends all its pins. */
void lens_unpin(struct lens *l);

#endif
