/* The page cache's inside, for the files of cache/ only.
 *
 * One lock, page_cache.lock, guards everything that misses, evictions and
 * epochs change.  Hits do not take it.  Under it no callback runs, and no
 * system call but fstat.  No thread holds it for longer than it takes to go
 * through a batch of pages, a block of states, or the pin tables of a mirror.
 * It is a leaf but for image.refresh_lock, which is taken before it.
 *
 * True whenever the lock is free:
 *
 *   C1  A page that is RESIDENT is in the policy's SMALL or MAIN queue, and a
 *       page that is there is RESIDENT.
 *   C2  A state is FILLING if and only if a fill of its mirror owns it, and
 *       then that fill is in `fills`.
 *   C3  A state is STALE if and only if its page is in the mirror's `stale`
 *       runs, or the reclaimer is looking at it.
 *   C4  A fetch that waits has n_pending links or outcomes outstanding.
 *
 * The budget's invariants are in budget.c. */
#ifndef CACHE_INTERNAL_H
#define CACHE_INTERNAL_H

#include <pthread.h>

#include "cache/fill_buffers.h"
#include "cache/page_cache.h"
#include "cache/s3fifo.h"

#define FILL_BUCKETS 1024
#define SHARED_PINS_BUCKETS 64

struct fill_node {
  struct fill_node *next;
  struct fill *fill;
  uint64_t page;
};

/* See fill.c. */
struct fill {
  struct mirror *mirror; /* referenced */
  uint64_t first;
  uint32_t count;
  unsigned n_refs; /* the lock: its links, and who runs it */

  struct fetch_link *links; /* the lock: the fetches that wait */
  bool installs;            /* fixed: it owns its pages' states */
  bool stale;               /* the lock: invalidated since it began */

  /* Written by who runs it, before it ends; then fixed. */
  uint8_t *bytes;
  int status;
  uint64_t bad; /* pages that failed: bit i is page first + i */

  struct fill *next, **link; /* pc->fills */
  struct fill_node nodes[];  /* pc->by_page */
};

struct page_cache {
  uint64_t budget;
  uint64_t limit; /* of `used`: a little less */
  bool membarrier;
  struct fill_buffers buffers; /* with threads, which trim them; else none */
  pthread_mutex_t lock;

  /* guarded by lock */
  struct s3fifo policy;
  uint64_t used, garbage; /* bytes, see budget.c */
  uint64_t leased; /* bytes that other processes may pin, see shared_pins.c */
  struct shared_pins_user *shared_pins_users[SHARED_PINS_BUCKETS];
  struct mirror **mirrors;
  uint32_t n_mirrors; /* slots; a free one is NULL */
  struct fill *fills;
  struct fill_node *by_page[FILL_BUCKETS];
  struct fetch *verdicts; /* fetches that wait for what becomes of a page that
                             is EVICTING, or whose state is being swept */
  struct page_cache_stats stats;

  /* The evictor and the reclaimer, if any; guarded by lock. */
  bool has_threads, stop;
  pthread_t evictor, reclaimer;
  pthread_cond_t wanted; /* the evictor's: room is */
  struct {
    pthread_cond_t wake;  /* there is work */
    pthread_cond_t ended; /* a round has */
    uint64_t n_rounds;
    bool is_due;     /* a round is to begin now */
    bool is_ticking; /* rounds come by themselves */
    bool is_active;  /* something was reserved since the last of those */
    struct mirror *dead;
  } reclaim;
};

struct image {
  struct page_cache *cache;
  char *name;
  unsigned page_shift;
  unsigned n_refs; /* atomic: the owner, and each mirror */
  struct image_ops ops;

  /* Serialises looks at the source; taken before the cache's lock. */
  pthread_mutex_t refresh_lock;
  int64_t looked_ms; /* guarded by refresh_lock */

  /* Written under the cache's lock; read atomically (acquire) anywhere. */
  struct mirror *mirror; /* NULL once the image is freed */
  uint64_t generation;

  uint64_t next_epoch; /* guarded by the cache's lock */
};

/* ---- page_cache.c */

/* Makes a mirror known to its cache; mirror_unref() undoes it.  0 or -ENOMEM.
 */
int mirror_attach(struct page_cache *pc, struct image *img, struct mirror *m);

/* A mirror without references goes: its account, its memory, its source. */
void mirror_end(struct mirror *m);

/* Unmaps the pages of a retired mirror that nothing in this process reads. */
void mirror_unmap_unread(struct mirror *m);

void source_unref(struct source *src); /* NULL is fine */

/* The evictor sees a table's pins between these two. */
void pin_table_list(struct pin_table *t);
void pin_table_unlist(struct pin_table *t);

/* ---- budget.c */

/* Reserves `len` bytes of the budget, evicting pages of that size as needed.
 * False if that is not to be had now. */
bool budget_reserve(struct page_cache *pc, unsigned page_shift, uint64_t len);
void budget_release(struct page_cache *pc, uint64_t len);

/* The same without evicting anything. */
bool budget_try_reserve(struct page_cache *pc, uint64_t len);

/* For the table of another process, out of what is held back: it is refused
 * rather than anything is evicted. */
