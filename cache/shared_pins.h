/* Leases: with a lease another process can read a mirror itself.
 *
 * A lease is a pin table in a memfd of its own, which the other process maps
 * for writing, and a share of the cache: the pages that the pins in the table
 * can hold.
 *
 *   L1  All leases together may hold half of the cache, and one lease an
 *       eighth.  Of the part of that half that the other users leave, a user
 *       gets at most half, so something is always left for one more user.
 *   L2  The evictor honours the table until shared_pins_free().  It does not
 *       trust the slots: it loads each once, and compares it with the capacity
 *       of its slot alone.
 *   L3  A lease must not be freed while the other process may still read pages
 *       through it, because those could turn to zeros: that is until the
 *       process says so (shared_pins_collect()) or has exited.
 *   L4  A lease that was replaced holds only the pages that were pinned in it
 *       at that moment and still are.  Those pages are its share.
 *   L5  The shares of a user are the sum over its leases, and `leased` of the
 *       cache is the sum over its users.  No share grows while that is more
 *       than half of the budget, as it may be after the budget was reduced.
 *
 * Any thread may make the calls, but only one at a time on the same lease.
 * shared_pins_give() and shared_pins_grow() may be called for a lease that
 * another thread uses. */
#ifndef CACHE_SHARED_PINS_H
#define CACHE_SHARED_PINS_H

#include "cache/mirror.h"
#include "cache/pin.h"

#ifdef __cplusplus
extern "C" {
#endif

struct shared_pins;

/* What a table can hold: the number of single-page slots, the first of which is
 * the cursor's, and the pages of each range slot. */
struct shared_pins_size {
  uint32_t page_slots;
  uint32_t range_capacity;
};

/* The smallest useful table.  It suffices for a client that reads page after
 * page, and a thousand of them fit a cache of 256 MiB. */
enum { LEASE_LEAST_PAGE_SLOTS = 4, LEASE_LEAST_RANGE_CAPACITY = 1 };

static inline struct shared_pins_size shared_pins_least(void) {
  return (struct shared_pins_size){LEASE_LEAST_PAGE_SLOTS,
                                   LEASE_LEAST_RANGE_CAPACITY};
}

/* Makes a table for `m` and references it.  Nothing can be pinned in it yet. 0;
 * -EAGAIN if the cache has no room for it now; or another negative errno. */
int shared_pins_new(struct mirror *m, struct shared_pins **out);

/* What remains of a lease of a process that has ended, except what the other
 * process wrote into its table. */
struct shared_pins_remains {
  int fd; /* of the table */
  uint32_t user;
  struct shared_pins_size size;
  bool is_replaced;
  uint64_t share; /* in bytes, of one that was replaced */
};

/* Describes a lease for the next process, without its descriptor. */
void shared_pins_describe(const struct shared_pins *l,
                          struct shared_pins_remains *out);

/* Continues with a lease of a process that has ended, on `m`, which is being
 * adopted (adopt.h).  The evictor honours the pins in its table from now on.
 * The share is what it was, even if it is more than could be given now.  Takes
 * ownership of the descriptor, also on failure. -EPROTO: the descriptor is not
 * that of a table, or the description is invalid; or another negative errno. */
int shared_pins_adopt(struct mirror *m, struct shared_pins_remains *remains,
                      struct shared_pins **out);

/* Gives a new lease its share: as much as is available of `most`, at least
 * `least`.  The share counts for `user`.
 *
 * `replaced`, if it is not NULL, is a lease of the same user: its share goes to
 * the new one.  It keeps what is pinned in it now (L4), so the process must
 * store no more pins there. 0; -EDQUOT: no share is left, or the cache is too
 * small for one; then nothing has changed. */
int shared_pins_give(struct shared_pins *l, uint32_t user,
                     struct shared_pins_size least,
                     struct shared_pins_size most,
                     struct shared_pins *replaced);

/* Makes a lease larger, up to `most`, by as much as is available. */
void shared_pins_grow(struct shared_pins *l, struct shared_pins_size most);

/* Ends a lease, whether it has pins or not.  NULL is allowed. */
void shared_pins_free(struct shared_pins *l);

struct shared_pins_size shared_pins_get_size(const struct shared_pins *l);

/* Returns the descriptor of the table, once.  The caller then owns it. */
int shared_pins_take_fd(struct shared_pins *l);

/* Releases the share that a replaced lease no longer uses.  Returns whether the
 * other process will read no more pages through the lease: it said so, or the
 * lease was replaced and has no pin left. */
bool shared_pins_collect(struct shared_pins *l);

/* The image of the mirror; NULL if the mirror belongs to no image any more. */
struct image *shared_pins_image(const struct shared_pins *l);

/* The counts that the reader has stored.  A reader that lies may store any
 * numbers. */
struct pin_counts shared_pins_get_counts(const struct shared_pins *l);

/* How many pages a reader may request ahead of need, so that two such windows
 * fit the part of the cache for pages that have not been used yet. */
uint32_t shared_pins_read_ahead(const struct shared_pins *l);

/* Asserts L5, and that each share is what the slots of its lease can hold; with
 * the lock of the cache. */
void shared_pins_check_locked(const struct page_cache *pc);

/* Maps a table that another process lent.  Takes ownership of the descriptor,
 * also on failure. -EPROTO: it is not such a table. shared_pins_unmap() undoes
 * it. */
int shared_pins_map(int fd, uint32_t range_capacity, struct pin_page **out);
void shared_pins_unmap(struct pin_page *page);

#ifdef __cplusplus
}
#endif

#endif
