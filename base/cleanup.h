/* Undoing what was begun, on each way out of a function.
 *
 *   CLEANUP(image_freep) struct image *img = NULL;
 *   int r = image_make(&img);
 *   if (r < 0)
 *     return r;           image_free(img), unless that is NULL
 *   ...
 *   *out = STEAL(img);    from here the caller owns it
 *   return 0;
 *
 * The compiler calls the function when the variable goes out of scope, with its
 * address, in the reverse order of the declarations.  So such a variable gets a
 * value where it is declared, and no `goto` and no `case` passes over it.  The
 * free function has to take an object that was built half way. */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <stdlib.h>
#include <unistd.h>

/* Unused: to clang, a variable that is only cleaned up is not used. */
#define CLEANUP(fn) __attribute__((cleanup(fn), unused))

/* Makes fn##p(), for CLEANUP(), out of fn(), which frees what a pointer of
 * `type` names.  It leaves NULL alone. */
#define CLEANUP_FUNCTION(type, fn)                                             \
  static inline void fn##p(type *at) {                                         \
    if (*at)                                                                   \
      fn(*at);                                                                 \
  }

/* The value of a variable, which holds nothing from then on: NULL, or for a
 * descriptor -1. */
#define STEAL(pointer)                                                         \
  ({                                                                           \
    __typeof__(pointer) *steal_at = &(pointer), stolen = *steal_at;            \
    *steal_at = NULL;                                                          \
    stolen;                                                                    \
  })

static inline int steal_fd(int *fd) {
  int stolen = *fd;
  *fd = -1;
  return stolen;
}

/* For memory of malloc(3), and for descriptors: a negative one is none. */
static inline void cleanup_free(void *at) { free(*(void **)at); }

static inline void cleanup_close(const int *fd) {
  if (*fd >= 0)
    close(*fd);
}

#endif
