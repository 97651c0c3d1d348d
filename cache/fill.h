/* Fills: running them.  One that `submit` of struct image_ops was given is run
 * by one thread, once: by image_run_fill(), or by a fill_try_run() that returns
 * 0, or it is abandoned. */
#ifndef CACHE_FILL_H
#define CACHE_FILL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fill;

/* Runs a fill on a thread that must not wait, and of a few pages only, since it
 * copies them.  0, or nothing is done: -EAGAIN if the source is about to bring
 * the pages, so that another try may do; another negative errno if it takes
 * image_run_fill(), as there is no room, or the source must wait, or has
 * failed. */
int fill_try_run(struct fill *fill);

/* Ends a fill that will not be run, with an error for who waits. */
void fill_abandon(struct fill *fill, int error);

/* How many bytes a fill will read. */
size_t fill_len(const struct fill *fill);

/* ---- For image.c --------------------------------------------------------- */

/* Reserves room for a fill and reads the source, which may wait.  0, or the
 * negative errno of one of its pages.  Then fill_end() installs the pages that
 * could be read, and wakes who waits; those learn `status` of the others. */
int fill_read(struct fill *fill);
void fill_end(struct fill *fill, int status);

/* Ends a fill whose good pages are written, if it has reserved room for them;
 * else none is. */
void fill_finish(struct fill *fill);

#ifdef __cplusplus
}
#endif

#endif
