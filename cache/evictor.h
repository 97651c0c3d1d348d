/* The evictor's thread. */
#ifndef CACHE_EVICTOR_H
#define CACHE_EVICTOR_H

/* Its body; `arg` is the struct page_cache. */
void *evictor_main(void *arg);

#endif
