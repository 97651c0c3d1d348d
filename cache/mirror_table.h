/* The mirrors of a cache by number, which the keys of the policy contain. */
#ifndef CACHE_MIRROR_TABLE_H
#define CACHE_MIRROR_TABLE_H

#include "cache/mirror.h"

/* Adds a mirror to its cache, and charges its header. 0 or -ENOMEM. */
int mirror_table_add(struct page_cache *pc, struct mirror *m);
int mirror_table_add_locked(struct page_cache *pc, struct mirror *m);

/* Removes a mirror and closes its account. */
void mirror_table_remove(struct mirror *m);

/* The mirror with number `i`, with a reference.  NULL: there is none, or its
 * last reference has been released.  `*end`: no mirror has this or a higher
 * number. */
struct mirror *mirror_table_get(struct page_cache *pc, uint32_t i, bool *end);

#endif
