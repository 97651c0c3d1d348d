/* Where an image's bytes come from, as the page cache sees it.
 *
 * A source is one version of an image's content, opened.  It never changes
 * its size, and a read that finds that the content is no longer the one that
 * was opened fails with -ESTALE; then (and once in a while) the cache asks
 * `reopen` for its successor.  An implementation embeds struct source.
 *
 * What its author must keep to:
 *
 *   S1  All but close() may be called by any thread, on one source by several
 *       at once: read() beside read(), and reopen() beside both.  The cache
 *       holds none of its locks meanwhile, but perhaps that of the image's
 *       looks (reopen(), close()).
 *   S2  The buffer of a read is the caller's.  Nothing writes it once the call
 *       has returned, whatever it returned.
 *   S3  Nothing is cancelled: a read() that has begun is waited for, and keeps
 *       its thread until it returns.  One that may hang needs a time limit of
 *       its own.
 *   S4  close() comes once, on any thread, when no other call on the source is
 *       under way and none will follow.  A successor that reopen() made lives
 *       on: it may use nothing that close() frees. */
#ifndef CACHE_SOURCE_H
#define CACHE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct source;

struct source_ops {
  const char *kind; /* "file": for messages */

  /* Reads the `len` bytes at `offset`, all of them, within the size; blocks.
   * 0 or a negative errno; -ESTALE if the content changed since the source was
   * opened, also while it was being read.  Several threads at once. */
  int (*read)(struct source *src, uint64_t offset, void *buf, size_t len);

  /* As read(), for a thread that must not wait: -EAGAIN if it would have to,
   * but is about to bring the bytes, so that another try may do; another
   * negative errno if only read() can.  May be NULL. */
  int (*try_read)(struct source *src, uint64_t offset, void *buf, size_t len);

  /* Looks whether the image is still the one that was opened.  0 with `*out`
   * NULL if it is; 0 with a newly opened source if not; a negative errno if
   * that cannot be told.  Not twice at once for one image.  May be NULL. */
  int (*reopen)(struct source *src, struct source **out);

  /* A hint that the range will be read soon; never blocks.  May be NULL. */
  void (*advise)(struct source *src, uint64_t offset, uint64_t len);

  void (*close)(struct source *src);
};

struct source {
  const struct source_ops *ops;
  uint64_t size;   /* in bytes; fixed */
  unsigned n_refs; /* private to cache/: how many mirrors read it */
};

#ifdef __cplusplus
}
#endif

#endif
