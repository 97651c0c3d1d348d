/* A part of something that has a size: its bytes from `offset` on, `length` of
 * them or all that there are. */
#ifndef BASE_WINDOW_H
#define BASE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define WINDOW_TO_END UINT64_MAX

struct window {
  uint64_t offset;
  uint64_t length; /* WINDOW_TO_END: up to the end, wherever that is */
};

#define WINDOW_WHOLE ((struct window){.length = WINDOW_TO_END})

static inline bool window_is_whole(const struct window *w) {
  return w->offset == 0 && w->length == WINDOW_TO_END;
}

/* Whether what has `size` bytes has all of it. */
static inline bool window_fits(const struct window *w, uint64_t size) {
  return w->offset <= size &&
         (w->length == WINDOW_TO_END || w->length <= size - w->offset);
}

/* How many bytes of it are in what has `size` bytes. */
static inline uint64_t window_size(const struct window *w, uint64_t size) {
  uint64_t left = w->offset < size ? size - w->offset : 0;
  return left < w->length ? left : w->length;
}

#ifdef __cplusplus
}
#endif

#endif
