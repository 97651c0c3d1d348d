#include "source/verity.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "base/lock.h"

enum {
  /* 2^54 blocks, 2^3 hashes in a block: no tree is higher. */
  MAX_LEVELS = 18,
  /* A check needs parts of the tree one after the other.  Other checks may push
   * a part out before it is used.  After so many times in a row it gives up. */
  MAX_WANTS = 64,
};

/* Of the superblock. */
enum {
  AT_VERSION = 8,
  AT_HASH_TYPE = 12,
  AT_ALGORITHM = 32,
  AT_DATA_BLOCK_SIZE = 64,
  AT_HASH_BLOCK_SIZE = 68,
  AT_DATA_BLOCKS = 72,
  AT_SALT_LEN = 80,
  AT_SALT = 88,
  ALGORITHM_LEN = 32,
};

/* A part of the tree, as it was read. */
struct chunk {
  uint64_t number;
  uint64_t used;  /* `clock` of the last use: the least is the oldest */
  uint8_t *bytes; /* NULL: the slot is free */
  uint64_t
      proven[VERITY_CHUNK_LEN / VERITY_MIN_BLOCK / 64]; /* block by block */
};

struct verity {
  EVP_MD *md;
  uint8_t root[VERITY_MAX_ROOT];
  size_t hash_len; /* a power of 2, and the root's */
  uint8_t salt[VERITY_MAX_SALT];
  size_t salt_len;
  bool salt_is_last; /* hash type 0 */
  uint32_t data_block, hash_block;
  uint8_t of_zeros[VERITY_MAX_ROOT]; /* the hash of a data block of zeros */
  uint64_t n_data_blocks;
  unsigned per_block_shift;    /* hashes in a hash block: a power of 2 */
  unsigned n_levels;           /* 0: the root is the hash of the only block */
  uint64_t levels[MAX_LEVELS]; /* the first hash block of each, from `begin` on;
                                  0 is the level right above the data */
  uint64_t begin;              /* of the hash blocks, where the tree lies */
  uint64_t n_hash_blocks;
  uint32_t blocks_per_chunk;

  pthread_mutex_t lock; /* a leaf; of all below */
  uint64_t clock;
  struct chunk chunks[VERITY_MAX_CHUNKS];
};

/* A hash block, by its level and its number in it. */
struct node {
  unsigned level;
  uint64_t index;
};

/* ---- The superblock ------------------------------------------------------ */

__attribute__((format(printf, 2, 3))) static int
refuse(char why[VERITY_WHY_LEN], const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(why, VERITY_WHY_LEN, format, args);
  va_end(args);
  return -EINVAL;
}

static uint64_t little(const uint8_t *at, unsigned n) {
  uint64_t value = 0;
  while (n-- > 0)
    value = value << 8 | at[n];
  return value;
}

static bool is_block_size(uint64_t size) {
  return size >= VERITY_MIN_BLOCK && size <= VERITY_MAX_BLOCK &&
         (size & (size - 1)) == 0;
}

/* Sets the hash function.  The superblock names it, and its result must be as
 * long as the root. */
static int take_algorithm(struct verity *v, const uint8_t *superblock,
                          char *why) {
  static const char *const names[] = {"sha256", "sha512"};
  const char *given = (const char *)superblock + AT_ALGORITHM;
  const char *name = NULL;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strncmp(given, names[i], ALGORITHM_LEN) == 0)
      name = names[i];
  if (!name)
    return refuse(why, "its hash is neither sha256 nor sha512");
  v->md = EVP_MD_fetch(NULL, name, NULL);
  if (!v->md)
    return -ENOMEM;
  size_t len = (size_t)EVP_MD_get_size(v->md);
  if (len != v->hash_len)
    return refuse(why, "its hash, %s, has %zu digits, and the root %zu", name,
                  2 * len, 2 * v->hash_len);
  return 0;
}

static int take_numbers(struct verity *v, const uint8_t *superblock,
                        char *why) {
  uint64_t data_block = little(superblock + AT_DATA_BLOCK_SIZE, 4);
  uint64_t hash_block = little(superblock + AT_HASH_BLOCK_SIZE, 4);
  uint64_t type = little(superblock + AT_HASH_TYPE, 4);
  v->n_data_blocks = little(superblock + AT_DATA_BLOCKS, 8);
  v->salt_len = little(superblock + AT_SALT_LEN, 2);
  if (memcmp(superblock, "verity\0", 8) != 0)
    return refuse(why, "it does not begin as a tree of veritysetup(8)");
  if (little(superblock + AT_VERSION, 4) != 1 || type > 1)
    return refuse(why, "its version or its hash type is not known");
  if (!is_block_size(data_block) || !is_block_size(hash_block))
    return refuse(why, "its blocks are of another size than 512 to 65536");
  if (v->n_data_blocks == 0 || v->n_data_blocks > INT64_MAX / data_block)
    return refuse(why, "it is of %" PRIu64 " blocks", v->n_data_blocks);
  if (v->salt_len > VERITY_MAX_SALT)
    return refuse(why, "its salt is too long");
  memcpy(v->salt, superblock + AT_SALT, v->salt_len);
  v->salt_is_last = type == 0;
  v->data_block = (uint32_t)data_block;
  v->hash_block = (uint32_t)hash_block;
  return 0;
}

