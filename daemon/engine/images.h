/* The images that are served, the page cache behind them, and the pool that
 * reads for it.
 *
 *   G1  An image is in the table from images_add() to images_remove(), and
 *       lives on until its last reference is given back.
 *   G2  Its index is its own as long as it lives.
 *   G3  One that was found (finder.h) leaves the table when nobody has a
 *       reference and none of its pages is cached, and otherwise for another
 *       that is found while there are `most_found`.
 *   G4  A call that is given a peer finds what that peer may read and nothing
 *       else.  Nowhere else is the rule of an image asked.
 *   G5  A rule that some peer loses by holds before the image has the epoch
 *       that is for the others.  So a caller that asks images_may_read() once
 *       it has the image's present mirror is not let into it by the rule of
 *       before.
 *
 * Any thread, but for what makes and ends them. */
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
#include "daemon/engine/counters.h"
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

/* A listener is told, by a task, that an image has a new epoch, that it
 * was removed, or that some may not read it any more. */
struct image_listener {
  struct loop *loop;
  struct task task;
  LIST_ENTRY(image_listener) link; /* images.lock */
};

/* Why an image is served. */
enum image_origin {
  IMAGE_CONFIGURED,
  IMAGE_FOUND, /* somebody opened it by its name */
};

/* What another rule is to an image. */
enum rule_effect {
  RULE_KEPT,
  RULE_WIDENED,  /* nobody loses by it */
  RULE_NARROWED, /* some peer may read it no more */
};

/* An image that is served.  Fixed, but for what says otherwise. */
struct served_image {
  struct images *images;
  unsigned index;
  char *name;
  struct image *image;
  struct pool_lane *lane; /* for its reads that block */
  struct reader_counts *readers;
  bool warm; /* it is to be warmed when it is there; see warm.h */

  /* Guarded by images.lock. */
  enum image_origin origin;
  char *path;                /* for messages while it is missing; or NULL */
  struct rule *allow;        /* its readers; NULL: those of all images */
  struct retrying *retrying; /* what counts its source's requests; or NULL */
  const struct image_rule *next_rule; /* during images_set_rules() */
  enum rule_effect change;            /* that is to be followed */
  unsigned n_refs; /* of the table, and those that were handed out */
  LIST_HEAD(, image_listener) listeners;
  LIST_ENTRY(served_image) in_bucket;
  bool look_is_queued, drop_is_queued; /* jobs, which have a reference each */
  uint64_t doubted_from, doubted_to;   /* bytes that `drop` is to drop */

  bool looking;    /* is being looked at; under the lock of looks.h */
  bool look_again; /* and is to be once more; likewise */
  bool lost;       /* the last look failed; the job that looks */

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
  struct pool_job look, drop; /* heed what its source has told */
  struct pool_job end;        /* frees it */
  struct counters counters[]; /* images.n_threads */
};

enum {
  IMAGES_MAX = 1 << 16,
  IMAGES_BUCKETS = 1 << 10,
  IMAGE_NAME_MAX = 64, /* characters of a name */
};

LIST_HEAD(served_image_list, served_image);

/* What is done about what sources tell by themselves (struct source_listener),
 * by jobs of the pool. */
struct images_heed {
  void (*look)(void *arg, struct served_image *h);
  /* Drops bytes [from, to), as far as there are so many, and tells clients. */
  void (*drop)(void *arg, struct served_image *h, uint64_t from, uint64_t to);
  void *arg;
};

struct images {
  struct images_heed heed; /* set before there is an image; or zeros */
  struct page_cache *cache;
  struct keeper keeper;    /* of its mirrors */
  struct restore *restore; /* until images_restored(); or NULL */
  struct pool *pool;
  /* Invalidations read no source, and so must not queue behind fills; and they
   * take much of a processor, and so have one thread. */
  struct pool_lane *invalidation_lane;
  /* A look that hangs takes no thread that reads. */
  struct pool_lane *look_lane;
  struct pending pending;
  unsigned n_threads; /* that count */
  /* Of all images, those that are gone included: they only grow. */
  struct counters *totals; /* n_threads */
  unsigned most_found;     /* G3 */
  struct reader_counts *readers;

  pthread_mutex_t
      lock; /* of the mailboxes and the pool may be taken under it */
  /* Guarded by lock. */
  struct served_image **list; /* IMAGES_MAX, by index; NULL: none */
  unsigned n_list;            /* no index is larger than the last of them */
  unsigned n;                 /* in the table, */
  unsigned n_found;           /* and how many of those were found */
  unsigned next_victim;       /* the index where G3 looks next */
  unsigned n_alive;           /* those, and others that have not ended */
  struct served_image_list buckets[IMAGES_BUCKETS]; /* the table, by name */
  struct rule *allow; /* of all that have no rule of their own */
  bool stopped;
};

