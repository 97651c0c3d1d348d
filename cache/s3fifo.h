/* S3-FIFO: which page to evict.  Only bookkeeping: no lock, no clock, no I/O.
 * The caller serialises the calls.
 *
 * There are queues of page keys.  A new page enters the small queue, which has
 * a tenth of all pages.  When its turn comes, a page that was used there moves
 * to MAIN.  Any other page is evicted and remembered as a GHOST.  A page that
 * is filled again while its ghost exists enters MAIN.  In MAIN, a page that was
 * used goes round once more.  "Used" is one bit, which the caller keeps (the
 * accessed byte), so a hit costs no bookkeeping.  (Yang et al., "FIFO queues
 * are all you need for cache eviction", SOSP 2023, with one bit of frequency.)
 *
 * A program that reads a page often reads it again at once: the rest of its
 * bytes, or for another thread.  This says nothing about later uses.  So uses
 * do not count in the youngest tenth of the small queue, the WINDOW, which is a
 * queue of its own here.  The rest of the small queue is SMALL.  When a page
 * moves from one to the other, its bit is cleared.
 *
 * What the policy keeps of a page is mostly in no cache of the processor, so it
 * asks for the memory of several pages at the same time.  Pages that were
 * inserted lately are FRESH: they wait until there are enough of them, or until
 * a call needs the queues, and then enter their queues in the order in which
 * they came.
 *
 *   P1  A key is in at most one queue, and in the index if it is in one.  A
 *       fresh page is in none, except as a ghost.
 *   P2  When a page becomes a ghost there are at most as many ghosts as pages.
 *   P3  There is a free entry for every victim that may be restored.
 *   P4  WINDOW has at most its share of the small queue.  So if it has a page,
 *       SMALL has one as well. */
#ifndef CACHE_S3FIFO_H
#define CACHE_S3FIFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Victims are taken in aligned groups of this many neighbours, as far as the
 * neighbours are unused too.  A punch of one page costs 17 to 37 us, and a
 * punch of 16 pages 2.8 us per page. */
#define S3FIFO_GROUP 16

/* The number of used pages that one batch skips. */
#define S3FIFO_SECOND_CHANCES 64

/* The share of the small queue in which uses do not count, in percent. */
#define S3FIFO_WINDOW_PERCENT 10

/* The most pages that are fresh: so many, and about this part of all pages. */
#define S3FIFO_FRESH 32
#define S3FIFO_FRESH_PART 1024

/* A key has the id of a mirror and a page of it, so that neighbours have
 * adjacent keys. */
#define S3FIFO_PAGE_BITS 40
static inline uint64_t s3fifo_key(uint32_t mirror, uint64_t page) {
  return (uint64_t)mirror << S3FIFO_PAGE_BITS | page;
}
static inline uint32_t s3fifo_key_mirror(uint64_t key) {
  return (uint32_t)(key >> S3FIFO_PAGE_BITS);
}
static inline uint64_t s3fifo_key_page(uint64_t key) {
  return key & ((1ull << S3FIFO_PAGE_BITS) - 1);
}

/* For tables of pages.  The pages of a group have adjacent buckets, which are a
 * few lines of the processor's cache: most are filled and evicted together.  A
 * peer chooses which pages are read.  So `factor` is odd and random, and there
 * is a second multiplication: after one alone, groups that are evenly spaced
 * are in few buckets. */
#define S3FIFO_FACTOR 0x9e3779b97f4a7c15ull
static inline uint32_t s3fifo_hash(uint64_t factor, uint64_t key) {
  uint64_t h = key / S3FIFO_GROUP * factor;
  h = (h ^ h >> 32) * S3FIFO_FACTOR;
  return (uint32_t)(h >> 32) ^ (uint32_t)(key % S3FIFO_GROUP);
}

enum s3fifo_queue {
  S3FIFO_WINDOW,
  S3FIFO_SMALL,
  S3FIFO_MAIN,
  S3FIFO_GHOST,
  S3FIFO_N_QUEUES
};

/* Reads the used bit of a page that is in a queue, and clears it. */
typedef bool (*s3fifo_take_used_cb)(void *arg, uint64_t key);

/* Looks at the aligned group of pages from key `first` on.  Bit n of the result
 * is set for page n if it may be in a queue and its used bit is not set.  So
 * the policy need not look up pages that are not there.  It clears no bit. */
typedef uint32_t (*s3fifo_unused_cb)(void *arg, uint64_t first);

/* Says that one of the two will soon be called for a page that is in a queue: a
 * hint to ask for its memory. */
typedef void (*s3fifo_expect_cb)(void *arg, uint64_t key);

struct s3fifo_entry {
  uint64_t key;
  uint32_t newer, older; /* in the queue; also the free list, by `older` */
  uint32_t chain;        /* in the index */
  uint32_t born : 30;    /* how many insertions there had been */
  uint32_t queue : 2;    /* enum s3fifo_queue */
};

