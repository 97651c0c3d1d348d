/* The finder: opens images that are not in the table (images.h), by name.
 *
 * It calls the place of these images, such as directories, through a table of
 * functions (finder_place.h), which may hang.
 *
 *   F1  At most one lookup of a name is under way.  A call that asks for the
 *       name meanwhile gets the result of that lookup.
 *   F2  Each lookup has a thread of its own, up to FINDER_THREADS of them: so a
 *       lookup that hangs delays no other.
 *   F3  Each wait ends exactly once, even at the stop.
 *
 * Any thread, except for finder_init() and finder_fini(). */
#ifndef DAEMON_ENGINE_FINDER_H
#define DAEMON_ENGINE_FINDER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/engine/finder_place.h"
#include "daemon/engine/images.h"

enum {
  FINDER_THREADS = 64,
  FINDER_LIST_THREADS = 4,
  FINDER_MAX_LOOKS = 4096, /* under way, or waiting for a thread */
};

/* A wait for a name.  All members except `done` are the finder's until it calls
 * `done`.  If `result` is 0 then, the caller owes an images_unref(). */
struct finder_wait {
  void (*done)(struct finder_wait *wait); /* on a thread of the pool */
  int result;                             /* 0 or a negative errno */
  struct served_image *image;
  SLIST_ENTRY(finder_wait) link;
};

struct finder {
  struct images *images;
  const struct finder_place *place; /* NULL: there are no such images */
  unsigned page_shift;
  struct pool_lane *look_lane;
  struct pool_lane *list_lane;    /* one that hangs delays no look */
  pthread_mutex_t lock;           /* a leaf */
  LIST_HEAD(, finder_look) looks; /* guarded by lock, */
  unsigned n_looks;               /* as is how many they are */
};

/* For images that exist, with their pool; `place` may be NULL.  0 or
 * -ENOMEM.  The second is due, before images_fini(), if the struct is zero or
 * the first was called. */
int finder_init(struct finder *finder, struct images *images,
                const struct finder_place *place, unsigned page_shift);
void finder_fini(struct finder *finder);

/* Whether it is worth asking.  Does not wait. */
bool finder_has_place(const struct finder *finder);

/* Puts the image of that name into the table, if there is one.  Its rule is
 * not asked.  `result` of
 * `wait`, whose `done` is set, is 0; -ENOENT: there is none; -ENFILE: too many
 * are in use; -EAGAIN: too many are looked for; or why not. */
void finder_find(struct finder *finder, const char *name,
                 struct finder_wait *wait);

/* At the start, when nothing else uses it: puts those images into the table
 * that the process before has left a mirror of (restore.h), as if somebody
 * asked for each.  Waits for the place until `deadline`, of the monotonic
 * clock; or for half a second, if that is later. */
void finder_restore(struct finder *finder, const struct timespec *deadline);

/* What is found is not what it was: has each image that was found be what is
 * found now, or be removed.  Blocks. */
void finder_review(struct finder *finder);

#endif
