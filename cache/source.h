/* Sources: where the page cache reads an image's bytes from.
 *
 * A source is one version of an image's content, opened.  Its size does not
 * change.  A read that finds that the content has changed since the source was
 * opened fails with -ESTALE.  Then, and from time to time, the cache asks
 * `reopen` for the successor.  An implementation embeds struct source.
 *
 * Every read takes one of these ways:
 *
 *     start() --DONE-------------------------> ended, with `status`
 *        |----PENDING---> the source calls --> ended, with `status`
 *        |                done(), once
 *        |----RETRY-----> not begun; the bytes are expected soon, so another
 *        |                start() may be DONE
 *        `----BLOCKS----> not begun; call read() on a thread that may wait
 *
 * A source that can only block has only read().  A source that calls back has
 * only start().  A source may have both, such as a file: a thread that must not
 * wait calls start(), and one that may wait calls read().
 *
 * An implementation must keep these rules:
 *
 *   S1  Any thread may make any call except close(), and several threads may
 *       call the same source at once: reads beside reads, and reopen() beside
 *       both.  The cache then holds none of its locks, except perhaps the
 *       refresh_lock of the source (reopen()), or of the one that it was to
 *       succeed (close()).
 *   S2  The buffer of a read belongs to the caller.  Nothing writes it after
 *       the read has ended, whatever the status is.
 *   S3  The cache cancels nothing: it waits for every read that has begun.  A
 *       read() keeps its thread until it returns, and a PENDING read keeps its
 *       buffer until done().  A read that may hang needs its own time limit.
 *   S4  The cache calls close() once, on any thread, when no other call on the
 *       source is in progress, no read is PENDING, and no call will follow.  A
 *       done() may lead to it.  So the source must not use itself after that
 *       call, and close() must not wait for the thread that makes it.  A
 *       successor from reopen() lives on: it must not use anything that close()
 *       frees.
 *   S5  start() does not wait, and copies at most SOURCE_MAX_COPY bytes,
 *       because its thread also serves hits.
 *   S6  SOURCE_ZEROS as the status of a read says that the whole range is zeros
 *       in this version, whatever the buffer contains.  If only a part is
 *       zeros, the source writes every byte.  A source over another one passes
 *       the status on, or fills the buffer.
 *   S7  A source that learns of changes notifies its listener, from a thread of
 *       its own.  After it has reported a range, no read that ends later
 *       returns older bytes of that range.
 *   S8  A source may remember something about the content, such as which ranges
 *       are zeros, and answer reads from that until forget().  A read that
 *       begins after forget() has returned uses nothing that was learned before
 *       the call.
 *   S9  A read that has a ring may end with SOURCE_UNREAD: the ring could not
 *       make it, nothing is known of its bytes, and the caller calls read(). */
#ifndef CACHE_SOURCE_H
#define CACHE_SOURCE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SOURCE_MAX_COPY ((size_t)64 << 10)

struct ring;
struct source;

/* A listener gets the notifications of a source.  Its calls must not wait: the
 * source makes them on its own thread, under a lock of its own. */
struct source_listener {
  /* The image has changed, so a call of reopen() would find a successor. */
  void (*changed)(struct source_listener *l);
  /* Bytes of the range that were read before may be of another content, though
   * the source is the same; the range is within the size. */
  void (*invalid)(struct source_listener *l, uint64_t offset, uint64_t len);
  /* Something that people should know, in words without secrets.  May be NULL.
   */
  void (*remark)(struct source_listener *l, const char *text);
};

/* A status in addition to 0 and negative errnos. */
enum {
  SOURCE_ZEROS = 1,  /* see S6 */
  SOURCE_UNREAD = 2, /* see S9 */
};

enum source_outcome {
  SOURCE_DONE,
  SOURCE_PENDING,
  SOURCE_RETRY,
  SOURCE_BLOCKS,
};

/* One read: of all `len` bytes at `offset`, which are within the size.  The
 * caller sets both, and `buf`, before each start(), which may change them. */
struct source_read {
  uint64_t offset;
  void *buf;
  size_t len;

  /* Called once if start() returned PENDING, perhaps before start() has
   * returned, on a thread of the source, which must not wait.  The struct then
   * belongs to the caller, and may have been freed when the call returns. */
  void (*done)(struct source_read *r);

  /* Set by the caller: the time at which the read must have ended, as
   * clock_now_ms() counts. 0: only the source's own limit applies. */
  uint64_t deadline_ms;

  /* Set by the caller: the ring of the calling thread (source/ring.h), by which
   * a source may read, so that done() is called on this thread.  NULL: it has
   * none, or an earlier start() of this read returned RETRY: the bytes are on
   * their way already, and the source counts no read twice. */
  struct ring *ring;

  /* Set by the source, if it knows, as clock_now_ns() counts: when it sent the
   * request for the bytes, and when the first of them arrived.  The caller sets
   * both to 0. */
  uint64_t sent_ns, first_ns;

  /* Set by the source when the read has ended: 0, SOURCE_ZEROS, SOURCE_UNREAD
   * or a negative errno. -ESTALE if the content has changed since the source
   * was opened, also during the read. */
  int status;

  /* Set by the caller: an earlier answer for this range was wrong.  A source
   * that has several connections uses another one. */
  bool anew;
};

/* What tells a version of a content from every other one on this machine, until
 * its next boot, and since when it was read: for a process to come, which may
 * have pages of it from the process before.
 *
 * The last bytes of it may tell the version from every other one wherever it is
 * read: two machines that have the same there read the same.  The first ones
 * then say on whose word, so that what one kind of source has read is not taken
 * for what another one proves. */
