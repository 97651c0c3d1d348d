/* The mirrors of a cache, by number: the policy's keys name them so. */
#ifndef CACHE_MIRROR_TABLE_H
#define CACHE_MIRROR_TABLE_H

#include "cache/mirror.h"

/* Makes a mirror known to its cache, and charges its header.  0 or -ENOMEM. */
int mirror_table_add(struct page_cache *pc, struct mirror *m);
int mirror_table_add_locked(struct page_cache *pc, struct mirror *m);

/* Undoes that: its account is closed. */
void mirror_table_remove(struct mirror *m);

/* The mirror of number `i`, with a reference; NULL: there is none, or its last
 * reference was given back.  `*end`: none has that number or a higher one. */
struct mirror *mirror_table_get(struct page_cache *pc, uint32_t i, bool *end);

#endif
