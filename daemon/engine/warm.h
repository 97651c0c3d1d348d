/* Warming: reads an image into the cache from front to back, for clients to
 * come.
 *
 * It goes piece by piece, each a job of the image's own lane of the pool: so
 * the misses of its clients have their turns, and one that hangs delays no
 * other image.
 *
 *   W1  Nothing is evicted for it: it ends when the cache has room for little
 *       more.
 *   W2  It ends as well at the first page that cannot be read, and when the
 *       image has another epoch or is removed.
 *
 * Any thread. */
#ifndef DAEMON_ENGINE_WARM_H
#define DAEMON_ENGINE_WARM_H

struct served_image;

/* Begins to warm the image's present epoch, if there is memory for it.  The
 * pool was started. */
void warm_begin(struct served_image *h);

#endif