struct s3fifo {
  s3fifo_take_used_cb take_used;
  s3fifo_unused_cb unused;
  s3fifo_expect_cb expect; /* NULL at first; the caller may set it */
  void *used_arg;
  uint32_t window_percent; /* below 100; other than by default in simulations,
                              which set it before the first insertion */
  uint64_t factor; /* of s3fifo_hash(); set before the first insertion, or
                      S3FIFO_FACTOR */
  struct s3fifo_entry *entries;  /* [0] is unused: index 0 is none */
  uint32_t *index;               /* hash of the key -> first of its chain */
  uint32_t n_entries, max_index; /* the sizes of the two */
  uint32_t n_index;              /* buckets of the index that are in use */
  uint32_t n_indexed;            /* keys in it */
  uint32_t n_touched;            /* entries from here on were never used */
  uint32_t free;
  uint32_t n_insertions;
  uint32_t n_out; /* victims picked, neither restored nor gone yet */
  uint32_t newest[S3FIFO_N_QUEUES], oldest[S3FIFO_N_QUEUES];
  uint32_t len[S3FIFO_N_QUEUES];
  uint32_t n_fresh;
  uint64_t fresh[S3FIFO_FRESH]; /* keys, the oldest first */
};

/* Initialises the policy for up to `max_pages` pages, including victims that
 * are neither restored nor gone.  At most 2^28 pages are supported.  It
 * reserves address space for all of them, and the kernel allocates memory as
 * pages come, so no array has to grow while the caller holds its lock.  Every
 * call on queues but s3fifo_has(), s3fifo_has_room(), s3fifo_len() and
 * s3fifo_gone() may call `take_used`, `unused` and `expect`, which must not
 * call the policy. 0 or -ENOMEM. */
int s3fifo_init(struct s3fifo *p, uint64_t max_pages,
                s3fifo_take_used_cb take_used, s3fifo_unused_cb unused,
                void *used_arg);
void s3fifo_fini(struct s3fifo *p);

/* Makes room for more pages.  The kernel moves the arrays by their page tables,
 * which is fast for any number of pages.  There is no call to shrink: the
 * queues become shorter as pages leave, and free entries are reused. 0 or
 * -ENOMEM. */
int s3fifo_grow(struct s3fifo *p, uint64_t max_pages);

/* Whether `n` s3fifo_insert()s may follow. */
bool s3fifo_has_room(const struct s3fifo *p, uint32_t n);

/* Adds a page that was filled, which is fresh at first.  It must not be in a
 * queue, except as a ghost. */
void s3fifo_insert(struct s3fifo *p, uint64_t key);

/* Moves the fresh pages to their queues.  Other calls do so themselves. */
void s3fifo_take_in(struct s3fifo *p);

/* Adds a page that an earlier process has filled, to MAIN, because it has
 * outlived others. */
void s3fifo_adopt(struct s3fifo *p, uint64_t key);

/* Removes a page that was not evicted for space, so it leaves no ghost.
 * Ignores an unknown key. */
void s3fifo_remove(struct s3fifo *p, uint64_t key);

/* Returns a victim that is in use, to MAIN. */
void s3fifo_restore(struct s3fifo *p, uint64_t key);

/* Completes the eviction of a victim. */
void s3fifo_gone(struct s3fifo *p);

/* Says that about `n` pages will now be picked, at most S3FIFO_AHEAD of which
 * matter: asks for the memory of those whose turn it is. */
#define S3FIFO_AHEAD 32
void s3fifo_expect_picks(struct s3fifo *p, unsigned n);

/* Removes `want` or a few more victims, at most `max`, from their queues and
 * stores their keys; fewer if there are no more.  For each of them the caller
 * must call s3fifo_restore() or s3fifo_gone().  `*chances` is the number of
 * used pages that it may still skip; then it takes pages regardless, because a
 * client may set all bits all the time.  It counts down, so that several calls
 * for one batch share it. */
size_t s3fifo_pick(struct s3fifo *p, size_t want, uint64_t *keys, size_t max,
                   unsigned *chances);

/* Removes one victim, used or not.  If the caller restores each, all pages come
 * in turn; s3fifo_pick() would not reach the small queue while those in MAIN
 * are restored. 0: there is none. */
size_t s3fifo_pick_oldest(struct s3fifo *p, uint64_t *key);

/* Whether a page is fresh, or in a queue other than as a ghost. */
bool s3fifo_has(const struct s3fifo *p, uint64_t key);

/* Asserts P1, P3 and P4, and that the queues and the index are whole.  It goes
 * through all entries. */
void s3fifo_check(const struct s3fifo *p);

/* How many pages there are. */
static inline uint32_t s3fifo_len(const struct s3fifo *p) {
  return p->len[S3FIFO_WINDOW] + p->len[S3FIFO_SMALL] + p->len[S3FIFO_MAIN] +
         p->n_fresh;
}

#ifdef __cplusplus
}
#endif

#endif
