/* The buffers of long fills, in huge pages.
 *
 * A disk reads directly into these buffers (source/file.c).  Such a request has
 * a list of the memory pages that it writes to, in which adjacent pages are one
 * entry.  A request with one entry costs a virtual disk half of what a request
 * with 64 entries costs.  Memory from malloc(3) would also have to be faulted
 * in for each fill.  Blocks of remote sources have buffers of another length
 * (see `struct source_fetch_size` in source.h).
 *
 *   U1  Bit i of `free` is set, or a fill has buffer i, or a thread is
 *       returning buffer i to the kernel: the thread that cleared the bit owns
 *       it. */
#ifndef CACHE_FILL_BUFFERS_H
#define CACHE_FILL_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FILL_BUFFER_LEN ((size_t)256 << 10)
/* Enough for the threads that fill one image and a few workers.  What malloc(3)
 * gives to a thread of the pool instead stays in the process. */
#define FILL_BUFFERS_LEN ((size_t)4 << 20)
#define FILL_BLOCK_LEN ((size_t)4 << 20)
#define FILL_BLOCKS_LEN ((size_t)32 << 20)

/* Zeroed: there are no buffers, and all memory is from malloc(3). */
struct fill_buffers {
  struct fill_region {
    uint8_t *at;   /* NULL: there is none */
    uint32_t free; /* atomic */
    bool was_used; /* atomic: since the last fill_buffers_trim() */
  } buffers, blocks;
  bool was_short; /* atomic: a long one came from malloc(3) */
};

/* Reserves address space.  The kernel allocates memory when a buffer is used.
 * If there is no address space, there are no buffers. */
void fill_buffers_init(struct fill_buffers *b);
void fill_buffers_fini(struct fill_buffers *b);

/* Returns `len` bytes, or NULL if there is no memory.  Any thread. */
uint8_t *fill_buffers_get(struct fill_buffers *b, size_t len);
void fill_buffers_put(struct fill_buffers *b,
                      uint8_t *bytes); /* NULL is fine */

/* To be called from time to time: returns the memory to the kernel if no buffer
 * is in use and none was used since the last call, also what malloc(3) keeps of
 * those that it gave.  Returns true if one was used; then it must be called
 * again later. */
bool fill_buffers_trim(struct fill_buffers *b);

#ifdef __cplusplus
}
#endif

#endif
