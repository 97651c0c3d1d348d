/* The reclaimer's thread. */
#ifndef CACHE_RECLAIMER_H
#define CACHE_RECLAIMER_H

/* Its body; `arg` is the struct page_cache. */
void *reclaimer_main(void *arg);

#endif
