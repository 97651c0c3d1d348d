#include "client/backend_local.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "cache/image.h"
#include "client/error.h"
#include "client/image_cache.h"

/* How long the last answer of a source about its image is used. */
enum { LOOK_INTERVAL_MS = 1000 };

/* The states of a job, and the threads that touch it:
 *
 *   fetch() runs what it starts itself; if another thread is reading one of
 *   the pages the job is JOINED until that thread calls join_done().
 *
 * A joined job cannot be taken back from that thread, so one that is dropped
 * stays in the list, without an owner, until its `arrived` is set. */
struct local_job {
  struct backend_job job;
  struct fetch fetch;
  struct local *local;
  bool arrived;                /* guarded by local.lock */
  TAILQ_ENTRY(local_job) link; /* while joined */
};

struct local {
  struct backend base;
  int timeout_ms; /* of a read; -1: none */
  int fd;         /* eventfd: a joined job arrived */
  TAILQ_HEAD(, local_job) joined;

  /* A leaf.  Guards `arrived`, and makes sure that the other thread is done
   * with the job and the eventfd when we see it. */
  pthread_mutex_t lock;
};

static struct local *local_of(const struct backend *b) {
  return (struct local *)(uintptr_t)b;
}

/* Called on the thread that ended the last fill. */
static void join_done(struct fetch *f) {
  struct local_job *lj =
      (struct local_job *)((char *)f - offsetof(struct local_job, fetch));
  struct local *l = lj->local;
  pthread_mutex_lock(&l->lock);
  lj->arrived = true;
  /* It fails only if the counter is full, and then the eventfd is readable. */
  (void)!write(l->fd, &(uint64_t){1}, sizeof(uint64_t));
  pthread_mutex_unlock(&l->lock);
}

static bool has_arrived(struct local_job *lj) {
  pthread_mutex_lock(&lj->local->lock);
  bool arrived = lj->arrived;
  pthread_mutex_unlock(&lj->local->lock);
  return arrived;
}

/* A read that the job has joined began earlier, so its time limit ends earlier.
 * For the job this is a time-out as well: the source did not answer in a whole
 * time limit. */
static enum cachet_status code_of(const struct local_job *lj) {
  switch (lj->fetch.status) {
  case -ESTALE:
  case -ENOMEM:
    return error_from_errno(-lj->fetch.status);
  case -ETIMEDOUT:
    return CACHET_E_TIMEOUT;
  default:
    return CACHET_E_IO;
  }
}

static void job_finish(struct local_job *lj) {
  struct backend_job *j = &lj->job;
  j->is_done = true;
  int r = lj->fetch.status;
  if (r == 0)
    return;
  uint64_t offset = j->first << j->mirror->page_shift;
  uint64_t len = (uint64_t)j->count << j->mirror->page_shift;
  if (len > j->mirror->size - offset)
    len = j->mirror->size - offset;
  error_set(&j->error, code_of(lj), -r,
            "image \"%.100s\": read %llu bytes at %llu",
            lj->local->base.image_cache->name, (unsigned long long)len,
            (unsigned long long)offset);
}

static void job_free(struct local_job *lj) {
  fetch_fini(&lj->fetch);
  mirror_unref(lj->job.mirror);
  free(lj);
}

static struct backend_job *
local_fetch(struct backend *b, struct mirror *m, uint64_t first, uint32_t count,
            uint64_t until, void (*done)(struct backend_job *), void *owner) {
  (void)until;
  struct local *l = local_of(b);
  struct local_job *lj = calloc(1, sizeof *lj);
  if (!lj)
    return NULL;
  lj->local = l;
  lj->job = (struct backend_job){.mirror = mirror_ref(m),
                                 .first = first,
                                 .count = count,
                                 .done = done,
                                 .owner = owner};
  lj->fetch.done = join_done;
  if (l->timeout_ms >= 0)
    lj->fetch.deadline_ms = clock_now_ms() + (uint64_t)l->timeout_ms;
  if (image_fetch(&lj->fetch, m, first, count) == FETCH_WAIT)
    TAILQ_INSERT_TAIL(&l->joined, lj, link);
  else
    job_finish(lj);
  return &lj->job;
}

static const uint8_t *local_bytes(const struct backend_job *j, uint64_t page) {
  return fetch_bytes(&((const struct local_job *)j)->fetch, page);
}

