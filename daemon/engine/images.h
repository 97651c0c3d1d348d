/* The images that are served, the page cache behind them, and the pool that
 * reads for it.
 *
 *   G1  An image is in the table from images_add() to images_remove(), and
 *       lives until its last reference is given back.
 *   G2  No other image has its index while it lives.
 *   G3  An image that was found (finder.h) leaves the table when only the table
 *       has a reference and none of its pages is cached.  While there are
 *       `most_found` of them, one leaves for each that is found.
 *   G4  A call with a peer finds only images that the peer may read.  No other
 *       place asks the rule of an image.
 *   G5  If a new rule takes an image from a peer, the rule holds before the
 *       image gets the new epoch for the other peers.  So a caller that has the
 *       present mirror, and then asks images_may_read(), cannot enter it by the
 *       old rule.
 *
 * Any thread, except for the calls that make and end them. */
#ifndef DAEMON_ENGINE_IMAGES_H
#define DAEMON_ENGINE_IMAGES_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/loop.h"
#include "cache/image.h"
#include "cache/page_cache.h"
#include "daemon/engine/image_counters.h"
#include "daemon/engine/keeper.h"
#include "daemon/engine/pending.h"
#include "daemon/engine/pool.h"
#include "daemon/engine/reader_counts.h"
#include "daemon/engine/restore.h"
#include "source/retrying.h"

struct image_rule;
struct images;
struct peer;
struct rule;

/* A listener gets a task when an image has a new epoch, was removed, or was
 * taken from some peer by a rule. */
struct image_listener {
  struct loop *loop;
  struct task task;
  LIST_ENTRY(image_listener) link; /* images.lock */
};

/* Why an image is served. */
enum image_origin {
  IMAGE_CONFIGURED,
  IMAGE_FOUND, /* a client opened it by its name */
};

/* The effect of a new rule on an image. */
enum rule_effect {
  RULE_KEPT,
  RULE_WIDENED,  /* no peer loses access */
  RULE_NARROWED, /* some peer loses access */
};

/* An image that is served.  Members are fixed unless their comment says
 * otherwise. */
struct served_image {
  struct images *images;
  unsigned index;
  char *name;
  struct image *image;
  struct pool_lane *lane; /* for its reads that block */
  struct reader_counts *readers;
  bool warm; /* it is to be warmed as soon as it can be read; see warm.h */

  /* Guarded by images.lock. */
  enum image_origin origin;
  char *path;                /* for messages while it is missing; or NULL */
  struct rule *allow;        /* its readers; NULL: those of all images */
  struct retrying *retrying; /* what counts its source's requests; or NULL */
  const struct image_rule *next_rule; /* during images_set_rules() */
  enum rule_effect change;            /* during images_set_rules() */
  unsigned n_refs;                    /* the table's, and those of callers */
  LIST_HEAD(, image_listener) listeners;
  LIST_ENTRY(served_image) in_bucket;
  bool look_is_queued, drop_is_queued; /* each job has a reference */
  uint64_t doubted_from, doubted_to;   /* bytes that `drop` is to drop */

  bool looking;    /* a job checks it; under the lock of looks.h */
  bool look_again; /* it is to be checked once more; likewise */
  bool lost;       /* the last check failed; for the job that checks */

  atomic_bool share; /* local clients may attach; relaxed: with a new epoch they
                        ask again */
  _Atomic uint64_t terms;     /* a number for its rule and its sharing: another
                             number after a restart means that it must not go on
                             with its mirror.  Relaxed: written before the
                             mirror that they are of is made */
  atomic_uint n_narrowed;     /* how often a rule took the image from some peer.
                             Release, after the rule; acquire,
                             images_n_narrowed() */
  atomic_bool removed;        /* relaxed: listeners are told */
  atomic_int missing;         /* an errno: it could not be opened so far; 0: it
                             is there.  Relaxed: it orders
                             nothing, and may be seen late */
  _Atomic uint64_t n_epochs;  /* relaxed: a statistic */
  struct pool_job look, drop; /* act on what its source reported */
  struct pool_job end;        /* frees it */
  struct image_counters counters[]; /* images.n_threads */
};

enum {
  IMAGES_MAX = 1 << 16,
  IMAGES_BUCKETS = 1 << 10,
  IMAGE_NAME_MAX = 64, /* characters of a name */
};

LIST_HEAD(served_image_list, served_image);

/* What the daemon does when a source reports a change (struct source_listener),
 * in jobs of the pool. */
struct images_heed {
  void (*look)(void *arg, struct served_image *h);
  /* Drops the bytes [from, to), cut at the image's end, and tells clients. */
  void (*drop)(void *arg, struct served_image *h, uint64_t from, uint64_t to);
  void *arg;
};

struct images {
  struct images_heed heed; /* set before there is an image; or zeros */
  struct page_cache *cache;
  struct keeper keeper;    /* of its mirrors */
  struct restore *restore; /* until images_restored(); or NULL */
  struct pool *pool;
  /* Invalidations read no source, so they must not queue behind fills.  They
   * use much processor time, so they have one thread. */
  struct pool_lane *invalidation_lane;
  /* A check that hangs must not take a thread that reads. */
  struct pool_lane *look_lane;
  struct pending pending;
  unsigned n_threads; /* with counters of their own */
  /* Of all images, including those that have ended: they never decrease. */
  struct image_counters *totals; /* n_threads */
  unsigned most_found;           /* G3 */
  struct reader_counts *readers;

