/* CACHET_DEBUG: what the library does, a line an event, on standard error.
 *
 *   cachet[2] 81.046 "disk.img": misses pages 4 to 7
 *
 * 2 is the handle, numbered in the order of opening; 81.046 are the seconds of
 * CLOCK_MONOTONIC.  A handle that was opened without CACHET_DEBUG=1 pays one
 * comparison for each event.  A hit is no event.
 *
 *   D1  A line is written by one write(2), so that lines of several threads do
 *       not mix.  errno is left as it was.
 *   D2  Lines hold names of images, addresses of daemons, numbers of pages and
 *       error messages; never an image's bytes.  Control characters, which
 *       another process may have sent, are written as question marks. */
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

/* For debug_say() alone. */
void debug_write(const struct debug *d, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define debug_say(d, ...) ((d)->id ? debug_write((d), __VA_ARGS__) : (void)0)

#ifdef __cplusplus
}
#endif

#endif
