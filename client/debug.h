/* CACHET_DEBUG: what the library does, a line an event, on standard error.
 *
 *   cachet[2] 81.046 "disk.img": misses pages 4 to 7
 *
 * 2 is the handle, numbered in the order of opening; 81.046 the seconds of a
 * clock that never goes back.  Who is not asked to say anything costs a byte of
 * look at each event, and no event is on the way of a hit.
 *
 *   D1  A line is written by one write(2), so that those of several threads do
 *       not mix.  errno is left as it was.
 *   D2  Lines name images, addresses of daemons, pages and failures; never an
 *       image's bytes.  What another process said cannot steer a terminal. */
#ifndef CLIENT_DEBUG_H
#define CLIENT_DEBUG_H

#ifdef __cplusplus
extern "C" {
#endif

struct debug {
  unsigned id;       /* of the handle; 0: it says nothing */
  const char *image; /* the owner's */
};

/* For one more handle.  Looks at the environment. */
void debug_init(struct debug *d, const char *image);

/* Not called but by debug_say(). */
void debug_write(const struct debug *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define debug_say(d, ...) ((d)->id ? debug_write((d), __VA_ARGS__) : (void)0)

#ifdef __cplusplus
}
#endif

#endif
