/* Fills: running them.  One that `submit` of struct image_ops was given is run,
 * tried or abandoned by one thread, once. */
#ifndef CACHE_FILL_H
#define CACHE_FILL_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fill;

/* Runs a fill that `submit` handed over: reads the source, installs the pages,
 * wakes who waits.  Blocks on the source. */
void fill_run(struct fill *fill);

/* The same for a thread that must not wait, and for a few pages only, since it
 * copies them.  0, or nothing is done: -EAGAIN if the source is about to bring
 * the pages, so that another try may do; another negative errno if it takes
 * fill_run(), as there is no room, or the source must wait, or has failed. */
int fill_try_run(struct fill *fill);

/* Ends a fill that will not be run, with an error for who waits. */
void fill_abandon(struct fill *fill, int error);

/* How many bytes a fill will read. */
size_t fill_len(const struct fill *fill);

#ifdef __cplusplus
}
#endif

#endif
