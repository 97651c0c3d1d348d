/* A backend: how a handle asks for pages that its view does not have.
 *
 * There are two: backend_local.c reads a source in this process; remote/ asks a
 * daemon over a socket.  Everything else about reading is written once, over
 * the view.  A backend belongs to one handle and is used on its thread only;
 * the image cache behind it is shared.
 *
 * The unit of asking is a job: a short run of pages of one mirror, for one
 * request.  While a job waits, the owner looks after other things; then
 * `done` runs, on the handle's thread, from inside progress() or drain().
 * A job's bytes stay with it until drop(), resident in the cache or not. */
#ifndef CLIENT_BACKEND_H
#define CLIENT_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include <cachet/cachet.h>

#include "cache/fetch.h"
#include "client/debug.h"
#include "client/shared_view.h"

#ifdef __cplusplus
extern "C" {
#endif

struct backend;
struct image_cache;

struct backend_job {
  struct mirror *mirror; /* referenced */
  uint64_t first;
  uint32_t count;
  bool is_done;

  /* From is_done on.  CACHET_OK: each of the pages is resident, or its bytes
   * are here, or it was evicted again meanwhile and has to be asked for anew.
   * CACHET_E_CHANGED: the image has, or is about to have, a new epoch. */
  struct cachet_error error;

  void (*done)(
      struct backend_job *j); /* not for what is done when fetch() returns */
  void *owner;
};

/* Whether it failed for one of its pages, and the others may be good: of those
 * bytes() may have some. */
static inline bool backend_job_failed_by_page(const struct backend_job *j) {
  return j->error.code == CACHET_E_IO || j->error.code == CACHET_E_NOMEM;
}

struct backend_ops {
  bool blocks; /* fetch() reads the source itself, which may take its time */
  /* invalidate() and copy() wait for a daemon: not in a callback */
  bool invalidate_waits, copy_waits;

  /* Asks for those of the pages that are not resident, at least for the first
   * one.  What is under way already is joined, so the job's pages may be
   * others than these, but for the first.  The owner wants what is up to page
   * `until` in the end: that may be asked for as well.  NULL: no memory. */
  struct backend_job *(*fetch)(struct backend *b, struct mirror *m,
                               uint64_t first, uint32_t count, uint64_t until,
                               void (*done)(struct backend_job *), void *owner);
  /* Asks for the image's present epoch in the place of a shared view's mirror,
   * which is retired.  The job is of no pages.  It ends well once the backend
   * has another shared view, or none.  NULL: no memory.  NULL as an operation:
   * it has no shared views. */
  struct backend_job *(*renew)(struct backend *b, struct mirror *m,
                               void (*done)(struct backend_job *), void *owner);
  /* Whether take() would find a page, and that can be cached.  NULL as take()
   * is. */
  bool (*has)(const struct backend *b, const struct mirror *m, uint64_t page);
  /* A job that has brought a page already, ahead of need; NULL: there is none.
   * NULL for a backend that reads nothing ahead by itself: readahead.c does.
   * One that does so only where it has no shared view. */
  struct backend_job *(*take)(struct backend *b, struct mirror *m,
                              uint64_t page, uint64_t until, void *owner);
  const uint8_t *(*bytes)(const struct backend_job *j, uint64_t page);
  /* The owner needs the job no more, done or not; `done` will not run. */
  void (*drop)(struct backend *b, struct backend_job *j);

  /* Takes in what has arrived and does not wait; before each look at the
   * view, so that no hit is older than a notice that is here.  NULL: there is
   * nothing that could arrive. */
  void (*drain)(struct backend *b);
  /* For a handle that hits in another process's memory, now and then: takes in
   * what has arrived, and looks for another daemon where the connection has
   * ended.  Does not wait.  True: a connection is being made. */
  bool (*keep_up)(struct backend *b);
  /* Whether the view may be believed: no notice can have been missed. */
  bool (*is_trusted)(const struct backend *b);
  /* As drain(), and moves everything else forward.  Does not wait. */
  void (*progress)(struct backend *b);

  /* What may take its time, before a call waits: never in dispatch().  NULL:
   * nothing. */
  void (*before_wait)(struct backend *b);

  /* Sends what was held.  NULL: nothing ever is. */
  void (*flush)(struct backend *b);

  int (*fd)(const struct backend *b);
  short (*events)(const struct backend *b);
  int (*timeout_ms)(const struct backend *b); /* to the next progress(); -1 */

  /* Why something has not ended in time. */
  void (*explain)(const struct backend *b, struct cachet_error *out);

  /* A hint.  How many of the pages, from the first on, it takes on. */
  uint32_t (*prefetch)(struct backend *b, struct mirror *m, uint64_t first,
                       uint32_t count);
  /* Has pages loaded where the image is cached: the job's, which are as many
   * of those from the first on as can be asked for at once.  It brings no
   * bytes.  NULL: no memory.  NULL as an operation: the image is cached here,
   * and fetch() does it. */
  struct backend_job *(*warm)(struct backend *b, struct mirror *m,
                              uint64_t first, uint64_t count,
                              void (*done)(struct backend_job *), void *owner);
  /* A hint: so many pages cannot be pinned in the view's table, and are copied,
   * because it is too small.  NULL: it does not grow. */
  void (*grow)(struct backend *b, uint32_t page_slots, uint32_t range_capacity);
  /* Looks whether the image has changed.  NULL: one is told, or asks. */
  void (*refresh)(struct backend *b);
  /* Drops pages, here and where they came from. */
  enum cachet_status (*invalidate)(struct backend *b, uint64_t first,
                                   uint64_t count, struct cachet_error *err);

  /* Another backend on the same image cache. */
  enum cachet_status (*copy)(struct backend *b, struct backend **out,
                             struct cachet_error *err);
  /* All jobs are dropped.  In a forked child nothing is waited for, sent, or
   * done to what the parent shares. */
  void (*close)(struct backend *b);
};

/* What a backend calls its handle for; on the handle's thread. */
struct backend_watch {
  /* What fd(), events(), timeout_ms() return may have changed. */
  void (*changed)(void *arg);
  /* Pages are about to be invalidated, or the table is about to be replaced:
   * let go of the pin that is there for speed only, or its page would stay out
   * of the cache.  What is counted in the table is to be there. */
  void (*unpin)(void *arg);
  /* The table of the shared view holds more than it did. */
  void (*grown)(void *arg);
  void *arg;
};

struct backend {
  const struct backend_ops *ops;
  struct image_cache *image_cache; /* referenced */
  /* Memory of another process to read from; referenced.  NULL: pages are in the
   * image cache. */
  struct shared_view *shared;
  struct backend_watch watch;
  struct debug debug;
  /* More will be asked for at once: what is sent, beyond the first request that
   * is under way, may wait for flush(). */
  bool holds;
};

static inline void backend_changed(const struct backend *b) {
  if (b->watch.changed)
    b->watch.changed(b->watch.arg);
}

/* Waits until the backend has something to do or `deadline` passes, and does
 * it.  False: the deadline has passed. */
bool backend_wait(struct backend *b, int64_t deadline);

#ifdef __cplusplus
}
#endif

#endif
