/* bare_cache: the least that a cache can do which misses, for the bare server.
 *
 * It makes the system calls of a cachetd over a file that the kernel has in its
 * memory, in the same two threads, and has nothing else of a cache.  A hit is a
 * read of a memfd.  A miss is a read of a page of the file, a look at the
 * file's version, and a write of the page into a hole of the memfd.  Meanwhile
 * the other thread keeps a reserve free: of the oldest pages it takes as many
 * at a time as cachetd's evictor, makes one barrier for them, and punches
 * neighbours together.
 *
 * A page that is evicted while it is read may be read as zeros: there are no
 * pins.
 *
 * The server's thread makes all calls. */
#ifndef TESTS_BENCH_BARE_CACHE_H
#define TESTS_BENCH_BARE_CACHE_H

#include <stdint.h>

enum { BARE_CACHE_PAGE = 4096 };

/* Of a file, with room for `cache_len` bytes of it.  Returns the length of the
 * file.  What fails here or later ends the program. */
uint64_t bare_cache_open(const char *path, uint64_t cache_len);

/* Reads the page at an offset of the file into `buf`. */
void bare_cache_read(uint64_t offset, void *buf);

#endif
