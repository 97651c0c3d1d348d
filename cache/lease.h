/* Leases: what another process is given so that it can read a mirror itself.
 *
 * A lease is a pin table that lies in a memfd of its own, which the other
 * process maps for writing, and a share of the cache that its pins may hold.
 *
 *   L1  All leases together may hold half of the cache, and one an eighth. Each
 *       is given a sixteenth of what is left, so there is something for many,
 *       but no less than what makes a table of any use.
 *   L2  The evictor honours the table until lease_free().  Its words are
 *       hostile: each is read once, and judged by its slot's capacity alone.
 *   L3  A lease must not be freed while the other process may still look at
 *       pages through it, or those turn to zeros under its eyes: that is until
 *       it says so (lease_is_done()), or is gone.
 *
 * Any thread; the calls on one lease one at a time. */
#ifndef CACHE_LEASE_H
#define CACHE_LEASE_H

#include "cache/mirror.h"
#include "cache/pin.h"

#ifdef __cplusplus
extern "C" {
#endif

struct lease;

/* Gives a lease on `m`, which it references.  0; -EDQUOT if there is no share
 * left, or the cache is too small for one; or another negative errno. */
int lease_new(struct mirror *m, struct lease **out);

/* Ends it, pins or no pins.  NULL is fine. */
void lease_free(struct lease *l);

const struct mirror *lease_mirror(const struct lease *l);
uint32_t lease_range_capacity(const struct lease *l);

/* The descriptor of the table, once: it is the caller's then, to give away. */
int lease_take_fd(struct lease *l);

/* Whether the other process said that it will not look any more. */
bool lease_is_done(const struct lease *l);

/* Maps the table that another process gave us.  Takes the descriptor over,
 * also on failure.  -EPROTO if it is not such a table.  pin_page_unmap()
 * undoes it. */
int pin_page_map(int fd, uint32_t range_capacity, struct pin_page **out);
void pin_page_unmap(struct pin_page *page);

#ifdef __cplusplus
}
#endif

#endif