bool budget_reserve_table(struct page_cache *pc, uint64_t len);

uint64_t budget_limit(uint64_t budget);
uint64_t budget_high_free(const struct page_cache *pc);
bool budget_wants_room_locked(const struct page_cache *pc, uint64_t free_len);

/* Whether `len` bytes of states that hold nothing are worth a sweep. */
bool budget_has_much_garbage(const struct page_cache *pc, uint64_t len);

void budget_add_mirror_locked(struct mirror *m);
void budget_remove_mirror_locked(struct mirror *m);
void budget_uncharge_pages_locked(struct mirror *m, uint64_t len);

/* Takes all states of a retired mirror out of the account; the caller gives
 * their memory back, and frees what this returns. */
struct state_block *budget_drop_states_locked(struct mirror *m);

/* Charges the states of these pages, if they are not yet.  False: there is no
 * room for them, so they must stay ABSENT. */
bool states_charge_locked(struct mirror *m, uint64_t first, uint64_t count);
bool states_need_charge(struct mirror *m, uint64_t first, uint64_t count);

/* page_state_move() of a state that is charged. */
bool states_move_locked(struct mirror *m, uint64_t page, enum page_state from,
                        enum page_state to);

/* Whether a state must stay ABSENT because it is being swept. */
static inline bool states_are_swept_locked(const struct mirror *m,
                                           uint64_t page) {
  return page >= m->swept_first && page < m->swept_end;
}

/* The first page from `page` on, or after it, whose block holds a state that
 * is not ABSENT: it looks at `most` blocks. */
uint64_t states_next_live_locked(const struct mirror *m, uint64_t page,
                                 uint64_t most);

/* Gives the states of the block of `page`, and of those that follow, back if
 * they hold nothing, or the pages as well, which are ABSENT.  The page at which
 * it ended; 0: that block holds something. */
enum sweep_what { SWEEP_STATES, SWEEP_STATES_AND_PAGES };
uint64_t states_sweep_at(struct mirror *m, uint64_t page, enum sweep_what what);

/* One step of sweeping: gives some blocks that hold nothing back.  False: it
 * has been through all of them, or another thread is at it. */
bool states_sweep(struct mirror *m);

/* ---- evict.c */

/* Pages in one batch, one barrier. */
#define EVICT_MAX_BATCH 256

/* Tries to evict about `want` bytes; returns how many pages it looked at, some
 * of which may have turned out to be pinned. */
size_t evict(struct page_cache *pc, uint64_t want);

/* Drops the resident pages of a range: punches those that are not pinned, and
 * makes the others STALE.  False: not all could be, for want of memory, and
 * the image needs a new epoch. */
bool evict_range(struct mirror *m, uint64_t first, uint64_t count);

/* Looks again at up to a batch of the pages that are STALE, and punches those
 * whose pins have ended.  False: there is none. */
bool evict_stale(struct mirror *m);

/* The evictor thread's body. */
void *evictor_main(void *arg);

/* ---- reclaim.c */

/* The reclaimer thread's body. */
void *reclaimer_main(void *arg);

/* Has the reclaimer begin a round; the lock is held. */
void reclaim_wake_locked(struct page_cache *pc);

/* Something happens in the cache: rounds come again. */
void reclaim_note_activity_locked(struct page_cache *pc);
void reclaim_begin_ticking(struct page_cache *pc);

/* Frees states that hold nothing, or waits a moment until that is done.  False:
 * nothing came of it. */
bool reclaim_garbage(struct page_cache *pc);

/* Waits a moment for a whole round of the reclaimer.  False: there was none. */
bool reclaim_await_round(struct page_cache *pc);

/* A mirror was just retired: its pages go.  Here and now where there is no
 * thread for it. */
void reclaim_retired(struct mirror *m);

/* Moves all states of a retired mirror from RESIDENT to EVICTING, for good. */
void reclaim_retire_states(struct mirror *m);

/* The first half of that: no state of a retired mirror is RESIDENT afterwards.
 * Any thread may do it, beside another one. */
void reclaim_leave_resident(struct mirror *m);

/* The last reference of a mirror is gone. */
void reclaim_dead(struct mirror *m);

/* Does what waits for the reclaimer, whose thread has ended. */
void reclaim_finish(struct page_cache *pc);

/* ---- fill.c */

/* Ends fetches whose last wait is over: a list by `next`, under no lock. */
void fetches_done(struct fetch *list);

/* Takes fetches off the verdict list whose wait is over now; the lock is held,
 * the result goes to fetches_done(). */
struct fetch *verdicts_take_locked(struct page_cache *pc);

/* Marks fills in flight that overlap the range: they go to the fetches that
 * wait already, and are dropped then.  The lock is held. */
void fills_mark_stale_locked(struct page_cache *pc, struct mirror *m,
                             uint64_t first, uint64_t count);

/* ---- image.c */

/* Gives the image a new mirror over the same source, because a page of `old`
 * cannot be invalidated any other way.  Does nothing if `old` is not current
 * any more.  Without memory for a new one it is made when somebody asks. */
void image_renew(struct image *img, struct mirror *old);

void image_unref(struct image *img);

#endif
