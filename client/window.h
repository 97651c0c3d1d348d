/* The part of an image that a handle opens: bytes `offset` on, `length` of them
 * or all that there are.
 *
 * What a caller says is an address in the window; pages, pins and fills are the
 * whole image's.  So a window is added where a call turns into pages, and taken
 * off again where a slice goes out. */
#ifndef CLIENT_WINDOW_H
#define CLIENT_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#define WINDOW_TO_END UINT64_MAX

struct window {
  uint64_t offset;
  uint64_t length; /* WINDOW_TO_END: up to the end, wherever that is */
};

#define WINDOW_WHOLE ((struct window){.length = WINDOW_TO_END})

static inline bool window_is_whole(const struct window *w) {
  return w->offset == 0 && w->length == WINDOW_TO_END;
}

/* Whether an image of `size` bytes has all of it. */
static inline bool window_fits(const struct window *w, uint64_t size) {
  return w->offset <= size &&
         (w->length == WINDOW_TO_END || w->length <= size - w->offset);
}

/* How many bytes of it an image of `size` bytes has. */
static inline uint64_t window_size(const struct window *w, uint64_t size) {
  uint64_t left = w->offset < size ? size - w->offset : 0;
  return left < w->length ? left : w->length;
}

#endif