static uint64_t blocks_above(uint64_t n, unsigned shift) {
  return (n >> shift) + ((n & ((UINT64_C(1) << shift) - 1)) != 0);
}

/* Finds where each level begins.  The uppermost level, of one block, lies
 * first. */
static int lay_out(struct verity *v, uint64_t offset, char *why) {
  uint64_t n_blocks[MAX_LEVELS], n = v->n_data_blocks;
  while (UINT64_C(2) << v->per_block_shift <= v->hash_block / v->hash_len)
    v->per_block_shift++;
  while (n > 1) {
    n = blocks_above(n, v->per_block_shift);
    assert(v->n_levels < MAX_LEVELS);
    n_blocks[v->n_levels++] = n;
  }
  for (unsigned level = v->n_levels; level-- > 0;) {
    v->levels[level] = v->n_hash_blocks;
    v->n_hash_blocks += n_blocks[level];
  }
  /* A tree has less than a sixth of the size of its data. */
  if (offset > INT64_MAX / 2)
    return refuse(why, "it would reach past the end of any file");
  v->begin = (offset + VERITY_SUPERBLOCK_LEN + v->hash_block - 1) &
             ~(uint64_t)(v->hash_block - 1);
  v->blocks_per_chunk =
      v->hash_block < VERITY_CHUNK_LEN ? VERITY_CHUNK_LEN / v->hash_block : 1;
  return 0;
}

void verity_free(struct verity *v) {
  if (!v)
    return;
  for (unsigned i = 0; i < VERITY_MAX_CHUNKS; i++)
    free(v->chunks[i].bytes);
  pthread_mutex_destroy(&v->lock);
  EVP_MD_free(v->md);
  free(v);
}

uint64_t verity_data_size(const struct verity *v) {
  return v->n_data_blocks * v->data_block;
}

uint32_t verity_block_size(const struct verity *v) { return v->data_block; }

uint64_t verity_tree_end(const struct verity *v) {
  return v->begin + v->n_hash_blocks * v->hash_block;
}

/* ---- Hashes -------------------------------------------------------------- */

static bool hash_of(const struct verity *v, EVP_MD_CTX *context,
                    const uint8_t *bytes, size_t len,
                    uint8_t out[VERITY_MAX_ROOT]) {
  size_t first = v->salt_is_last ? 0 : v->salt_len;
  return EVP_DigestInit_ex(context, v->md, NULL) &&
         EVP_DigestUpdate(context, v->salt, first) &&
         EVP_DigestUpdate(context, bytes, len) &&
         EVP_DigestUpdate(context, v->salt, v->salt_len - first) &&
         EVP_DigestFinal_ex(context, out, NULL);
}

/* Whether a block has that hash. */
static enum verity_outcome compare(const struct verity *v, EVP_MD_CTX *context,
                                   const uint8_t *bytes, size_t len,
                                   const uint8_t *expected) {
  uint8_t hash[VERITY_MAX_ROOT];
  if (!context || !hash_of(v, context, bytes, len, hash))
    return VERITY_FAILS;
  return memcmp(hash, expected, v->hash_len) == 0 ? VERITY_MATCHES
                                                  : VERITY_DIFFERS;
}

/* ---- Making one ---------------------------------------------------------- */

/* Computes the hash of a block of zeros, once, so that a range of zeros needs
 * no hashing. */
static int hash_zeros(struct verity *v) {
  static const uint8_t zeros[VERITY_MAX_BLOCK];
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  bool is = context && hash_of(v, context, zeros, v->data_block, v->of_zeros);
  EVP_MD_CTX_free(context);
  return is ? 0 : -ENOMEM;
}

