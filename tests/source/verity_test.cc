// Hash trees, compared with those of veritysetup(8).
#include "source/verity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/verity_tree.h"

namespace {

using Bytes = std::vector<uint8_t>;

struct Free {
  void operator()(verity *v) const { verity_free(v); }
};
using Verity = std::unique_ptr<verity, Free>;

Bytes ReadFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

void WriteFile(const std::string &path, const Bytes &bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char *>(bytes.data()),
             std::streamsize(bytes.size()));
}

Bytes RandomBytes(uint64_t size) {
  TempDir dir;
  return WriteRandomFile(dir / "bytes", size, 7);
}

struct Checked {
  verity_outcome outcome;
  uint64_t bad = 0;
  unsigned n_wants = 0;
};

// Checks some data, and gives what is wanted of the tree.
Checked Check(verity *v, const Bytes &tree, uint64_t offset, const void *data,
              size_t len) {
  verity_check check;
  Checked checked = {};
  verity_check_begin(&check, v, offset, data, len);
  while ((checked.outcome = verity_check_step(&check)) == VERITY_WANTS) {
    checked.n_wants++;
    EXPECT_LE(check.want.offset + check.want.len, tree.size());
    EXPECT_LE(check.want.offset + check.want.len, verity_tree_end(v));
    uint8_t *bytes = static_cast<uint8_t *>(malloc(check.want.len));
    memcpy(bytes, tree.data() + check.want.offset, check.want.len);
    verity_give(v, check.want.offset, bytes);
  }
  checked.bad = check.bad;
  verity_check_end(&check);
  return checked;
}

Checked CheckAll(verity *v, const Bytes &tree, const Bytes &data) {
  return Check(v, tree, 0, data.data(), data.size());
}

// A file and its tree.
struct Formatted {
  Formatted(Bytes bytes, const std::vector<std::string> &options,
            const std::string &tree_name = "tree")
      : data(std::move(bytes)) {
    WriteFile(dir / "data", data);
    root = FormatVerity(dir / "data", dir / tree_name, options);
    tree = ReadFile(dir / tree_name);
    EXPECT_TRUE(
        VeritySetupVerifies(dir / "data", dir / tree_name, root, options));
  }

  Formatted(uint64_t size, const std::vector<std::string> &options,
            const std::string &tree_name = "tree")
      : Formatted(RandomBytes(size), options, tree_name) {}

  int Make(Verity *out, uint64_t offset = 0) {
    const Bytes root_bytes = FromHex(root);
    verity *v = nullptr;
    why[0] = '\0';
    int r = verity_new(tree.data() + offset, offset, root_bytes.data(),
                       root_bytes.size(), &v, why);
    out->reset(v);
    return r;
  }

  TempDir dir;
  Bytes data, tree;
  std::string root;
  char why[VERITY_WHY_LEN];
};

// ---- Against veritysetup ---------------------------------------------------

struct Shape {
  const char *name;
  uint64_t n_blocks;
  unsigned data_block, hash_block;
  std::vector<std::string> options;
};

class VerityShapeTest : public testing::TestWithParam<Shape> {
protected:
  VerityShapeTest() : f_(Size(), Options()) {}

  uint64_t Size() const { return GetParam().n_blocks * GetParam().data_block; }

  static std::vector<std::string> Options() {
    std::vector<std::string> options = GetParam().options;
    options.push_back("--data-block-size=" +
                      std::to_string(GetParam().data_block));
    options.push_back("--hash-block-size=" +
                      std::to_string(GetParam().hash_block));
    return options;
  }

  Formatted f_;
};

TEST_P(VerityShapeTest, MatchesWhatVeritySetupMade) {
  Verity v;
  ASSERT_EQ(f_.Make(&v), 0) << f_.why;
  EXPECT_EQ(verity_data_size(v.get()), Size());
  EXPECT_EQ(verity_block_size(v.get()), GetParam().data_block);
  EXPECT_EQ(verity_tree_end(v.get()) > VERITY_SUPERBLOCK_LEN, true);
  EXPECT_EQ(CheckAll(v.get(), f_.tree, f_.data).outcome, VERITY_MATCHES);
  // From the back to the front, block by block.
  Verity again;
  ASSERT_EQ(f_.Make(&again), 0);
  const size_t block = GetParam().data_block;
  for (size_t at = f_.data.size(); at > 0; at -= block)
    ASSERT_EQ(
        Check(again.get(), f_.tree, at - block, &f_.data[at - block], block)
            .outcome,
        VERITY_MATCHES)
        << at;
}

