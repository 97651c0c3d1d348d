/* Hash trees in the format of dm-verity, as veritysetup(8) makes them: they
 * verify that blocks of data are those from which a root hash was made.
 *
 * A tree has a hash for each block of data.  The hashes are in hash blocks,
 * which have hashes as well, up to the root hash, which is given.  This module
 * trusts nothing in the tree before it is verified: it checks the numbers in
 * the superblock, and compares each hash block with its hash in the level
 * above.
 *
 * This module does no I/O.  A check says which part of the tree it needs next;
 * the caller provides it and continues the check.  So threads that may wait and
 * threads that may not use the same check.
 *
 *   V1  No byte of data is reported to match before every hash from it up to
 *       the root was verified.
 *   V2  The parts that a check got are kept, in at most VERITY_MAX_CHUNKS
 *       chunks.  The least recently used chunk is dropped first.  Every check
 *       uses the upper levels, so these stay.
 *   V3  A chunk with a wrong block is dropped, so the next check requests it
 *       again.
 *
 * Any thread may call these functions; one thread at a time uses a check. */
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
  /* The tree is read in chunks of this many bytes, or of one hash block if that
   * is larger. */
  VERITY_CHUNK_LEN = 32 << 10,
  VERITY_MAX_CHUNKS = 128,
  VERITY_WHY_LEN = 200,
};

/* Makes a verifier for the root hash of `root_len` bytes.  The tree is the one
 * with the given superblock, which is at byte `offset` of the source of the
 * tree.
 *
 * 0; -EINVAL with the reason in `why`; -ENOMEM. */
int verity_new(const uint8_t superblock[VERITY_SUPERBLOCK_LEN], uint64_t offset,
               const uint8_t *root, size_t root_len, struct verity **out,
               char why[VERITY_WHY_LEN]);
void verity_free(struct verity *v); /* NULL is fine */

uint64_t verity_data_size(const struct verity *v); /* a multiple of a block's */
uint32_t verity_block_size(const struct verity *v); /* of data; a power of 2 */
uint64_t verity_tree_end(const struct verity *v);   /* after its last byte */

enum verity_outcome {
  VERITY_MATCHES,
  VERITY_DIFFERS,
  VERITY_WANTS, /* it needs `want` of the tree, by verity_give() */
  VERITY_FAILS, /* there is no memory for it */
};

/* A check of a run of whole data blocks. */
struct verity_check {
  struct verity *verity;
  const uint8_t *data; /* of block `next`; NULL: all of them are zeros */
  uint64_t next, end;  /* blocks */
  uint64_t bad;        /* VERITY_DIFFERS: the block that is wrong, or one of
                          whose hashes is */
  struct {
    uint64_t offset;
    size_t len;
  } want;
  /* Private to the module. */
  uint64_t leaf; /* the block with `hashes`, if that is not NULL */
  uint8_t *hashes;
  unsigned n_wants; /* in a row */
};

/* Begins a check of `len` bytes at `offset`, both multiples of the block size
 * and within the data size.  The caller must call verity_check_end() in any
 * case. */
void verity_check_begin(struct verity_check *check, struct verity *v,
                        uint64_t offset, const void *data, size_t len);
enum verity_outcome verity_check_step(struct verity_check *check);
void verity_check_end(struct verity_check *check);

/* Provides a part of the tree that a check needs.  `bytes` is from malloc(3);
 * the callee takes ownership. */
void verity_give(struct verity *v, uint64_t offset, uint8_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
