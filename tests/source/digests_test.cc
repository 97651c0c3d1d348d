// Hashes of a content, as a whole and block by block.
#include "source/digests.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

namespace {

using Bytes = std::vector<uint8_t>;

struct Free {
  void operator()(digests *d) const { digests_free(d); }
};
using Digests = std::unique_ptr<digests, Free>;

Bytes RandomBytes(size_t size) {
  std::minstd_rand rng(5);
  Bytes bytes(size);
  for (uint8_t &b : bytes)
    b = uint8_t(rng() >> 8);
  return bytes;
}

// Of all of the bytes, added by so many at a time.
Digests Of(const Bytes &bytes, size_t step) {
  digests *d = nullptr;
  EXPECT_EQ(digests_new(bytes.size(), &d), 0);
  for (size_t at = 0; at < bytes.size(); at += step)
    EXPECT_TRUE(digests_add(d, &bytes[at], std::min(step, bytes.size() - at)));
  uint8_t hash[DIGESTS_LEN], expected[DIGESTS_LEN];
  EXPECT_TRUE(digests_end(d, hash));
  EVP_Digest(bytes.data(), bytes.size(), expected, nullptr, EVP_sha256(),
             nullptr);
  EXPECT_EQ(memcmp(hash, expected, sizeof hash), 0);
  return Digests(d);
}

TEST(DigestsTest, TheWholeHasTheHashThatOpenSslGivesIt) {
  for (size_t size : {1, 4095, 4096, 4097, 100000})
    Of(RandomBytes(size), 8192);
  Of({}, 4096);
}

TEST(DigestsTest, ABlockThatDiffersIsFound) {
  Bytes bytes = RandomBytes(100000); // the last block is short
  const Digests d = Of(bytes, 4096);
  EXPECT_EQ(digests_block_size(d.get()), 4096u);
  uint64_t bad = 7;
  EXPECT_EQ(digests_check(d.get(), 0, bytes.data(), bytes.size(), &bad), 0);
  EXPECT_EQ(digests_check(d.get(), 8192, &bytes[8192], 4096, &bad), 0);
  EXPECT_EQ(digests_check(d.get(), 98304, &bytes[98304], 1696, &bad), 0);
  for (size_t at : {0, 4095, 4096, 50000, 99999}) {
    bytes[at] ^= 1;
    EXPECT_EQ(digests_check(d.get(), 0, bytes.data(), bytes.size(), &bad),
              -EBADMSG);
    EXPECT_EQ(bad, at / 4096 * 4096);
    bytes[at] ^= 1;
  }
  EXPECT_EQ(digests_check(d.get(), 0, &bytes[4096], 4096, &bad), -EBADMSG)
      << "it is in another place";
}

TEST(DigestsTest, ZerosAreComparedAsZeros) {
  Bytes bytes(5 * 4096 + 10, 0);
  bytes[4 * 4096] = 1;
  const Digests d = Of(bytes, 4096);
  uint64_t bad = 0;
  EXPECT_EQ(digests_check(d.get(), 0, nullptr, 4 * 4096, &bad), 0);
  EXPECT_EQ(digests_check(d.get(), 5 * 4096, nullptr, 10, &bad), 0);
  EXPECT_EQ(digests_check(d.get(), 0, nullptr, bytes.size(), &bad), -EBADMSG);
  EXPECT_EQ(bad, 4u * 4096);
}

TEST(DigestsTest, TheListIsBounded) {
  digests *d = nullptr;
  ASSERT_EQ(digests_new(UINT64_C(2) << 30, &d), 0);
  EXPECT_EQ(digests_block_size(d), 4096u);
  digests_free(d);
  ASSERT_EQ(digests_new((UINT64_C(2) << 30) + 1, &d), 0);
  EXPECT_EQ(digests_block_size(d), 8192u);
  digests_free(d);
  ASSERT_EQ(digests_new(UINT64_C(256) << 30, &d), 0);
  EXPECT_EQ(digests_block_size(d), unsigned(DIGESTS_MAX_BLOCK));
  digests_free(d);
  EXPECT_EQ(digests_new((UINT64_C(256) << 30) + 1, &d), -EFBIG);
  EXPECT_EQ(digests_new(UINT64_MAX, &d), -EFBIG);
}

} // namespace