TEST_P(VerityShapeTest, FindsTheBlockThatHasAFlippedBit) {
  const size_t block = GetParam().data_block;
  for (size_t at : {size_t(0), f_.data.size() / 2, f_.data.size() - 1}) {
    Verity v;
    ASSERT_EQ(f_.Make(&v), 0);
    Bytes data = f_.data;
    data[at] ^= 0x10;
    const Checked checked = CheckAll(v.get(), f_.tree, data);
    EXPECT_EQ(checked.outcome, VERITY_DIFFERS);
    EXPECT_EQ(checked.bad, at / block);
  }
}

TEST_P(VerityShapeTest, BelievesNoHashBlockThatHasAFlippedBit) {
  const size_t block = GetParam().hash_block;
  for (size_t at = block; at < f_.tree.size();
       at += std::max(block, f_.tree.size() / 40 / block * block)) {
    Verity v;
    ASSERT_EQ(f_.Make(&v), 0);
    Bytes tree = f_.tree;
    // A byte that is a hash's, or what fills the block up.
    tree[at + (at / block % 2 ? 3 : block - 1)] ^= 1;
    EXPECT_EQ(CheckAll(v.get(), tree, f_.data).outcome, VERITY_DIFFERS) << at;
    // It is asked for again, and found right.
    EXPECT_EQ(CheckAll(v.get(), f_.tree, f_.data).outcome, VERITY_MATCHES);
  }
}

TEST_P(VerityShapeTest, BelievesNothingUnderAnotherRoot) {
  f_.root[5] = f_.root[5] == '0' ? '1' : '0';
  Verity v;
  ASSERT_EQ(f_.Make(&v), 0);
  const Checked checked = CheckAll(v.get(), f_.tree, f_.data);
  EXPECT_EQ(checked.outcome, VERITY_DIFFERS);
  EXPECT_EQ(checked.bad, 0u);
}

INSTANTIATE_TEST_SUITE_P(
    , VerityShapeTest,
    testing::Values(
        Shape{"OneBlock", 1, 4096, 4096, {}},
        Shape{"TwoBlocks", 2, 4096, 4096, {}},
        Shape{"AFullHashBlock", 128, 4096, 4096, {}},
        Shape{"OneMore", 129, 4096, 4096, {}},
        Shape{"WithoutSalt", 300, 4096, 4096, {"--salt=-"}},
        Shape{"LongSalt", 300, 4096, 4096, {"--salt=" + std::string(512, 'a')}},
        Shape{"SmallBlocks", 2000, 1024, 1024, {}},
        Shape{"SmallHashBlocks", 600, 4096, 1024, {}},
        Shape{"SmallDataBlocks", 600, 1024, 4096, {}},
        Shape{"ManyLevels", 5000, 512, 512, {}},
        Shape{"LargeHashBlocks", 3000, 512, 65536, {}},
        Shape{"LargeDataBlocks", 5, 65536, 4096, {}},
        Shape{"Sha512", 300, 4096, 4096, {"--hash=sha512"}},
        Shape{"FirstFormat", 300, 4096, 4096, {"--format=0"}}),
    [](const auto &shape) { return shape.param.name; });

TEST(VerityTest, ReadsATreeThatIsAppendedToItsData) {
  const std::string at = "--hash-offset=" + std::to_string(200 * 4096);
  Formatted f(200 * 4096, {at}, "data");
  Verity v;
  ASSERT_EQ(f.Make(&v, 200 * 4096), 0) << f.why;
  EXPECT_EQ(CheckAll(v.get(), f.tree, f.data).outcome, VERITY_MATCHES);
  EXPECT_EQ(verity_tree_end(v.get()), f.tree.size());
}

TEST(VerityTest, ZerosAreCheckedAsBlocksOfZeros) {
  Bytes data(300 * 4096, 0);
  data[200 * 4096] = 1;
  Formatted f(data, {});
  Verity v;
  ASSERT_EQ(f.Make(&v), 0) << f.why;
  EXPECT_EQ(Check(v.get(), f.tree, 0, nullptr, 200 * 4096).outcome,
            VERITY_MATCHES);
  const Checked checked = Check(v.get(), f.tree, 0, nullptr, f.data.size());
  EXPECT_EQ(checked.outcome, VERITY_DIFFERS);
  EXPECT_EQ(checked.bad, 200u);
}

// ---- What is kept ----------------------------------------------------------

TEST(VerityTest, TheTreeIsReadOnceWhileItFits) {
  Formatted f(3000 * 4096, {});
  Verity v;
  ASSERT_EQ(f.Make(&v), 0);
  const Checked first = CheckAll(v.get(), f.tree, f.data);
  EXPECT_EQ(first.outcome, VERITY_MATCHES);
  // 25 hash blocks: three chunks of eight, and a rest.
  EXPECT_EQ(first.n_wants, 4u);
  EXPECT_EQ(CheckAll(v.get(), f.tree, f.data).n_wants, 0u);
}

