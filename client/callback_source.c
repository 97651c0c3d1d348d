#include "client/callback_source.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct make_source {
  struct source base;
  struct cachet_source given; /* fixed */
  size_t page_size;           /* fixed */
  bool armed;                 /* set before a second thread has the handle */
  pthread_mutex_t lock;       /* held over map, the copying, and unmap */
};

/* Runs `map` once.  How many bytes were copied, or a negative errno. */
static ssize_t map_once(struct make_source *m, uint64_t pos, void *buf,
                        size_t len) {
  const struct cachet_source *given = &m->given;
  const void *bytes = NULL;
  ssize_t n = given->map(given->ctx, pos, len, &bytes);
  if (n < 0)
    /* -ESTALE has a meaning here that it cannot have there. */
    return n < -4095 || n == -ESTALE ? -EIO : n;
  ssize_t result = (size_t)n <= len && (bytes || !n) ? n : -EIO;
  if (result > 0)
    memcpy(buf, bytes, (size_t)result);
  if (n > 0 && given->unmap)
    given->unmap(given->ctx, bytes, (size_t)n);
  return result;
}

/* A result that is shorter than asked for is continued at the next page
 * boundary, so that no page is put together from two moments. */
static int make_source_read(struct source *src, uint64_t offset, void *buf,
                            size_t len) {
  struct make_source *m = (struct make_source *)src;
  size_t done = 0;
  int r = 0;
  pthread_mutex_lock(&m->lock);
  while (r == 0 && done < len) {
    ssize_t n = map_once(m, offset + done, (char *)buf + done, len - done);
    size_t progress = n > 0 ? (size_t)n : 0;
    if (progress < len - done)
      progress &= ~(m->page_size - 1);
    if (n < 0)
      r = (int)n;
    else if (progress == 0)
      r = -EIO;
    done += progress;
  }
  pthread_mutex_unlock(&m->lock);
  return r;
}

static void make_source_close(struct source *src) {
  struct make_source *m = (struct make_source *)src;
  if (m->armed && m->given.close)
    m->given.close(m->given.ctx);
  pthread_mutex_destroy(&m->lock);
  free(m);
}

static const struct source_ops make_source_ops = {
    .kind = "make",
    .read = make_source_read,
    .close = make_source_close,
};

int callback_source_new(const struct cachet_source *given, unsigned page_shift,
                        struct source **out) {
  struct make_source *m = calloc(1, sizeof *m);
  if (!m)
    return -ENOMEM;
  m->base.ops = &make_source_ops;
  m->base.size = given->size;
  m->given = *given;
  m->page_size = (size_t)1 << page_shift;
  pthread_mutex_init(&m->lock, NULL);
  *out = &m->base;
  return 0;
}

void callback_source_arm(struct source *src) {
  ((struct make_source *)src)->armed = true;
}