int verity_new(const uint8_t superblock[VERITY_SUPERBLOCK_LEN], uint64_t offset,
               const uint8_t *root, size_t root_len, struct verity **out,
               char why[VERITY_WHY_LEN]) {
  assert(root_len > 0 && root_len <= VERITY_MAX_ROOT);
  struct verity *v = calloc(1, sizeof *v);
  if (!v)
    return -ENOMEM;
  lock_init(&v->lock);
  memcpy(v->root, root, root_len);
  v->hash_len = root_len;
  int r = take_numbers(v, superblock, why);
  if (r == 0)
    r = take_algorithm(v, superblock, why);
  if (r == 0)
    r = lay_out(v, offset, why);
  if (r == 0)
    r = hash_zeros(v);
  if (r < 0)
    verity_free(v);
  else
    *out = v;
  return r;
}

/* ---- The part of the tree that is known ---------------------------------- */

/* From the first hash block on. */
static uint64_t number_of(const struct verity *v, struct node node) {
  return v->levels[node.level] + node.index;
}

static struct chunk *find_locked(struct verity *v, struct node node) {
  lock_assert_held(&v->lock);
  uint64_t number = number_of(v, node) / v->blocks_per_chunk;
  for (unsigned i = 0; i < VERITY_MAX_CHUNKS; i++)
    if (v->chunks[i].bytes && v->chunks[i].number == number) {
      v->chunks[i].used = ++v->clock;
      return &v->chunks[i];
    }
  return NULL;
}

static void drop_locked(const struct verity *v, struct chunk *chunk) {
  lock_assert_held(&v->lock);
  free(chunk->bytes);
  *chunk = (struct chunk){.bytes = NULL};
}

static uint32_t place_in_chunk(const struct verity *v, struct node node) {
  return (uint32_t)(number_of(v, node) % v->blocks_per_chunk);
}

static uint8_t *bytes_in(const struct verity *v, const struct chunk *chunk,
                         struct node node) {
  return chunk->bytes + (size_t)place_in_chunk(v, node) * v->hash_block;
}

static bool is_proven(const struct verity *v, const struct chunk *chunk,
                      struct node node) {
  uint32_t i = place_in_chunk(v, node);
  return chunk->proven[i / 64] >> i % 64 & 1;
}

static void set_proven(const struct verity *v, struct chunk *chunk,
                       struct node node) {
  uint32_t i = place_in_chunk(v, node);
  chunk->proven[i / 64] |= UINT64_C(1) << i % 64;
}

/* V2: each chunk is kept once. */
static void check_locked(const struct verity *v) {
  lock_assert_held(&v->lock);
#ifdef CACHETD_DEBUG_CHECKS
  for (unsigned i = 0; i < VERITY_MAX_CHUNKS; i++) {
    const struct chunk *chunk = &v->chunks[i];
    if (!chunk->bytes)
      continue;
    assert(chunk->used > 0 && chunk->used <= v->clock);
    assert(chunk->number * v->blocks_per_chunk < v->n_hash_blocks);
    for (unsigned j = 0; j < i; j++)
      assert(!v->chunks[j].bytes || v->chunks[j].number != chunk->number);
  }
#endif
}

void verity_give(struct verity *v, uint64_t offset, uint8_t *bytes) {
  uint64_t chunk_len = (uint64_t)v->blocks_per_chunk * v->hash_block;
  uint64_t number = (offset - v->begin) / chunk_len;
  struct chunk *victim = &v->chunks[0];
  pthread_mutex_lock(&v->lock);
  for (unsigned i = 0; i < VERITY_MAX_CHUNKS; i++) {
    struct chunk *chunk = &v->chunks[i];
    if (chunk->bytes && chunk->number == number) {
      victim = NULL; /* another thread has given the same chunk meanwhile */
      break;
    }
    if (victim->bytes && (!chunk->bytes || chunk->used < victim->used))
      victim = chunk;
  }
  if (victim) {
    drop_locked(v, victim);
    victim->number = number;
    victim->used = ++v->clock;
    victim->bytes = bytes;
    bytes = NULL;
  }
  check_locked(v);
  pthread_mutex_unlock(&v->lock);
  free(bytes);
}

/* ---- The way to the root ------------------------------------------------- */

static void want(struct verity_check *check, struct node node) {
  const struct verity *v = check->verity;
  uint64_t first =
      number_of(v, node) / v->blocks_per_chunk * v->blocks_per_chunk;
  uint64_t n = v->n_hash_blocks - first;
  if (n > v->blocks_per_chunk)
    n = v->blocks_per_chunk;
  check->want.offset = v->begin + first * v->hash_block;
  check->want.len = (size_t)n * v->hash_block;
}

static struct node above(const struct verity *v, struct node node) {
  return (struct node){node.level + 1, node.index >> v->per_block_shift};
}

/* Proves a hash block by its hash in the block above, which is proven
 * already. */
