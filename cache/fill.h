/* Running fills.
 *
 * A fill that a fetch has begun is run once, until it has ended:
 *
 *     fill_start() --DONE--> it has ended
 *        |-----PENDING--> runner->arrived() --fill_try_end()--> it has ended
 *        |-----RETRY----> fill_start() again    |
 *        `-----BLOCKS---> image_run_fill() <----'
 *
 *   R1  A thread that may wait can call image_run_fill() in place of the first
 *       or any later fill_start().  It continues with the bytes that were read.
 *   R2  fill_abandon() may be called wherever image_run_fill() may.
 *   R3  After a call that returned DONE or PENDING, and after image_run_fill()
 *       and fill_abandon(), the fill may have been freed. */
#ifndef CACHE_FILL_H
#define CACHE_FILL_H

#include <stdbool.h>

#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

struct fill;
struct ring;

/* Runs the fills of a fetch on threads that must not wait.  It must outlive the
 * fills.  Fills that were begun ahead may outlive the fetch. */
struct fill_runner {
  /* Runs a fill, or arranges that it is run.  Called under no lock, on the
   * thread that called image_fetch(). */
  void (*run)(struct fill_runner *runner, struct fill *fill);

  /* A PENDING read has ended.  The runner must call fill_try_end() and, if that
   * returns false, have a thread that may wait call image_run_fill().  Called
   * on a thread of the source, which must not wait. */
  void (*arrived)(struct fill_runner *runner, struct fill *fill);

  /* Of the thread that runs them, for their sources; or NULL. */
  struct ring *ring;
};

/* Starts a fill on a thread that must not wait. */
enum source_outcome fill_start(struct fill *fill, struct fill_runner *runner);

/* Ends a fill whose read has ended, if this needs no wait.  Otherwise returns
 * false and does nothing: the read failed, there is no room yet, or the fill
 * has more bytes to write than a thread that must not wait may write. */
bool fill_try_end(struct fill *fill);

/* Ends a fill that will not be run, with an error for the fetches that wait for
 * it. */
void fill_abandon(struct fill *fill, int error);

/* ---- For image.c --------------------------------------------------------- */

/* fill_read() reserves room for a fill and reads the source, unless that was
 * done before.  Both may wait.  It returns 0, or the negative errno of one of
 * the pages.  Then fill_end() installs the pages that could be read, and wakes
 * the fetches; they get `status` for the other pages. */
int fill_read(struct fill *fill);
void fill_end(struct fill *fill, int status);

/* Ends a fill.  If it has reserved room, its readable pages have been written,
 * and are installed; otherwise none is. */
void fill_finish(struct fill *fill);

#ifdef __cplusplus
}
#endif

#endif
