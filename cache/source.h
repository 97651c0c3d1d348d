/* Where an image's bytes come from, as the page cache sees it.
 *
 * A source is one version of an image's content, opened.  It never changes
 * its size, and a read that finds that the content is no longer the one that
 * was opened fails with -ESTALE; then (and once in a while) the cache asks
 * `reopen` for its successor.  An implementation embeds struct source.
 *
 * A read has one life, whatever the source is:
 *
 *     start() --DONE-------------------------> ended, `status` says how
 *        |----PENDING---> the source calls --> ended, `status` says how
 *        |                done(), once
 *        |----RETRY-----> not begun; the bytes are about to be there, so a
 *        |                start() soon may be DONE
 *        `----BLOCKS----> not begun; read() it, on a thread that may wait
 *
 * A source that can only block has read() alone, and one that calls back has
 * start() alone.  One that has both, such as a file, is started by a thread
 * that must not wait and read by one that may.
 *
 * What its author must keep to:
 *
 *   S1  All but close() may be called by any thread, on one source by several
 *       at once: reads beside reads, and reopen() beside both.  The cache holds
 *       none of its locks meanwhile, but perhaps that of the image's looks
 *       (reopen(), close()).
 *   S2  The buffer of a read is the caller's.  Nothing writes it once the read
 *       has ended, whatever its status.
 *   S3  Nothing is cancelled: a read that has begun is waited for.  A read()
 *       keeps its thread until it returns, and a PENDING read keeps its buffer
 *       until done().  One that may hang needs a time limit of its own.
 *   S4  close() comes once, on any thread, when no other call on the source is
 *       under way, no read is PENDING, and no call will follow.  A done() may
 *       bring it about: after that call the source touches itself no more, and
 *       close() must not wait for the thread that calls it.  A successor that
 *       reopen() made lives on: it may use nothing that close() frees.
 *   S5  start() does not wait, and copies no more than SOURCE_MAX_COPY bytes:
 *       its thread serves hits meanwhile.
 *   S6  A read that ends with SOURCE_ZEROS says that all of the range is zeros,
 *       of this version like any bytes, whatever is in the buffer then.  Of a
 *       range that is zeros in part each byte is written.  A source over
 *       another one passes the status on, or fills the buffer.
 *   S7  A source that hears of changes tells its listener, from a thread of its
 *       own.  No read that ends later brings bytes of a range that it has told
 *       of, from before that.
 *   S8  What a source remembers of the content, such as which ranges are zeros,
 *       it may answer reads from until forget().  A read that begins after that
 *       has returned finds nothing in it that was asked for before the call. */
#ifndef CACHE_SOURCE_H
#define CACHE_SOURCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOURCE_MAX_COPY ((size_t)64 << 10)

struct source;

/* A listener is told what a source hears by itself.  Its calls must not wait:
 * the source makes them on its own thread, under a lock of its own. */
struct source_listener {
  /* A look, reopen(), would find that the image changed. */
  void (*changed)(struct source_listener *l);
  /* Bytes of the range that were read before may be of another content, though
   * the source is the same; the range is within the size. */
  void (*invalid)(struct source_listener *l, uint64_t offset, uint64_t len);
};

/* A status beside 0 and a negative errno: see S6. */
enum { SOURCE_ZEROS = 1 };

enum source_outcome {
  SOURCE_DONE,
  SOURCE_PENDING,
  SOURCE_RETRY,
  SOURCE_BLOCKS,
};

/* One read: all of `len` bytes at `offset`, which are within the size.  The
 * caller sets both, and `buf`, before each start(), which may change them. */
struct source_read {
  uint64_t offset;
  void *buf;
  size_t len;

  /* Called once if start() returned PENDING, perhaps before it has returned,
   * by a thread of the source's, which must not wait in there.  The struct is
   * the caller's again, and may be gone after the call. */
  void (*done)(struct source_read *r);

  /* The caller's: when the read is over at the latest, as clock_now_ms()
   * counts; 0: it has no such limit but the source's own. */
  uint64_t deadline_ms;

  /* The source's, if it knows, as clock_now_ns() counts: when it sent the read
   * to where the bytes are, and when the first of them came.  The caller zeroes
   * both. */
  uint64_t sent_ns, first_ns;

  /* The source's, when the read has ended: 0, SOURCE_ZEROS or a negative errno;
   * -ESTALE if the content changed since the source was opened, also while it
   * was being read. */
  int status;

  /* The caller's: what came before of this range was wrong, and a source that
   * has a choice of connections takes another one. */
  bool anew;
};