static void local_drop(struct backend *b, struct backend_job *j) {
  struct local_job *lj = (struct local_job *)j;
  (void)b;
  j->owner = NULL;
  if (j->is_done)
    job_free(lj);
}

static void local_progress(struct backend *b) {
  struct local *l = local_of(b);
  uint64_t count;
  (void)!read(l->fd, &count, sizeof count); /* EAGAIN: nothing arrived */
  struct local_job *lj = TAILQ_FIRST(&l->joined), *next;
  for (; lj; lj = next) {
    next = TAILQ_NEXT(lj, link);
    if (!has_arrived(lj))
      continue;
    TAILQ_REMOVE(&l->joined, lj, link);
    job_finish(lj);
    if (lj->job.owner)
      lj->job.done(&lj->job);
    else
      job_free(lj);
  }
}

static bool local_is_trusted(const struct backend *b) {
  (void)b;
  return true;
}

static int local_fd(const struct backend *b) { return local_of(b)->fd; }

static short local_events(const struct backend *b) {
  (void)b;
  return POLLIN;
}

static int local_timeout_ms(const struct backend *b) {
  (void)b;
  return -1;
}

static void local_explain(const struct backend *b, struct cachet_error *out) {
  error_set(out, CACHET_E_TIMEOUT, 0,
            "image \"%.100s\": another thread's read has not ended in time",
            b->image_cache->name);
}

static uint32_t local_prefetch(struct backend *b, struct mirror *m,
                               uint64_t first, uint32_t count) {
  (void)b;
  source_advise(m->source, first << m->page_shift,
                (uint64_t)count << m->page_shift);
  return count;
}

static void local_refresh(struct backend *b) {
  /* An error here is not reported.  The next read finds it again. */
  image_refresh(b->image_cache->image, LOOK_INTERVAL_MS);
}

static enum cachet_status local_invalidate(struct backend *b, uint64_t first,
                                           uint64_t count,
                                           struct cachet_error *err) {
  int r = image_invalidate(b->image_cache->image, first, count);
  if (r < 0)
    return error_set(err, error_from_errno(-r), -r,
                     "image \"%.100s\": invalidate", b->image_cache->name);
  return CACHET_OK;
}

static enum cachet_status local_copy(struct backend *b, struct backend **out,
                                     struct cachet_error *err) {
  enum cachet_status status = backend_local_new(
      image_cache_ref(b->image_cache), local_of(b)->timeout_ms, out, err);
  if (status != CACHET_OK)
    image_cache_unref(b->image_cache);
  return status;
}

static void local_close(struct backend *b) {
  struct local *l = local_of(b);
  if (image_cache_is_forked(b->image_cache)) {
    /* The child does not have the other threads, and the cache belongs to the
     * parent.  The eventfd stays open: the child may have closed it and opened
     * another file of that number, and no call tells eventfds apart. */
    free(l);
    return;
  }
  /* This ends, because other threads are reading these pages. */
  while (!TAILQ_EMPTY(&l->joined))
    backend_wait(b, -1);
  close(l->fd);
  pthread_mutex_destroy(&l->lock);
  image_cache_unref(b->image_cache);
  free(l);
}

static const struct backend_ops local_ops = {
    .blocks = true,
    .fetch = local_fetch,
    .bytes = local_bytes,
    .drop = local_drop,
    .is_trusted = local_is_trusted,
    .progress = local_progress,
    .fd = local_fd,
    .events = local_events,
    .timeout_ms = local_timeout_ms,
    .explain = local_explain,
    .prefetch = local_prefetch,
    .refresh = local_refresh,
    .invalidate = local_invalidate,
    .copy = local_copy,
    .close = local_close,
};

enum cachet_status backend_local_new(struct image_cache *image_cache,
                                     int timeout_ms, struct backend **out,
                                     struct cachet_error *err) {
  struct local *l = calloc(1, sizeof *l);
  if (!l)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a handle");
  l->base.ops = &local_ops;
  l->base.image_cache = image_cache;
  l->timeout_ms = timeout_ms;
  debug_init(&l->base.debug, image_cache->name);
  l->fd = fd_above_std(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (l->fd < 0) {
    int e = errno;
    free(l);
    return error_set(err, e == ENOMEM ? CACHET_E_NOMEM : CACHET_E_IO, e,
                     "eventfd");
  }
  TAILQ_INIT(&l->joined);
  pthread_mutex_init(&l->lock, NULL);
  *out = &l->base;
  return CACHET_OK;
}
