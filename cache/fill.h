/* Fills: running them.
 *
 * A fill that a fetch has begun is run once, to its end:
 *
 *     fill_start() --DONE--> it has ended
 *        |-----PENDING--> runner->arrived() --fill_try_end()--> it has ended
 *        |-----RETRY----> fill_start() again    |
 *        `-----BLOCKS---> image_run_fill() <----'
 *
 *   R1  image_run_fill() may be called from the start, and in place of any
 *       further fill_start(), by a thread that may wait.  It goes on from what
 *       was read.
 *   R2  fill_abandon() may be called wherever image_run_fill() may.
 *   R3  After a call that says DONE or PENDING, and after image_run_fill() and
 *       fill_abandon(), the fill may be gone. */
#ifndef CACHE_FILL_H
#define CACHE_FILL_H

#include <stdbool.h>

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fill;

/* Runs the fills of a fetch on threads that must not wait.  It outlives them;
 * and those that are begun ahead may outlive the fetch. */
struct fill_runner {
  /* Runs a fill, or sees to it that it is run.  Called under no lock, on the
   * thread that called image_fetch(). */
  void (*run)(struct fill_runner *runner, struct fill *fill);

  /* A read that was PENDING has ended, and fill_try_end() is due; if that
   * fails, image_run_fill() by a thread that may wait.  Called by a thread of
   * the source's, which must not. */
  void (*arrived)(struct fill_runner *runner, struct fill *fill);
};

/* Starts a fill on a thread that must not wait. */
enum source_outcome fill_start(struct fill *fill, struct fill_runner *runner);

/* Ends a fill whose read has ended, if that needs no wait.  False: nothing was
 * done, since it failed, has no room yet, or has more bytes to be written than
 * a thread has time for that must not wait. */
bool fill_try_end(struct fill *fill);

/* Ends a fill that will not be run, with an error for the fetches that wait. */
void fill_abandon(struct fill *fill, int error);

/* ---- For image.c --------------------------------------------------------- */

/* Reserves room for a fill and reads the source, unless that has been done;
 * either may wait.  0, or the negative errno of one of its pages.  Then
 * fill_end() installs the pages that could be read, and wakes the
 * fetches that wait; those learn `status` of the others. */
int fill_read(struct fill *fill);
void fill_end(struct fill *fill, int status);

/* Ends a fill whose good pages are written, if it has reserved room for them;
 * else none is. */
void fill_finish(struct fill *fill);

#ifdef __cplusplus
}
#endif

#endif