/* Makes the page cache, with its threads, and the pool, which is not started.
 * `n_threads` have counters.  0 or a negative errno; either way images_fini()
 * is due. */
int images_init(struct images *images, uint64_t cache_size, unsigned n_threads,
                const struct pool_options *options);

/* Takes over what the process before has left, see restore.h, before there is
 * an image: those that are added before images_restored() go on with it.  The
 * other mirrors end then; tables are taken after that, by
 * restore_next_table(). */
void images_restore(struct images *images, const struct restore_fds *from);
void images_restored(struct images *images);

/* What an image is to be: its strings are copied. */
struct image_add {
  enum image_origin origin;
  const char *name; /* of IMAGE_NAME_MAX characters at most */
  const char *path;
  bool share;
  bool warm;
  int missing;
  struct rule *allow;    /* of which it has a reference then; NULL: none of its
                            own */
  struct source *source; /* taken over, also on failure */
  struct retrying *retrying; /* which counts its requests, likewise; or NULL */
  unsigned page_shift;
};

/* Adds an image.  0 or a negative errno; -EEXIST: there is one of that name;
 * -ENFILE: there are IMAGES_MAX, or as many that were found and are in use as
 * there may be. */
int images_add(struct images *images, const struct image_add *add);

/* Gives an image another source, origin, share and path, and so a new epoch;
 * its name and page size stay.  `change->missing` is 0.  Blocks.  0 or a
 * negative errno: then all is as before. */
int images_replace(struct served_image *h, const struct image_add *change);

/* What became of the requests to its source.  False: nobody counts them. */
bool images_count_source(struct served_image *h, struct retrying_counts *out);

/* The image's path, for messages, in `to`. */
void images_print_path(struct served_image *h, char *to, size_t len);

/* Takes an image out of the table: nobody finds it any more, and its listeners
 * are told.  False: it was out already. */
bool images_remove(struct served_image *h);

/* Removes one that was found, if the caller has the only reference to it and
 * none of its pages is cached. */
void images_remove_unused(struct served_image *h);

/* Why it is served now. */
enum image_origin images_origin(struct served_image *h);

/* The image of that name, or the only one, of those that `peer` may read; NULL:
 * there is none.  The caller owes an images_unref().  Without a peer (NULL) it
 * is for the daemon itself, which may read all; so it is below. */
struct served_image *images_find(struct images *images, const struct peer *peer,
                                 const char *name);
struct served_image *images_only(struct images *images,
                                 const struct peer *peer);

/* The next image in the table whose index is not less than `*index`, which is
 * moved behind it; NULL: there is none.  Likewise. */
struct served_image *images_next(struct images *images, unsigned *index);

/* The next images in the order of their names, those behind `after` that the
 * peer may read: at most `most`.  Returns how many; likewise. */
unsigned images_page(struct images *images, const struct peer *peer,
                     const char *after, struct served_image **page,
                     unsigned most);

/* Whether there is an image of that name that the peer may not read. */
bool images_hides(struct images *images, const struct peer *peer,
                  const char *name);

/* Whether the peer may read an image, or what has no rule of its own. */
bool images_may_read(struct served_image *h, const struct peer *peer);
bool images_may_read_all(struct images *images, const struct peer *peer);

/* If it is what it was when the peer might read the image, then the peer may
 * still. */
static inline unsigned images_n_narrowed(const struct served_image *h) {
  return atomic_load_explicit(&h->n_narrowed, memory_order_acquire);
}

/* Sets other rules of reading: of all that have none of their own, and of those
 * of the list, each of which may be there or not.  All change at once.  Images
 * that some peer may read no more have a new epoch afterwards. */
void images_set_rules(struct images *images, struct rule *all,
                      const struct image_rule *list, size_t n);

void images_ref(struct served_image *h);
void images_unref(struct served_image *h); /* NULL is fine */

/* How many there are in the table that the peer may read; and how many live, or
 * are being ended. */
unsigned images_count(struct images *images, const struct peer *peer);
unsigned images_count_alive(struct images *images);

/* From here on, or no longer, `listener` is told.  After the second its task is
 * not posted any more, but may have been. */
void images_listen(struct served_image *h, struct image_listener *listener);
void images_unlisten(struct served_image *h, struct image_listener *listener);

/* Looks are stopped already.  No source is read any more, after those reads
 * that are under way: queued fills are abandoned.  No fetch is begun any more.
 */
void images_stop(struct images *images);

/* Nothing is evicted from here on; and what a service manager keeps is left as
 * it is, for the next process.  A cache that was not made is fine. */
void images_stop_evicting(struct images *images);

/* No thread uses them any more, and only the table has references. */
void images_fini(struct images *images);

#endif