static enum verity_outcome prove_locked(struct verity *v, EVP_MD_CTX *context,
                                        struct node node) {
  lock_assert_held(&v->lock);
  struct chunk *chunk = find_locked(v, node);
  const uint8_t *expected = v->root;
  if (node.level + 1 < v->n_levels) {
    uint64_t place = node.index & ((UINT64_C(1) << v->per_block_shift) - 1);
    struct node parent = above(v, node);
    expected = bytes_in(v, find_locked(v, parent), parent) +
               (size_t)place * v->hash_len;
  }
  enum verity_outcome outcome =
      compare(v, context, bytes_in(v, chunk, node), v->hash_block, expected);
  if (outcome == VERITY_MATCHES)
    set_proven(v, chunk, node);
  else if (outcome == VERITY_DIFFERS)
    drop_locked(v, chunk);
  return outcome;
}

/* Copies the hash block of that number on the lowest level, proven. */
static enum verity_outcome copy_leaf_locked(struct verity_check *check,
                                            EVP_MD_CTX *context,
                                            uint64_t index) {
  lock_assert_held(&check->verity->lock);
  struct verity *v = check->verity;
  struct node way[MAX_LEVELS]; /* up to one that is proven, or the root */
  unsigned n = 0;
  for (struct node node = {0, index}; node.level < v->n_levels;
       node = above(v, node)) {
    struct chunk *chunk = find_locked(v, node);
    if (!chunk) {
      want(check, node);
      return VERITY_WANTS;
    }
    if (is_proven(v, chunk, node))
      break;
    way[n++] = node;
  }
  while (n > 0) {
    enum verity_outcome outcome = prove_locked(v, context, way[--n]);
    if (outcome != VERITY_MATCHES)
      return outcome;
  }
  const struct node leaf = {0, index};
  memcpy(check->hashes, bytes_in(v, find_locked(v, leaf), leaf), v->hash_block);
  return VERITY_MATCHES;
}

static enum verity_outcome take_leaf(struct verity_check *check,
                                     EVP_MD_CTX *context, uint64_t index) {
  struct verity *v = check->verity;
  if (check->hashes && check->leaf == index)
    return VERITY_MATCHES;
  if (!check->hashes)
    check->hashes = malloc(v->hash_block);
  if (!check->hashes || !context)
    return VERITY_FAILS;
  check->leaf = UINT64_MAX; /* until this has succeeded */
  pthread_mutex_lock(&v->lock);
  enum verity_outcome outcome = copy_leaf_locked(check, context, index);
  pthread_mutex_unlock(&v->lock);
  if (outcome == VERITY_MATCHES)
    check->leaf = index;
  return outcome;
}

/* ---- Checks -------------------------------------------------------------- */

void verity_check_begin(struct verity_check *check, struct verity *v,
                        uint64_t offset, const void *data, size_t len) {
  assert(((offset | len) & (v->data_block - 1)) == 0);
  assert(offset <= verity_data_size(v) && len <= verity_data_size(v) - offset);
  *check = (struct verity_check){.verity = v,
                                 .data = data,
                                 .next = offset / v->data_block,
                                 .end = (offset + len) / v->data_block};
}

void verity_check_end(struct verity_check *check) { free(check->hashes); }

static enum verity_outcome check_block(struct verity_check *check,
                                       EVP_MD_CTX *context) {
  const struct verity *v = check->verity;
  const uint8_t *expected = v->root;
  if (v->n_levels > 0) {
    enum verity_outcome outcome =
        take_leaf(check, context, check->next >> v->per_block_shift);
    if (outcome != VERITY_MATCHES)
      return outcome;
    uint64_t place = check->next & ((UINT64_C(1) << v->per_block_shift) - 1);
    expected = check->hashes + (size_t)place * v->hash_len;
  }
  if (check->data)
    return compare(v, context, check->data, v->data_block, expected);
  return memcmp(v->of_zeros, expected, v->hash_len) == 0 ? VERITY_MATCHES
                                                         : VERITY_DIFFERS;
}

enum verity_outcome verity_check_step(struct verity_check *check) {
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  enum verity_outcome outcome = VERITY_MATCHES;
  while (check->next < check->end &&
         (outcome = check_block(check, context)) == VERITY_MATCHES) {
    check->next++;
    check->n_wants = 0;
    if (check->data)
      check->data += check->verity->data_block;
  }
  EVP_MD_CTX_free(context);
  if (outcome == VERITY_DIFFERS)
    check->bad = check->next;
  if (outcome == VERITY_WANTS && ++check->n_wants > MAX_WANTS)
    outcome = VERITY_FAILS;
  return outcome;
}
