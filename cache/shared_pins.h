/* Leases: what another process is given so that it can read a mirror itself.
 *
 * A lease is a pin table that lies in a memfd of its own, which the other
 * process maps for writing, and a share of the cache: the pages that the pins
 * in the table can hold.
 *
 *   L1  All leases together may hold half of the cache, and one an eighth.  Of
 *       what the other users leave of that half a user gets no more than a half
 *       in all, so there is always something left for one more user.
 *   L2  The evictor honours the table until shared_pins_free().  Its words are
 *       hostile: each is read once, and judged by its slot's capacity alone.
 *   L3  A lease must not be freed while the other process may still look at
 *       pages through it, or those turn to zeros under its eyes: that is until
 *       it says so (shared_pins_collect()), or is gone.
 *   L4  A lease that was replaced holds what was pinned in it at that moment
 *       and is pinned still, no more.  Those pages are its share.
 *   L5  A user's shares are the sum over its leases; and `leased` of the cache
 *       is the sum over its users.  No share grows while that is more than
 *       half of the budget, as it may be when the budget was set lower.
 *
 * Any thread; the calls on one lease one at a time, but for shared_pins_give()
 * and shared_pins_grow(): those may be made of a lease that another thread has.
 */
#ifndef CACHE_SHARED_PINS_H
#define CACHE_SHARED_PINS_H

#include "cache/mirror.h"
#include "cache/pin.h"

#ifdef __cplusplus
extern "C" {
#endif

struct shared_pins;

/* What a table can hold: pages in slots of one page each, the first of which is
 * the cursor's, and pages in each of the range slots. */
struct shared_pins_size {
  uint32_t page_slots;
  uint32_t range_capacity;
};

/* Less than this is of no use.  A client that reads page after page needs no
 * more, and a thousand of them fit a cache of 256 MiB. */
enum { LEASE_LEAST_PAGE_SLOTS = 4, LEASE_LEAST_RANGE_CAPACITY = 1 };

static inline struct shared_pins_size shared_pins_least(void) {
  return (struct shared_pins_size){LEASE_LEAST_PAGE_SLOTS,
                                   LEASE_LEAST_RANGE_CAPACITY};
}

/* Makes a table for `m`, which it references.  Nothing can be pinned in it yet.
 * 0; -EAGAIN if the cache has no room for it now; or another negative errno. */
int shared_pins_new(struct mirror *m, struct shared_pins **out);

/* What a process that has ended leaves of a lease, apart from what the other
 * process wrote into its table. */
struct shared_pins_remains {
  int fd; /* of the table */
  uint32_t user;
  struct shared_pins_size size;
  bool is_replaced;
  uint64_t share; /* in bytes, of one that was replaced */
};

/* Says what remains of a lease, but for its descriptor. */
void shared_pins_describe(const struct shared_pins *l,
                          struct shared_pins_remains *out);

/* Goes on with a lease of a process that has ended, on `m`, which is being
 * adopted (adopt.h): the pins in its table are honoured from here on.  Its
 * share is what it was, also where that is more than there is to give now.
 * Takes the descriptor over, also on failure.  -EPROTO: it is not that of a
 * table, or what is said of it cannot be; or another negative errno. */
int shared_pins_adopt(struct mirror *m, struct shared_pins_remains *remains,
                      struct shared_pins **out);

/* Gives a new lease its share: of `most` what is to be had, `least` at least.
 * The share is counted to `user`.
 *
 * `replaced`, if it is not NULL, is a lease of the same user: its share goes to
 * the new one.  It keeps what is pinned in it now (L4), so the process must
 * store no more pins there.  0; -EDQUOT: no share is left, or the cache is too
 * small for one; then nothing has changed. */
int shared_pins_give(struct shared_pins *l, uint32_t user,
                     struct shared_pins_size least,
                     struct shared_pins_size most,
                     struct shared_pins *replaced);

/* Makes a lease larger, up to `most`, by as much as is to be had. */
void shared_pins_grow(struct shared_pins *l, struct shared_pins_size most);

/* Ends it, pins or no pins.  NULL is fine. */
void shared_pins_free(struct shared_pins *l);

struct shared_pins_size shared_pins_get_size(const struct shared_pins *l);

/* The descriptor of the table, once: it is the caller's then, to give away. */
int shared_pins_take_fd(struct shared_pins *l);

/* Gives back what a lease that was replaced holds no more.  Whether the other
 * process will not look at pages through it any more: it said so, or has no
 * pin left in one that was replaced. */
bool shared_pins_collect(struct shared_pins *l);

/* The image that its mirror is of; NULL: it is over, and of none any more. */
struct image *shared_pins_image(const struct shared_pins *l);

/* What its reader says that it counted: any numbers, unless it is honest. */
struct pin_counts shared_pins_get_counts(const struct shared_pins *l);

/* How many pages a reader may ask for ahead of need, so that two of its windows
 * fit the part of the cache that is for pages that were not used yet. */
uint32_t shared_pins_read_ahead(const struct shared_pins *l);

/* Maps the table that another process gave us.  Takes the descriptor over,
 * also on failure.  -EPROTO if it is not such a table.  shared_pins_unmap()
 * undoes it. */
int shared_pins_map(int fd, uint32_t range_capacity, struct pin_page **out);
void shared_pins_unmap(struct pin_page *page);

#ifdef __cplusplus
}
#endif

#endif