#define SOURCE_IDENTITY_MAX 160

struct source_identity {
  uint32_t len; /* 0: there is none, and nothing that was read is to be kept */
  uint32_t content_len; /* how many of them are the same on every machine */
  uint8_t bytes[SOURCE_IDENTITY_MAX]; /* the source's; zeros behind `len` */
};

struct source_ops {
  const char *kind; /* "file": for messages */

  /* Starts a read.  NULL: BLOCKS.  See source_start(). */
  enum source_outcome (*start)(struct source *src, struct source_read *r);

  /* Reads, and may block.  Returns what would be `status`.  May be NULL if
   * start() only returns DONE and PENDING.  See source_read_blocking(). */
  int (*read)(struct source *src, uint64_t offset, void *buf, size_t len);

  /* Whether the range is known to be zeros: then start() ends at once with
   * SOURCE_ZEROS, and asks nobody.  Does not block.  NULL: nothing is known. */
  bool (*knows_zeros)(struct source *src, uint64_t offset, uint64_t len);

  /* Checks whether the image is still the one that was opened.  Returns 0 and
   * sets `*out` to NULL if it is; 0 and `*out` is a newly opened source if it
   * is not; a negative errno if it cannot tell.  May block.  Never called twice
   * at once for one source, nor beside that of a source which succeeded it by
   * reopen().  May be NULL. */
  int (*reopen)(struct source *src, struct source **out);

  /* Stores what identifies the source, which may differ after the next check.
   * Does not block.  NULL: nothing identifies it. */
  void (*identify)(struct source *src, struct source_identity *out);

  /* Whether another process that read a source with that identity has read what
   * this one would read; then those bytes count as read by this one.  Called
   * before the first read.  Does not block.  NULL: no. */
  bool (*resume)(struct source *src, const struct source_identity *id);

  /* How many bytes a read should have at present: as many as arrive in the time
   * that one waits for the first of them.  Does not block.  NULL: at most
   * `fetch_size.least`. */
  uint64_t (*worth)(struct source *src);

  /* A hint that the range will be read soon.  Does not block.  May be NULL. */
  void (*advise)(struct source *src, uint64_t offset, uint64_t len);

  /* Forgets what it knows about the content: see S8.  It must be cheap, because
   * it may be called often.  Does not block.  NULL: the source remembers
   * nothing that can change. */
  void (*forget)(struct source *src);

  /* Sets the listener, and notifies it of what happened since the source was
   * opened: an earlier process may have left pages that it concerns.  Sets NULL
   * before close(), which waits until a notification in progress has ended.
   * NULL: the source sends no notifications. */
  void (*listen)(struct source *src, struct source_listener *l);

  void (*close)(struct source *src);
};

/* How many bytes a miss reads. */
struct source_fetch_size {
  /* At least the aligned block of this many bytes, a power of two, that
   * contains what was requested, without the pages that are cached.  0: only
   * what was requested. */
  uint32_t least;
  /* For a sequential reader, the block grows to the length that worth()
   * returns, at most to this many bytes, a power of two, and several blocks are
   * read at once.  If it is not greater than `least`, the block does not
   * grow. */
  uint32_t most;
};

struct source {
  const struct source_ops *ops;
  uint64_t size; /* in bytes; fixed */
  /* Set before the source is given to an image.  The image passes it on to
   * successors, and a source over this one has the same. */
  struct source_fetch_size fetch_size;

  /* Private to cache/, which sets them. */
  unsigned n_refs; /* how many mirrors read it */
  /* Serialises looks at it; taken before the cache's lock. */
  pthread_mutex_t refresh_lock;
  int64_t looked_ms; /* the last look.  Relaxed: a time; written under
                        refresh_lock */
};

/* Starts a read of any source, on a thread that must not wait. */
enum source_outcome source_start(struct source *src, struct source_read *r);

/* Whether an error is about the source, and so about each part of a range
 * alike: to read the range in parts would bring the same error for each. */
bool source_is_whole(int status);

/* Whether a status means that there is no connection to the store of the bytes,
 * or that it was lost. */
bool source_is_cut_off(int status);

/* knows_zeros() and listen() of any source. */
bool source_knows_zeros(struct source *src, uint64_t offset, uint64_t len);
void source_listen(struct source *src, struct source_listener *l);

/* reopen(), advise() and forget() of any source.  One that cannot be reopened
 * is still what it was. */
int source_reopen(struct source *src, struct source **out);
void source_advise(struct source *src, uint64_t offset, uint64_t len);
void source_forget(struct source *src);

/* identify() and resume() of any source. */
void source_identify(struct source *src, struct source_identity *out);
bool source_resume(struct source *src, const struct source_identity *id);

/* For a source whose identify() always says the same: whether `id` is that. */
bool source_is_identity(struct source *src, const struct source_identity *id);

/* Adds bytes to an identity, and to what is the same on every machine, if it
 * has that.  Where they find no room there is none. */
void source_identity_add(struct source_identity *id, const void *bytes,
                         size_t len);

/* Takes such bytes off again.  False: it has others there. */
bool source_identity_cut(struct source_identity *id, const void *bytes,
                         size_t len);

/* worth() of any source, within its `fetch_size`. */
uint64_t source_worth(struct source *src);

/* Reads any source, on a thread that may wait.  Returns what would be `status`.
 */
int source_read_blocking(struct source *src, uint64_t offset, void *buf,
                         size_t len);

/* Does the same, and ends at `deadline_ms` at the latest if the source calls
 * back. */
int source_read_until(struct source *src, uint64_t offset, void *buf,
                      size_t len, uint64_t deadline_ms);

#ifdef __cplusplus
}
#endif

#endif