  pthread_mutex_t
      lock; /* those of mailboxes and the pool may be taken under it */
  /* Guarded by lock. */
  struct served_image **list; /* IMAGES_MAX, by index; NULL: none */
  unsigned n_list;            /* all indexes are less */
  unsigned n;                 /* images in the table, */
  unsigned n_found;           /* and how many of those were found */
  unsigned next_victim;       /* the index where G3 looks next */
  unsigned n_alive;           /* those, and removed ones that still live */
  struct served_image_list buckets[IMAGES_BUCKETS]; /* the table, by name */
  struct rule *allow; /* of all images without a rule of their own */
  bool stopped;
};

/* Makes the page cache, with its threads, and the pool, which is not started
 * yet.  `n_threads` threads have counters.  0 or a negative errno; in both
 * cases the caller owes an images_fini(). */
int images_init(struct images *images, uint64_t cache_size, unsigned n_threads,
                const struct pool_options *options);

/* Takes over what the previous process has left, see restore.h, before there is
 * an image.  Images that are added before images_restored() continue with their
 * mirrors; images_restored() ends the other mirrors.  After that,
 * restore_next_table() gives the tables. */
void images_restore(struct images *images, const struct restore_fds *from);
void images_restored(struct images *images);

/* The description of an image; its strings are copied. */
struct image_add {
  enum image_origin origin;
  const char *name; /* of IMAGE_NAME_MAX characters at most */
  const char *path;
  bool share;
  bool warm;
  int missing;
  struct rule *allow;    /* the image takes a reference; NULL: it has no rule of
                            its own */
  struct source *source; /* taken over, also on failure */
  struct retrying *retrying; /* counts its requests; likewise; or NULL */
  unsigned page_shift;
};

/* Adds an image.  If it is configured, and one of that name was found, that one
 * is removed at the same time.  0 or a negative errno, and then nothing has
 * changed; -EEXIST: the name is in use; -ENFILE: there are IMAGES_MAX images,
 * or `most_found` that were found and are in use. */
int images_add(struct images *images, const struct image_add *add);

/* Whether an image was found, and its readers may go on with what `add`
 * describes: by images_replace().  They may not if that has a rule of its own,
 * which images_set_rules() did not set before, or pages of another size, or if
 * it cannot be read yet. */
bool images_may_become(struct served_image *h, const struct image_add *add);

/* Gives an image another source, origin, share and path, and so a new epoch;
 * its name, rule and page size stay.  `change->missing` is 0.  Blocks.  0; or a
 * negative errno, and then nothing has changed. */
int images_replace(struct served_image *h, const struct image_add *change);

/* The counts of the requests to its source.  False: they are not counted. */
bool images_count_source(struct served_image *h, struct retrying_counts *out);

/* Writes the image's path, for messages, to `to`. */
void images_print_path(struct served_image *h, char *to, size_t len);

/* Takes an image out of the table: no call finds it any more, and its listeners
 * are told.  False: it was not in the table. */
bool images_remove(struct served_image *h);

/* Removes an image that was found, if the caller has the only reference beside
 * the table's and none of its pages is cached. */
void images_remove_unused(struct served_image *h);

/* Why the image is served now. */
enum image_origin images_origin(struct served_image *h);

/* The image of that name, or the only one, among those that `peer` may read;
 * NULL: there is none.  The caller owes an images_unref().  Without a peer
 * (NULL) the call is for the daemon itself, which may read all; so it is
 * below. */
struct served_image *images_find(struct images *images, const struct peer *peer,
                                 const char *name);
struct served_image *images_only(struct images *images,
                                 const struct peer *peer);

/* The next image in the table, from index `*index` on, and moves `*index` after
 * it; NULL: there is none.  Likewise. */
struct served_image *images_next(struct images *images, unsigned *index);

/* The next images after the name `after`, in the order of their names, that the
 * peer may read: at most `most`.  Returns how many; likewise. */
unsigned images_page(struct images *images, const struct peer *peer,
                     const char *after, struct served_image **page,
                     unsigned most);

/* Whether there is an image of that name that the peer may not read. */
bool images_hides(struct images *images, const struct peer *peer,
                  const char *name);

/* Whether the peer may read an image; and images without a rule of their
 * own. */
bool images_may_read(struct served_image *h, const struct peer *peer);
bool images_may_read_all(struct images *images, const struct peer *peer);

/* How often a rule took the image from some peer.  If the number is the same as
 * when the peer might read the image, the peer may still read it. */
static inline unsigned images_n_narrowed(const struct served_image *h) {
  return atomic_load_explicit(&h->n_narrowed, memory_order_acquire);
}

/* Sets new rules of reading: for images without a rule of their own, and for
 * the images of the list, which need not exist.  All change at the same time.
 * Then each image that was taken from some peer gets a new epoch. */
void images_set_rules(struct images *images, struct rule *all,
                      const struct image_rule *list, size_t n);

void images_ref(struct served_image *h);
void images_unref(struct served_image *h); /* NULL is fine */

/* How many images in the table the peer may read; and how many images live or
 * are being ended. */
unsigned images_count(struct images *images, const struct peer *peer);
unsigned images_count_alive(struct images *images);

/* From here on `listener` gets its task; and no longer.  After
 * images_unlisten() the task is not posted any more, but may have been. */
void images_listen(struct served_image *h, struct image_listener *listener);
void images_unlisten(struct served_image *h, struct image_listener *listener);

/* The looks are stopped already, and no fetch begins any more.  Waits for reads
 * that are under way, and abandons queued fills: after that no source is
 * read. */
void images_stop(struct images *images);

/* Stops evictions, and leaves what a service manager keeps as it is, for the
 * next process.  It is fine if the cache was not made. */
void images_stop_evicting(struct images *images);

/* No thread uses the images any more, and only the table has references. */
void images_fini(struct images *images);

#endif
