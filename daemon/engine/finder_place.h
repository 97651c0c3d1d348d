/* The place of images that are opened by name, as the finder (finder.h) calls
 * it.
 *
 * Several threads may call its functions at the same time. */
#ifndef DAEMON_ENGINE_FINDER_PLACE_H
#define DAEMON_ENGINE_FINDER_PLACE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct source;

enum { FOUND_NAME_MAX = 64 }; /* characters */

/* An image that may be opened, whether it is or not. */
struct found_name {
  char name[FOUND_NAME_MAX + 1];
  uint64_t size; /* in bytes; 0 where that is not known */
};

/* What was opened. */
struct found_image {
  struct source *source;
  char *path; /* from malloc(3) */
  bool share;
};

struct finder_place {
  /* Whether there is a place to look in.  Does not wait. */
  bool (*is_any)(void *arg);

  /* Opens the image of that name, which is one of found_name's length at most.
   * 0; -ENOENT: there is none; or why it cannot be opened, a negative errno. */
  int (*open)(void *arg, const char *name, struct found_image *out);

  /* Whether an image that was opened is still served this way.  Does not wait.
   */
  bool (*is_current)(void *arg, const char *path, bool share);

  /* The next images after the name `after`, in the order of their names, at
   * most `most`.  Returns how many, or a negative errno. */
  int (*list)(void *arg, const char *after, struct found_name *names,
              unsigned most);

  void *arg;
};

#ifdef __cplusplus
}
#endif

#endif
