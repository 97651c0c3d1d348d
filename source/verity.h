/* Hash trees in dm-verity's format, as veritysetup(8) makes them: whether
 * blocks of data are those that a root hash was made of.
 *
 * A tree has a hash for each block of data, in hash blocks, which have hashes
 * as well, up to the root hash, which is given.  All of a tree is hostile
 * before it is proven: its superblock, whose numbers are checked here, and each
 * hash block, which is compared with its hash in the one above.
 *
 * Nothing here does I/O.  A check says which part of the tree it wants next,
 * is given it, and goes on.  So one check serves threads that may wait and
 * those that may not.
 *
 *   V1  No byte of data is called right before the way from it up to the root
 *       has been proven.
 *   V2  What a check was given is kept, in at most VERITY_MAX_CHUNKS chunks: a
 *       chunk leaves when it was used least recently.  The upper levels are on
 *       the way of each, and so they stay.
 *   V3  A chunk with a block that is wrong is dropped, and so it is asked for
 *       again by the next check.
 *
 * Any thread; a check is one thread's at a time. */
#ifndef SOURCE_VERITY_H
#define SOURCE_VERITY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct verity;

enum {
  VERITY_SUPERBLOCK_LEN = 512,
  VERITY_MAX_ROOT = 64, /* bytes: of SHA-512 */
  VERITY_MAX_SALT = 256,
  VERITY_MIN_BLOCK = 512,
  VERITY_MAX_BLOCK = 64 << 10,
  /* The tree is read by so many bytes, or by a hash block if that is more. */
  VERITY_CHUNK_LEN = 32 << 10,
  VERITY_MAX_CHUNKS = 128,
  VERITY_WHY_LEN = 200,
};

/* Makes what checks data against the root hash of `root_len` bytes.  The tree
 * is the one whose superblock, which stands at byte `offset` of where the tree
 * lies, is given.
 *
 * 0; -EINVAL with the reason in `why`; -ENOMEM. */
int verity_new(const uint8_t superblock[VERITY_SUPERBLOCK_LEN], uint64_t offset,
               const uint8_t *root, size_t root_len, struct verity **out,
               char why[VERITY_WHY_LEN]);
void verity_free(struct verity *v); /* NULL is fine */

uint64_t verity_data_size(const struct verity *v); /* a multiple of a block's */
uint32_t verity_block_size(const struct verity *v); /* of data; a power of 2 */
uint64_t verity_tree_end(const struct verity *v); /* its last byte is before */

enum verity_outcome {
  VERITY_MATCHES,
  VERITY_DIFFERS,
  VERITY_WANTS, /* `want` of the tree, by verity_give() */
  VERITY_FAILS, /* there is no memory for it */
};

/* A check of a run of whole data blocks. */
struct verity_check {
  struct verity *verity;
  const uint8_t *data; /* of block `next`; NULL: all of them are zeros */
  uint64_t next, end;  /* blocks */
  uint64_t bad;        /* VERITY_DIFFERS: the block that is wrong, or whose way
                          to the root is */
  struct {
    uint64_t offset;
    size_t len;
  } want;
  /* The module's own. */
  uint64_t leaf; /* whose hashes are in `hashes`, if that is not NULL */
  uint8_t *hashes;
  unsigned n_wants; /* in a row */
};

/* Begins a check of `len` bytes at `offset`, both multiples of the block size
 * and within the data size.  verity_check_end() comes in any case. */
void verity_check_begin(struct verity_check *check, struct verity *v,
                        uint64_t offset, const void *data, size_t len);
enum verity_outcome verity_check_step(struct verity_check *check);
void verity_check_end(struct verity_check *check);

/* Gives a part of the tree that was wanted.  `bytes` is from malloc(3), and the
 * callee's from here. */
void verity_give(struct verity *v, uint64_t offset, uint8_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
