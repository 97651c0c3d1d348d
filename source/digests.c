#include "source/digests.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

struct digests {
  uint64_t size, n_added;
  uint32_t block;
  EVP_MD_CTX *whole; /* of what was added so far */
  EVP_MD_CTX *each;
  uint8_t list[];
};

static uint64_t blocks_in(uint64_t size, uint64_t block) {
  return size / block + (size % block != 0);
}

int digests_new(uint64_t size, struct digests **out) {
  uint32_t block = DIGESTS_MIN_BLOCK;
  while (block < DIGESTS_MAX_BLOCK &&
         blocks_in(size, block) > DIGESTS_MAX_LIST / DIGESTS_LEN)
    block *= 2;
  uint64_t n = blocks_in(size, block);
  if (n > DIGESTS_MAX_LIST / DIGESTS_LEN)
    return -EFBIG;
  struct digests *d = calloc(1, sizeof *d + n * DIGESTS_LEN);
  if (!d)
    return -ENOMEM;
  d->size = size;
  d->block = block;
  d->whole = EVP_MD_CTX_new();
  d->each = EVP_MD_CTX_new();
  if (!d->whole || !d->each ||
      !EVP_DigestInit_ex(d->whole, EVP_sha256(), NULL)) {
    digests_free(d);
    return -ENOMEM;
  }
  *out = d;
  return 0;
}

void digests_free(struct digests *d) {
  if (!d)
    return;
  EVP_MD_CTX_free(d->whole);
  EVP_MD_CTX_free(d->each);
  free(d);
}

uint32_t digests_block_size(const struct digests *d) { return d->block; }

static bool hash_of(EVP_MD_CTX *context, const void *bytes, size_t len,
                    uint8_t out[DIGESTS_LEN]) {
  return EVP_DigestInit_ex(context, EVP_sha256(), NULL) &&
         EVP_DigestUpdate(context, bytes, len) &&
         EVP_DigestFinal_ex(context, out, NULL);
}

bool digests_add(struct digests *d, const void *bytes, size_t len) {
  assert(len <= d->size - d->n_added && d->n_added % d->block == 0);
  const uint8_t *at = bytes;
  if (!EVP_DigestUpdate(d->whole, bytes, len))
    return false;
  while (len > 0) {
    size_t n = len < d->block ? len : d->block;
    if (!hash_of(d->each, at, n, d->list + d->n_added / d->block * DIGESTS_LEN))
      return false;
    d->n_added += n;
    at += n;
    len -= n;
  }
  return true;
}

bool digests_end(struct digests *d, uint8_t out[DIGESTS_LEN]) {
  assert(d->n_added == d->size);
  return EVP_DigestFinal_ex(d->whole, out, NULL);
}

int digests_check(const struct digests *d, uint64_t offset, const void *data,
                  size_t len, uint64_t *bad) {
  static const uint8_t zeros[DIGESTS_MAX_BLOCK];
  assert(offset % d->block == 0 && len <= d->size - offset);
  EVP_MD_CTX *context = EVP_MD_CTX_new();
  const uint8_t *at = data;
  int r = context ? 0 : -ENOMEM;
  while (r == 0 && len > 0) {
    size_t n = len < d->block ? len : d->block;
    uint8_t hash[DIGESTS_LEN];
    if (!hash_of(context, at ? at : zeros, n, hash))
      r = -ENOMEM;
    else if (memcmp(hash, d->list + offset / d->block * DIGESTS_LEN,
                    DIGESTS_LEN) != 0)
      r = -EBADMSG;
    *bad = offset;
    offset += n;
    len -= n;
    at = at ? at + n : NULL;
  }
  EVP_MD_CTX_free(context);
  return r;
}
