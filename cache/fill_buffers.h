/* The buffers of long fills, all out of huge pages.
 *
 * A disk is asked to read into them directly (source/file.c).  Such a request
 * lists the pages of memory it goes to: neighbours are one entry, and a request
 * of one entry costs a virtual disk half of what one of 64 does.  Memory from
 * malloc(3) would also be faulted in anew for each fill.  Blocks of sources
 * that are far have buffers of another length (see `fetch_size_max` in
 * source.h).
 *
 *   U1  Bit i of `free` is set, or a fill has buffer i, or it is being given
 *       back to the kernel: the thread that clears the bit has it. */
#ifndef CACHE_FILL_BUFFERS_H
#define CACHE_FILL_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FILL_BUFFER_LEN ((size_t)256 << 10)
#define FILL_BUFFERS_LEN ((size_t)2 << 20) /* a huge page, here and there */
#define FILL_BLOCK_LEN ((size_t)4 << 20)
#define FILL_BLOCKS_LEN ((size_t)32 << 20)

/* All zeroes: none, and everything is from malloc(3). */
struct fill_buffers {
  struct fill_region {
    uint8_t *at;   /* NULL: there is none */
    uint32_t free; /* atomic */
    bool was_used; /* atomic: since the last fill_buffers_trim() */
  } buffers, blocks;
};

/* Takes address space; memory comes with use.  There may be none. */
void fill_buffers_init(struct fill_buffers *b);
void fill_buffers_fini(struct fill_buffers *b);

/* `len` bytes; NULL: no memory.  Any thread. */
uint8_t *fill_buffers_get(struct fill_buffers *b, size_t len);
void fill_buffers_put(struct fill_buffers *b,
                      uint8_t *bytes); /* NULL is fine */

/* Once in a while: gives the memory back if nobody has used it since the last
 * time, and nobody has a buffer.  True: it was used, so it is to be called
 * again. */
bool fill_buffers_trim(struct fill_buffers *b);

#ifdef __cplusplus
}
#endif

#endif
