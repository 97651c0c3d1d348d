/* Digests: the hash of a content that is read once from the first byte to the
 * last, and of each of its blocks.  Later reads are compared with the hashes of
 * the blocks.
 *
 * The hashes of the blocks are kept in memory, 32 bytes each.  A block has 4
 * KiB, or more if the list would otherwise be longer than DIGESTS_MAX_LIST. */
#ifndef SOURCE_DIGESTS_H
#define SOURCE_DIGESTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
  DIGESTS_LEN = 32, /* of SHA-256 */
  DIGESTS_MIN_BLOCK = 4 << 10,
  DIGESTS_MAX_BLOCK = 512 << 10,
  DIGESTS_MAX_LIST = 16 << 20, /* bytes: of 256 GiB in the largest blocks */
};

struct digests;

/* 0; -EFBIG: no list has so many blocks; or -ENOMEM. */
int digests_new(uint64_t size, struct digests **out);
void digests_free(struct digests *d); /* NULL is fine */

/* A power of two; the last block may be shorter. */
uint32_t digests_block_size(const struct digests *d);

/* Adds the next bytes of the content: whole blocks, except that the last bytes
 * of the content may end with a part of one.  False: no memory. */
bool digests_add(struct digests *d, const void *bytes, size_t len);

/* Stores the hash of everything that was added, which is the whole content.
 * False: no memory. */
bool digests_end(struct digests *d, uint8_t out[DIGESTS_LEN]);

/* Compares blocks, from byte `offset` on, with those that were added.  `data`
 * NULL: all of them are zeros. 0; -EBADMSG, and `*bad` is the beginning of the
 * block that differs; or -ENOMEM.  Any thread, after everything was added. */
int digests_check(const struct digests *d, uint64_t offset, const void *data,
                  size_t len, uint64_t *bad);

#ifdef __cplusplus
}
#endif

#endif