TEST(VerityTest, WhatDoesNotFitIsReadAgainAndTheUpperLevelsStay) {
  // 8 hashes in a block: the tree has more than is kept.
  Formatted f(65536 * 512, {"--data-block-size=512", "--hash-block-size=512",
                            "--hash=sha512"});
  Verity v;
  ASSERT_EQ(f.Make(&v), 0) << f.why;
  EXPECT_GT(f.tree.size(), size_t(VERITY_MAX_CHUNKS) * VERITY_CHUNK_LEN);
  EXPECT_EQ(CheckAll(v.get(), f.tree, f.data).outcome, VERITY_MATCHES);
  // Of the way from an early block the lower levels were not used for long, and
  // the others, which are those of later blocks as well, were.
  const size_t early = f.data.size() / 16, last = f.data.size() - 512;
  EXPECT_EQ(Check(v.get(), f.tree, last, &f.data[last], 512).n_wants, 0u);
  const Checked again = Check(v.get(), f.tree, early, &f.data[early], 512);
  EXPECT_EQ(again.outcome, VERITY_MATCHES);
  EXPECT_GE(again.n_wants, 1u);
  EXPECT_LE(again.n_wants, 2u); // of six levels
}

// ---- Hostile superblocks ---------------------------------------------------

class VeritySuperblockTest : public testing::Test {
protected:
  VeritySuperblockTest() : f_(300 * 4096, {}) {}

  void Put(size_t at, uint64_t value, unsigned n) {
    for (unsigned i = 0; i < n; i++)
      f_.tree[at + i] = uint8_t(value >> 8 * i);
  }

  // What it says once so many bytes of it are another number.
  int With(size_t at, uint64_t value, unsigned n) {
    const Bytes before = f_.tree;
    Put(at, value, n);
    Verity v;
    int r = f_.Make(&v);
    EXPECT_EQ(r == 0, f_.why[0] == '\0');
    f_.tree = before;
    return r;
  }

  Formatted f_;
};

TEST_F(VeritySuperblockTest, NumbersThatCannotBeAreRefused) {
  EXPECT_EQ(With(0, 'V', 1), -EINVAL);
  EXPECT_EQ(With(8, 2, 4), -EINVAL);  // the version
  EXPECT_EQ(With(12, 2, 4), -EINVAL); // the hash type
  for (size_t block_size : {64, 68}) {
    for (uint32_t n : {0u, 1u, 256u, 4095u, 12288u, 131072u, 0x80000000u})
      EXPECT_EQ(With(block_size, n, 4), -EINVAL) << n;
  }
  EXPECT_EQ(With(72, 0, 8), -EINVAL); // the blocks
  EXPECT_EQ(With(72, UINT64_MAX, 8), -EINVAL);
  EXPECT_EQ(With(72, INT64_MAX / 4096 + 1, 8), -EINVAL);
  EXPECT_EQ(With(80, 257, 2), -EINVAL); // the salt
  EXPECT_EQ(With(80, 65535, 2), -EINVAL);
}

TEST_F(VeritySuperblockTest, ATreeThatReachesPastAnyFileIsRefused) {
  const Bytes root = FromHex(f_.root);
  for (uint64_t offset : {UINT64_MAX, UINT64_MAX - 4096, uint64_t(INT64_MAX)}) {
    verity *made = nullptr;
    EXPECT_EQ(verity_new(f_.tree.data(), offset, root.data(), root.size(),
                         &made, f_.why),
              -EINVAL);
  }
}

TEST_F(VeritySuperblockTest, AHashOfAnotherKindOrLengthIsRefused) {
  memcpy(&f_.tree[32], "md5\0\0\0", 6);
  Verity v;
  EXPECT_EQ(f_.Make(&v), -EINVAL);
  memcpy(&f_.tree[32], "sha512", 6);
  EXPECT_EQ(f_.Make(&v), -EINVAL);
  memset(&f_.tree[32], 'x', 32); // without an end
  EXPECT_EQ(f_.Make(&v), -EINVAL);
}

TEST_F(VeritySuperblockTest, OnlyTheRightSaltMatches) {
  f_.tree[88] ^= 1;
  Verity v;
  ASSERT_EQ(f_.Make(&v), 0);
  EXPECT_EQ(CheckAll(v.get(), f_.tree, f_.data).outcome, VERITY_DIFFERS);
}

} // namespace
