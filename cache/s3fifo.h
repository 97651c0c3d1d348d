/* S3-FIFO: which page to let go.  Pure bookkeeping: no lock, no clock, no I/O;
 * the caller serialises.
 *
 * Three queues of page keys.  A new page enters SMALL, a tenth of all; one
 * that was used there moves to MAIN when its turn comes, any other leaves and
 * is remembered as a GHOST; a page that returns while its ghost lives enters
 * MAIN.  In MAIN a page that was used goes round once more.  "Used" is one
 * bit, kept by the caller (the touched byte), so a hit costs no bookkeeping.
 * (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023,
 * with one bit of frequency.)
 *
 *   P1  A key is in at most one queue, and in the index if it is in one.
 *   P2  When a page becomes a ghost there are at most as many ghosts as pages.
 *   P3  There is an entry to spare for every victim that may be restored. */
#ifndef CACHE_S3FIFO_H
#define CACHE_S3FIFO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Victims are taken by aligned groups of this many neighbours where they are
 * unused too: a punch costs 17 to 37 us for one page and 2.8 us a page for a
 * run of 16. */
#define S3FIFO_GROUP 16

/* Pages that one batch passes by because they were used. */
#define S3FIFO_SECOND_CHANCES 64

/* A mirror's id and a page of it, so that neighbours have neighbouring keys. */
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

enum s3fifo_queue { S3FIFO_SMALL, S3FIFO_MAIN, S3FIFO_GHOST, S3FIFO_N_QUEUES };

struct s3fifo_entry {
  uint64_t key;
  uint32_t newer, older; /* in the queue; also the free list, by `older` */
  uint32_t chain;        /* in the index */
  uint32_t born;         /* how many insertions there had been */
  uint8_t queue;
};

struct s3fifo {
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
};

/* For up to `max_pages` pages, victims that are neither restored nor gone
 * included; more than 2^28 are not kept account of.  Takes address space for
 * all of them and memory for those that come, so nothing has to grow while the
 * caller holds his lock.  0 or -ENOMEM. */
int s3fifo_init(struct s3fifo *p, uint64_t max_pages);
void s3fifo_fini(struct s3fifo *p);

/* Makes room for up to `max_pages` pages where there was room for fewer.  The
 * arrays move as they are, by their page tables: that is quick for any number
 * of pages.  There is no call for the reverse: the queues get shorter as pages
 * leave, and entries that are free are used again.  0 or -ENOMEM. */
int s3fifo_grow(struct s3fifo *p, uint64_t max_pages);

/* Whether `n` s3fifo_insert()s may follow. */
bool s3fifo_has_room(const struct s3fifo *p, uint32_t n);

/* A page came in that is in no queue but perhaps a ghost. */
void s3fifo_insert(struct s3fifo *p, uint64_t key);

/* A page is there that another process has brought in: it goes into MAIN, since
 * it has outlived others. */
void s3fifo_adopt(struct s3fifo *p, uint64_t key);

/* A page went, not for space: no ghost.  A key that is not there is ignored. */
void s3fifo_remove(struct s3fifo *p, uint64_t key);

/* A victim turned out to be in use: it goes back, into MAIN. */
void s3fifo_restore(struct s3fifo *p, uint64_t key);

/* A victim is gone. */
void s3fifo_gone(struct s3fifo *p);

/* Takes `want` victims or a few more, at most `max`, out of their queues and
 * stores their keys; fewer when there are no more.  For each the caller owes
 * a s3fifo_restore() or a s3fifo_gone().  `used` reads the used bit
 * of a page and clears it.  `*chances` is how many pages that were used it may
 * still pass by; then it takes them regardless: a client may set all bits all
 * the time.  It counts down, so that a batch of several calls has one number of
 * them. */
size_t s3fifo_pick(struct s3fifo *p, size_t want, uint64_t *keys, size_t max,
                   unsigned *chances,
                   bool (*used)(void *arg, uint64_t key, bool clear),
                   void *arg);

/* Takes one victim, used or not: as long as each is restored, all pages come
 * in turn.  s3fifo_pick() would leave those in SMALL alone while those in MAIN
 * are restored.  0: there is none. */
size_t s3fifo_pick_oldest(struct s3fifo *p, uint64_t *key);

/* How many pages are in SMALL and MAIN. */
static inline uint32_t s3fifo_len(const struct s3fifo *p) {
  return p->len[S3FIFO_SMALL] + p->len[S3FIFO_MAIN];
}

#ifdef __cplusplus
}
#endif

#endif
