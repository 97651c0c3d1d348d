// Hash trees from hostile bytes: whatever is called right has the hashes that
// lead to the root, and nothing outside of the tree is asked for.
//
// The input is a tree with its superblock.  The data are zeros, and then what
// the input begins with.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "source/verity.h"

namespace {

void Require(bool right) {
  if (!right)
    abort();
}

void CheckSome(verity *v, const uint8_t *tree, size_t size, uint64_t offset,
               const void *data, size_t len) {
  verity_check check;
  verity_outcome outcome;
  verity_check_begin(&check, v, offset, data, len);
  while ((outcome = verity_check_step(&check)) == VERITY_WANTS) {
    Require(check.want.len > 0 && check.want.len <= VERITY_MAX_BLOCK);
    Require(check.want.offset >= VERITY_SUPERBLOCK_LEN);
    Require(check.want.offset + check.want.len <= verity_tree_end(v));
    // Of this length to the byte, so that a look past the end is seen.
    uint8_t *bytes = static_cast<uint8_t *>(calloc(1, check.want.len));
    if (check.want.offset < size)
      memcpy(bytes, tree + check.want.offset,
             std::min(check.want.len, size - size_t(check.want.offset)));
    verity_give(v, check.want.offset, bytes);
  }
  // Nobody finds the data of this root by chance.
  Require(outcome == VERITY_DIFFERS || len == 0);
  verity_check_end(&check);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const uint8_t root[VERITY_MAX_ROOT] = {1, 2, 3};
  uint8_t superblock[VERITY_SUPERBLOCK_LEN] = {};
  char why[VERITY_WHY_LEN] = "";
  memcpy(superblock, data, std::min(size, sizeof superblock));
  for (size_t root_len : {size_t(32), size_t(64)}) {
    verity *v = nullptr;
    if (verity_new(superblock, 0, root, root_len, &v, why) < 0) {
      Require(*why);
      continue;
    }
    const uint64_t block = verity_block_size(v), end = verity_data_size(v);
    Require(end > 0 && end % block == 0 && end <= INT64_MAX);
    Require(verity_tree_end(v) <= INT64_MAX);
    std::vector<uint8_t> some(block, 0);
    CheckSome(v, data, size, 0, nullptr, std::min(end, 4 * block));
    memcpy(some.data(), data, std::min(size, some.size()));
    CheckSome(v, data, size, end / block / 2 * block, some.data(), block);
    CheckSome(v, data, size, end - block, some.data(), block);
    verity_free(v);
  }
  return 0;
}