/* What tells a version of a content from every other one on this machine, until
 * its next boot, and since when it was read: for a process to come, which may
 * have pages of it from the process before. */
#define SOURCE_IDENTITY_MAX 160

struct source_identity {
  uint32_t len; /* 0: there is none, and nothing that was read is to be kept */
  uint8_t bytes[SOURCE_IDENTITY_MAX]; /* the source's; zeros behind `len` */
};

struct source_ops {
  const char *kind; /* "file": for messages */

  /* Starts a read.  May be NULL: BLOCKS.  See source_start(). */
  enum source_outcome (*start)(struct source *src, struct source_read *r);

  /* Reads; blocks.  What `status` would be.  May be NULL if start() says
   * nothing but DONE and PENDING.  See source_read_blocking(). */
  int (*read)(struct source *src, uint64_t offset, void *buf, size_t len);

  /* Whether the range is known to be zeros: a start() ends with SOURCE_ZEROS at
   * once, and asks nobody.  Does not block.  May be NULL: nothing is known. */
  bool (*knows_zeros)(struct source *src, uint64_t offset, uint64_t len);

  /* Looks whether the image is still the one that was opened.  0 with `*out`
   * NULL if it is; 0 with a newly opened source if not; a negative errno if
   * that cannot be told.  Blocks.  Not twice at once for one image.  May be
   * NULL. */
  int (*reopen)(struct source *src, struct source **out);

  /* Says what identifies the source.  That may change from one look to the
   * next.  Does not block.  May be NULL: nothing does. */
  void (*identify)(struct source *src, struct source_identity *out);

  /* Whether what was read of a source of that identity, by another process, is
   * what this one would read; then it counts as read by this one.  Before the
   * first read.  Does not block.  May be NULL: it is not. */
  bool (*resume)(struct source *src, const struct source_identity *id);

  /* How many bytes a read is worth at present: as many as come in the time that
   * one waits for the first of them.  Does not block.  May be NULL: no more
   * than `fetch_size`. */
  uint64_t (*worth)(struct source *src);

  /* A hint that the range will be read soon; never blocks.  May be NULL. */
  void (*advise)(struct source *src, uint64_t offset, uint64_t len);

  /* Forgets what it knows of the content: see S8.  It is cheap, as it may come
   * often.  Does not block.  May be NULL: it remembers nothing, or nothing that
   * can change. */
  void (*forget)(struct source *src);

  /* Sets the listener: before the first read; and NULL before close(), which
   * waits for the end of a call that is under way.  May be NULL: the source
   * hears nothing by itself. */
  void (*listen)(struct source *src, struct source_listener *l);

  void (*close)(struct source *src);
};

struct source {
  const struct source_ops *ops;
  uint64_t size; /* in bytes; fixed */
  /* What a miss reads at least: the aligned block of so many bytes, a power of
   * two, that it lies in, as far as none of it is there.  0: what was asked
   * for, and no more.  It is set before the source is given to an image, and
   * the image hands it on to successors. */
  uint32_t fetch_size;
  /* For a sequential reader the block grows to what a read is worth,
   * and to so many bytes at most, a power of two; and several are under way.
   * As `fetch_size`; no more than that: it does not grow. */
  uint32_t fetch_size_max;
  unsigned n_refs; /* private to cache/: how many mirrors read it */
};

/* Starts a read of any source, on a thread that must not wait. */
enum source_outcome source_start(struct source *src, struct source_read *r);

/* Whether a status says that there is no connection to what has the bytes, or
 * that it was lost. */
bool source_is_cut_off(int status);

/* knows_zeros() and listen() of any source. */
bool source_knows_zeros(struct source *src, uint64_t offset, uint64_t len);
void source_listen(struct source *src, struct source_listener *l);

/* forget() of any source. */
void source_forget(struct source *src);

/* identify() and resume() of any source. */
void source_identify(struct source *src, struct source_identity *out);
bool source_resume(struct source *src, const struct source_identity *id);

/* worth() of any source; at least `fetch_size`, at most `fetch_size_max`. */
uint64_t source_worth(struct source *src);

/* Reads any source, on a thread that may wait.  What `status` would be. */
int source_read_blocking(struct source *src, uint64_t offset, void *buf,
                         size_t len);

/* The same, which is over by a `deadline_ms` if the source calls back. */
int source_read_until(struct source *src, uint64_t offset, void *buf,
                      size_t len, uint64_t deadline_ms);

#ifdef __cplusplus
}
#endif

#endif
