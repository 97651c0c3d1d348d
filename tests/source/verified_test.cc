// A source over one that lies, or not, and its hash tree.
#include "source/verified.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/verity_tree.h"

// Of the sources' allocations the one that takes it to 0 fails; below 1, none.
static int g_allocations_left;

// The linker puts these in the place of malloc(3) and calloc(3) in what is
// linked into the test.
extern "C" {
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);

void *__wrap_malloc(size_t size) {
  return g_allocations_left > 0 && --g_allocations_left == 0
             ? nullptr
             : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size) {
  return g_allocations_left > 0 && --g_allocations_left == 0
             ? nullptr
             : __real_calloc(n, size);
}
}

namespace {

using Bytes = std::vector<uint8_t>;

constexpr uint64_t kBlock = 4096, kBlocks = 1500, kSize = kBlocks * kBlock;

// Bytes in memory as a source, with faults.  It blocks; or it calls back, when
// the test says so.
struct Memory {
  struct source base = {};
  Bytes bytes;
  bool calls_back = false;
  int at_once = 0; // so many starts are DONE
  std::deque<source_read *> pending;
  std::multiset<uint64_t> flips; // bytes that the next reads of them have wrong
  std::set<uint64_t> always;     // and those that all reads have
  std::deque<int> statuses;      // of the next reads, if they fail
  uint64_t zeros_from = 0, zeros_to = 0; // a hole
  Memory *next = nullptr;                // what reopen() finds
  std::atomic<int> n_reads{0}, n_closed{0}, n_forgotten{0};

  void Flip(uint64_t at, char *buf, uint64_t offset, size_t len) {
    if (at >= offset && at - offset < len)
      buf[at - offset] ^= 4;
  }

  int Read(uint64_t offset, void *buf, size_t len) {
    n_reads++;
    EXPECT_LE(offset + len, base.size);
    if (!statuses.empty()) {
      int status = statuses.front();
      statuses.pop_front();
      if (status)
        return status;
    }
    if (offset >= zeros_from && offset + len <= zeros_to)
      return SOURCE_ZEROS;
    memcpy(buf, bytes.data() + offset, len);
    for (auto at = flips.begin(); at != flips.end();) {
      bool here = *at >= offset && *at - offset < len;
      Flip(*at, static_cast<char *>(buf), offset, len);
      at = here ? flips.erase(at) : std::next(at);
    }
    for (uint64_t at : always)
      Flip(at, static_cast<char *>(buf), offset, len);
    return 0;
  }
};

Memory *MemoryOf(struct source *src) { return reinterpret_cast<Memory *>(src); }

int MemoryRead(struct source *src, uint64_t offset, void *buf, size_t len) {
  return MemoryOf(src)->Read(offset, buf, len);
}

source_outcome MemoryStart(struct source *src, source_read *r) {
  Memory *m = MemoryOf(src);
  if (m->at_once > 0) {
    m->at_once--;
    r->status = m->Read(r->offset, r->buf, r->len);
    return SOURCE_DONE;
  }
  m->pending.push_back(r);
  return SOURCE_PENDING;
}

int MemoryReopen(struct source *src, struct source **out) {
  Memory *next = MemoryOf(src)->next;
  *out = next ? &next->base : nullptr;
  MemoryOf(src)->next = nullptr;
  return 0;
}

void MemoryIdentify(struct source *src, source_identity *out) {
  out->len = 1;
  out->bytes[0] = MemoryOf(src)->bytes[0];
}

bool MemoryResume(struct source *src, const source_identity *id) {
  return id->len == 1 && id->bytes[0] == MemoryOf(src)->bytes[0];
}

void MemoryClose(struct source *src) {
  EXPECT_TRUE(MemoryOf(src)->pending.empty());
  MemoryOf(src)->n_closed++;
}

source_ops MakeOps(decltype(source_ops::start) start,
                   decltype(source_ops::read) read) {
  source_ops ops = {};
  ops.kind = "memory";
  ops.start = start;
  ops.read = read;
  ops.reopen = MemoryReopen;
  ops.identify = MemoryIdentify;
  ops.resume = MemoryResume;
  ops.forget = [](struct source *src) { MemoryOf(src)->n_forgotten++; };
  ops.close = MemoryClose;
  return ops;
}

const source_ops kBlocking = MakeOps(nullptr, MemoryRead);
const source_ops kCalling = MakeOps(MemoryStart, nullptr);

void Set(Memory *m, const Bytes &bytes, bool calls_back) {
  m->bytes = bytes;
  m->calls_back = calls_back;
  m->base.ops = calls_back ? &kCalling : &kBlocking;
  m->base.size = bytes.size();
}

Bytes ReadFile(const std::string &path) {
  std::ifstream in(path, std::ios::binary);
  return Bytes(std::istreambuf_iterator<char>(in), {});
}

// Made once: an image, and what veritysetup says of it.
struct Image {
  Image() {
    data = WriteRandomFile(dir / "data", kSize, 3);
    std::fill(data.begin() + 600 * kBlock, data.begin() + 700 * kBlock, 0);
    std::ofstream(dir / "data", std::ios::binary)
        .write(reinterpret_cast<char *>(data.data()), kSize);
    root = FormatVerity(dir / "data", dir / "tree");
    tree = ReadFile(dir / "tree");
    FormatVerity(dir / "data", dir / "data",
                 {"--hash-offset=" + std::to_string(kSize)});
    both = ReadFile(dir / "data");
    root_of_both = FormatVerity(
        dir / "data", dir / "again",
        {"--data-blocks=" + std::to_string(kBlocks), "--salt=" + SaltOf(both)});
  }

  // Of the superblock behind the data.
  static std::string SaltOf(const Bytes &bytes) {
    std::string hex;
    char digits[3];
    for (size_t i = 0; i < bytes[kSize + 80]; i++) {
      snprintf(digits, sizeof digits, "%02x", bytes[kSize + 88 + i]);
      hex += digits;
    }
    return hex;
  }

  TempDir dir;
  Bytes data, tree, both;
  std::string root, root_of_both;
};

const Image &TheImage() {
  static const Image image;
  return image;
}

struct Corruption {
  std::string name;
  uint64_t offset, len;
};
std::vector<Corruption> g_corruptions;

class VerifiedTest : public testing::TestWithParam<bool> {
protected:
  VerifiedTest() {
    g_corruptions.clear();
    Set(&image_, TheImage().data, false);
    Set(&tree_, TheImage().tree, false);
    options_.name = "d";
    SetRoot(TheImage().root);
    options_.tree = &tree_.base;
    options_.corrupt = [](const char *name, uint64_t offset, uint64_t len) {
      g_corruptions.push_back({name, offset, len});
    };
  }

  ~VerifiedTest() override { CloseSource(); }

  void CloseSource() {
    if (source_) {
      source_->ops->close(source_);
      EXPECT_EQ(image_.n_closed + next_.n_closed, opened_next_ ? 2 : 1);
      EXPECT_EQ(tree_.n_closed, options_.tree ? 1 : 0);
    }
    source_ = nullptr;
  }

  void SetRoot(const std::string &hex) {
    const std::vector<unsigned char> root = FromHex(hex);
    options_.root_len = root.size();
    memcpy(options_.root, root.data(), root.size());
  }

  int Open() {
    source_fault fault = {};
    int r = verified_source_open(&options_, &image_.base, &source_, &fault);
    words_ = fault.text;
    return r;
  }

  // Opens it over sources that call back: what is read before is called for at
  // once.
  void OpenCalling() {
    Set(&image_, image_.bytes, true);
    Set(&tree_, tree_.bytes, true);
    (options_.tree ? tree_ : image_).at_once = 1;
    ASSERT_EQ(Open(), 0) << words_;
  }

  struct Read {
    source_read read = {}; // first
    int n_done = 0;
    Bytes buf;
  };

  source_outcome Start(Read *read, uint64_t offset, size_t len) {
    read->buf.assign(len, 0xee);
    read->read.offset = offset;
    read->read.buf = read->buf.data();
    read->read.len = len;
    read->read.done = [](source_read *r) {
      reinterpret_cast<Read *>(r)->n_done++;
    };
    return source_start(source_, &read->read);
  }

  // Answers the oldest read.
  void Answer(Memory *m) {
    ASSERT_FALSE(m->pending.empty());
    source_read *r = m->pending.front();
    m->pending.pop_front();
    r->status = m->Read(r->offset, r->buf, r->len);
    r->sent_ns = m == &image_ ? 7 : 1;
    r->first_ns = m == &image_ ? 8 : 2;
    r->done(r);
  }

  // And all that come, in turn, until nobody asks any more.
  void AnswerAll() {
    while (!image_.pending.empty() || !tree_.pending.empty())
      Answer(image_.pending.empty() ? &tree_ : &image_);
  }

  // A read to its end, of either kind of source.
  int ReadAll(uint64_t offset, size_t len, Bytes *out) {
    if (source_->ops->read) {
      out->assign(len, 0xee);
      return source_read_blocking(source_, offset, out->data(), len);
    }
    Read read;
    if (Start(&read, offset, len) == SOURCE_PENDING) {
      AnswerAll();
      EXPECT_EQ(read.n_done, 1);
    }
    *out = read.buf;
    return read.read.status;
  }

  static bool IsRight(const Bytes &bytes, uint64_t offset) {
    return memcmp(bytes.data(), TheImage().data.data() + offset,
                  bytes.size()) == 0;
  }

  void ExpectRight(uint64_t offset, size_t len) {
    Bytes bytes;
    EXPECT_EQ(ReadAll(offset, len, &bytes), 0);
    EXPECT_TRUE(IsRight(bytes, offset)) << offset << "+" << len;
  }

  void OpenEither() {
    if (GetParam())
      OpenCalling();
    else
      ASSERT_EQ(Open(), 0) << words_;
  }

  Memory image_, tree_, next_;
  bool opened_next_ = false;
  verified_options options_ = {};
  struct source *source_ = nullptr;
  std::string words_;
};

INSTANTIATE_TEST_SUITE_P(, VerifiedTest, testing::Bool(), [](const auto &how) {
  return how.param ? "Calling" : "Blocking";
});

TEST_P(VerifiedTest, WhatItIsToForgetTheSourceBelowForgets) {
  OpenEither();
  source_forget(source_);
  EXPECT_EQ(image_.n_forgotten, 1);
}

TEST_P(VerifiedTest, ReadsWhatMatches) {
  OpenEither();
  EXPECT_EQ(source_->size, kSize);
  ExpectRight(0, kBlock);
  ExpectRight(128 * kBlock, 128 * kBlock);
  ExpectRight(kSize - 600 * kBlock, 600 * kBlock);
  ExpectRight(0, kSize);
  EXPECT_TRUE(g_corruptions.empty());
}

TEST_P(VerifiedTest, OddEndsAreReadAsWholeBlocks) {
  OpenEither();
  ExpectRight(1, 1);
  ExpectRight(kBlock - 1, 2);
  ExpectRight(5 * kBlock + 7, 300 * kBlock);
  ExpectRight(kSize - 5, 5);
}

TEST_P(VerifiedTest, ABlockThatNeverMatchesIsNotDelivered) {
  OpenEither();
  image_.always = {77 * kBlock + 9};
  Bytes bytes;
  EXPECT_EQ(ReadAll(64 * kBlock, 64 * kBlock, &bytes), -EBADMSG);
  // Beside it nothing is wrong.
  ExpectRight(64 * kBlock, 13 * kBlock);
  ExpectRight(78 * kBlock, 50 * kBlock);
  // Of a block that is wrong no byte is right.
  EXPECT_EQ(ReadAll(77 * kBlock + 100, 1, &bytes), -EBADMSG);
  EXPECT_EQ(bytes[0], 0xee);
  ASSERT_FALSE(g_corruptions.empty());
  EXPECT_EQ(g_corruptions[0].name, "d");
  EXPECT_EQ(g_corruptions[0].offset, 77 * kBlock);
  EXPECT_EQ(g_corruptions[0].len, kBlock);
}

TEST_P(VerifiedTest, ATreeThatLiesIsNotBelievedAndIsReadAgain) {
  OpenEither();
  for (uint64_t at : {kBlock + 5, 2 * kBlock + 5, 5 * kBlock + 5}) {
    tree_.always = {at};
    Bytes bytes;
    EXPECT_EQ(ReadAll(0, kSize, &bytes), -EBADMSG) << at;
    tree_.always.clear();
    ExpectRight(0, kSize);
    CloseSource();
    image_.n_closed = tree_.n_closed = 0;
    OpenEither();
  }
}

TEST_P(VerifiedTest, ARangeOfZerosIsProvenToo) {
  image_.zeros_from = 600 * kBlock;
  image_.zeros_to = 700 * kBlock;
  OpenEither();
  Bytes bytes;
  EXPECT_EQ(ReadAll(610 * kBlock, 50 * kBlock, &bytes), SOURCE_ZEROS);
  EXPECT_EQ(ReadAll(610 * kBlock + 5, 9, &bytes), SOURCE_ZEROS);
  // A lie: there are other bytes.
  image_.zeros_to = 702 * kBlock;
  EXPECT_EQ(ReadAll(690 * kBlock, 12 * kBlock, &bytes), -EBADMSG);
}

TEST_P(VerifiedTest, AReadThatFailsFailsAndSoDoesOneOfTheTree) {
  OpenEither();
  image_.statuses = {-ETIMEDOUT};
  Bytes bytes;
  EXPECT_EQ(ReadAll(0, kBlock, &bytes), -ETIMEDOUT);
  tree_.statuses = {-ECONNRESET};
  EXPECT_EQ(ReadAll(1400 * kBlock, kBlock, &bytes), -ECONNRESET);
  ExpectRight(0, kBlock);
}

TEST_P(VerifiedTest, ATreeInTheImageItselfIsNotServed) {
  Set(&image_, TheImage().both, false);
  options_.tree = nullptr;
  options_.tree_offset = kSize;
  SetRoot(TheImage().root_of_both);
  OpenEither();
  EXPECT_EQ(source_->size, kSize);
  ExpectRight(0, kSize);
  ExpectRight(kSize - 1, 1);
}

TEST_P(VerifiedTest, ASuccessorIsProvenByTheSameTree) {
  OpenEither();
  Set(&next_, TheImage().data, GetParam());
  image_.next = &next_;
  struct source *fresh = nullptr;
  ASSERT_EQ(source_->ops->reopen(source_, &fresh), 0);
  ASSERT_NE(fresh, nullptr);
  opened_next_ = true;
  source_->ops->close(source_);
  source_ = fresh;
  next_.always = {5};
  Bytes bytes(kBlock);
  source_read read = {};
  read.len = kBlock;
  read.buf = bytes.data();
  read.done = [](source_read *) {};
  if (GetParam()) {
    ASSERT_EQ(source_start(source_, &read), SOURCE_PENDING);
    Answer(&next_);
    AnswerAll();
    EXPECT_EQ(read.status, -EBADMSG);
  } else {
    EXPECT_EQ(source_read_blocking(source_, 0, bytes.data(), kBlock), -EBADMSG);
  }
}

TEST_P(VerifiedTest, ASuccessorOfAnotherSizeIsNone) {
  OpenEither();
  Set(&next_, Bytes(kSize + kBlock), GetParam());
  image_.next = &next_;
  struct source *fresh = nullptr;
  EXPECT_EQ(source_->ops->reopen(source_, &fresh), -EBADMSG);
  EXPECT_EQ(fresh, nullptr);
  EXPECT_EQ(next_.n_closed, 1);
  opened_next_ = true;
}

TEST_P(VerifiedTest, ATreeThatIsReplacedIsReadAnew) {
  OpenEither();
  Memory fresh;
  Set(&fresh, TheImage().tree, GetParam());
  tree_.next = &fresh;
  struct source *none = nullptr;
  EXPECT_EQ(source_->ops->reopen(source_, &none), 0);
  EXPECT_EQ(none, nullptr);
  EXPECT_EQ(tree_.n_closed, 1);
  if (!GetParam())
    ExpectRight(0, kSize);
  source_->ops->close(source_);
  source_ = nullptr;
  EXPECT_EQ(fresh.n_closed, 1);
}

TEST_P(VerifiedTest, WhatWasReadUnderAnotherRootIsNotResumed) {
  OpenEither();
  source_identity id, other;
  source_identify(source_, &id);
  EXPECT_GT(id.len, 1u);
  EXPECT_TRUE(source_resume(source_, &id));
  other = id;
  other.bytes[other.len - 1] ^= 1;
  EXPECT_FALSE(source_resume(source_, &other));
  // Whatever it is that was proven.
  image_.bytes[0] ^= 1;
  EXPECT_TRUE(source_resume(source_, &id));
  image_.bytes[0] ^= 1;
  EXPECT_EQ(id.content_len, 32u + 8);
  // Nor what nobody verified, on whatever word.
  other = {};
  source_identity_add(&other, "cachet", 7);
  source_identity_add(&other, id.bytes + id.len - id.content_len,
                      id.content_len);
  EXPECT_FALSE(source_resume(source_, &other));
  source_identify(&image_.base, &other);
  EXPECT_FALSE(source_resume(source_, &other));
}

// ---- What fails in turn ----------------------------------------------------

// Each allocation of the sources', and then the next one, until none fails.
TEST_P(VerifiedTest, AnAllocationThatFailsIsAnErrorAndTheNextReadIsRight) {
  bool failed = true;
  int n = 1;
  for (; failed; n++) {
    Set(&image_, TheImage().data, GetParam());
    Set(&tree_, TheImage().tree, GetParam());
    image_.n_closed = tree_.n_closed = 0;
    tree_.at_once = 1;
    g_allocations_left = n;
    int r = Open();
    Bytes bytes;
    if (r == 0)
      r = ReadAll(5 * kBlock + 7, 300 * kBlock, &bytes);
    failed = g_allocations_left == 0;
    g_allocations_left = 0;
    EXPECT_EQ(r, failed ? -ENOMEM : 0) << n;
    if (source_)
      ExpectRight(5 * kBlock + 7, 300 * kBlock);
    else
      EXPECT_EQ(tree_.n_closed, 1);
    CloseSource();
  }
  EXPECT_GE(n, 8);
}

TEST_P(VerifiedTest, EachReadThatFailsIsAnErrorAndTheNextReadIsRight) {
  OpenEither();
  for (Memory *m : {&image_, &tree_}) {
    bool failed = true;
    for (size_t n = 0; failed; n++) {
      CloseSource();
      image_.n_closed = tree_.n_closed = 0;
      OpenEither();
      m->statuses.assign(n, 0);
      m->statuses.push_back(-ECONNRESET);
      Bytes bytes;
      const int r = ReadAll(0, kSize, &bytes);
      failed = m->statuses.empty();
      m->statuses.clear();
      EXPECT_EQ(r, failed ? -ECONNRESET : 0) << n;
      ExpectRight(0, kSize);
    }
  }
}

// ---- By the hashes of the blocks themselves --------------------------------

class ByDigestsTest : public VerifiedTest {
protected:
  // Of the image as it is; the end of which is no whole block.
  void OpenByDigests() {
    Bytes data = TheImage().data;
    data.resize(kSize - 100);
    Set(&image_, data, GetParam());
    digests *d = nullptr;
    ASSERT_EQ(digests_new(data.size(), &d), 0);
    ASSERT_TRUE(digests_add(d, data.data(), data.size()));
    options_.tree = nullptr;
    ASSERT_EQ(verified_source_by_digests(&options_, d, &image_.base, &source_),
              0);
  }
};

INSTANTIATE_TEST_SUITE_P(, ByDigestsTest, testing::Bool(), [](const auto &how) {
  return how.param ? "Calling" : "Blocking";
});

TEST_P(ByDigestsTest, ReadsWhatMatchesUpToTheEnd) {
  OpenByDigests();
  EXPECT_EQ(source_->size, kSize - 100);
  ExpectRight(0, kBlock);
  ExpectRight(5 * kBlock + 7, 300 * kBlock);
  ExpectRight(kSize - 105, 5);
  ExpectRight(0, kSize - 100);
}

TEST_P(ByDigestsTest, ABlockThatNeverMatchesIsNotDelivered) {
  OpenByDigests();
  image_.always = {77 * kBlock + 9, kSize - 101};
  Bytes bytes;
  EXPECT_EQ(ReadAll(64 * kBlock, 64 * kBlock, &bytes), -EBADMSG);
  ExpectRight(64 * kBlock, 13 * kBlock);
  EXPECT_EQ(ReadAll(77 * kBlock + 100, 1, &bytes), -EBADMSG);
  EXPECT_EQ(bytes[0], 0xee);
  EXPECT_EQ(ReadAll(kSize - 110, 1, &bytes), -EBADMSG);
  ASSERT_FALSE(g_corruptions.empty());
  EXPECT_EQ(g_corruptions[0].offset, 77 * kBlock);
}

TEST_P(ByDigestsTest, ARangeOfZerosIsProvenToo) {
  OpenByDigests();
  image_.zeros_from = 600 * kBlock;
  image_.zeros_to = 702 * kBlock;
  Bytes bytes;
  EXPECT_EQ(ReadAll(610 * kBlock, 50 * kBlock, &bytes), SOURCE_ZEROS);
  EXPECT_EQ(ReadAll(690 * kBlock, 12 * kBlock, &bytes), -EBADMSG);
}

TEST_P(ByDigestsTest, ASuccessorHasTheSameSize) {
  OpenByDigests();
  Set(&next_, Bytes(kSize), GetParam());
  image_.next = &next_;
  struct source *fresh = nullptr;
  EXPECT_EQ(source_->ops->reopen(source_, &fresh), -EBADMSG);
  EXPECT_EQ(next_.n_closed, 1);
  opened_next_ = true;
}

// ---- Opening ---------------------------------------------------------------

TEST_P(VerifiedTest, WhatIsNoTreeOfThatImageIsRefused) {
  struct {
    uint64_t image_size, tree_size;
    uint64_t flip;
  } const cases[] = {{kSize - kBlock, TheImage().tree.size(), UINT64_MAX},
                     {kSize + 1, TheImage().tree.size(), UINT64_MAX},
                     {kSize, TheImage().tree.size() - 1, UINT64_MAX},
                     {kSize, 511, UINT64_MAX},
                     {kSize, 0, UINT64_MAX},
                     {kSize, TheImage().tree.size(), 0},
                     {kSize, TheImage().tree.size(), 72}};
  for (const auto &c : cases) {
    Bytes data = TheImage().data, tree = TheImage().tree;
    data.resize(c.image_size);
    tree.resize(c.tree_size);
    if (c.flip < tree.size())
      tree[c.flip] ^= 1;
    Set(&image_, data, GetParam());
    Set(&tree_, tree, GetParam());
    tree_.n_closed = 0;
    tree_.at_once = 1;
    EXPECT_EQ(Open(), -EBADMSG);
    EXPECT_NE(words_.find("hash tree"), std::string::npos) << words_;
    EXPECT_EQ(tree_.n_closed, 1);
    EXPECT_EQ(image_.n_closed, 0);
  }
}

TEST_P(VerifiedTest, ATreeThatCannotBeReadIsAnError) {
  Set(&tree_, TheImage().tree, GetParam());
  tree_.at_once = 1;
  tree_.statuses = {-EACCES};
  EXPECT_EQ(Open(), -EACCES);
  EXPECT_EQ(tree_.n_closed, 1);
}

// ---- Over a source that blocks ---------------------------------------------

using BlockingTest = VerifiedTest;

TEST_F(BlockingTest, WhatIsWrongOnceIsReadAgain) {
  ASSERT_EQ(Open(), 0);
  image_.flips = {9};
  ExpectRight(0, 10 * kBlock);
  EXPECT_EQ(g_corruptions.size(), 1u);
}

TEST_F(BlockingTest, ManyThreadsReadAtOnce) {
  ASSERT_EQ(Open(), 0);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++)
    threads.emplace_back([this, t] {
      for (uint64_t i = 0; i < 200; i++)
        ExpectRight((i * 97 + uint64_t(t) * 31) % (kBlocks - 8) * kBlock,
                    8 * kBlock);
    });
  for (std::thread &thread : threads)
    thread.join();
}

// ---- Over one that calls back ----------------------------------------------

using CallingTest = VerifiedTest;

TEST_F(CallingTest, WhatIsAskedOfTheReadIsAskedBelowAndItsTimesAreHandedOn) {
  OpenCalling();
  Read read;
  read.read.deadline_ms = 12345;
  read.read.anew = true;
  ASSERT_EQ(Start(&read, 5, kBlock), SOURCE_PENDING);
  EXPECT_EQ(image_.pending[0]->deadline_ms, 12345u);
  EXPECT_TRUE(image_.pending[0]->anew);
  Answer(&image_);
  EXPECT_EQ(tree_.pending[0]->deadline_ms, 12345u);
  EXPECT_TRUE(tree_.pending[0]->anew);
  AnswerAll();
  EXPECT_EQ(read.read.status, 0);
  EXPECT_EQ(read.read.sent_ns, 7u);
  EXPECT_EQ(read.read.first_ns, 8u);
}

TEST_F(CallingTest, OneReadOfTheTreeServesAllThatWaitForIt) {
  OpenCalling();
  Read reads[3];
  for (Read &read : reads) {
    EXPECT_EQ(Start(&read, 0, 4 * kBlock), SOURCE_PENDING);
    Answer(&image_);
  }
  EXPECT_EQ(tree_.pending.size(), 1u);
  Answer(&tree_);
  AnswerAll();
  for (Read &read : reads) {
    EXPECT_EQ(read.n_done, 1);
    EXPECT_EQ(read.read.status, 0);
    EXPECT_TRUE(IsRight(read.buf, 0));
  }
}

TEST_F(CallingTest, AReadOfTheTreeThatFailsFailsAllThatWaitForIt) {
  OpenCalling();
  Read reads[3];
  for (Read &read : reads) {
    Start(&read, 0, 4 * kBlock);
    Answer(&image_);
  }
  tree_.statuses = {-ETIMEDOUT};
  Answer(&tree_);
  for (Read &read : reads) {
    EXPECT_EQ(read.n_done, 1);
    EXPECT_EQ(read.read.status, -ETIMEDOUT);
  }
  ExpectRight(0, kBlock); // it is asked for anew
}

// The time of a load is that of whoever began it.
TEST_F(CallingTest, WhoHasMoreTimeDoesNotFailByTheTimeOfAnother) {
  OpenCalling();
  Read first, same, longer, longest;
  first.read.deadline_ms = same.read.deadline_ms = 100;
  longer.read.deadline_ms = 200;
  int i = 0;
  for (Read *r : {&first, &same, &longer, &longest})
    ASSERT_EQ(Start(r, uint64_t(i++) * kBlock, kBlock), SOURCE_PENDING);
  while (!image_.pending.empty())
    Answer(&image_);
  ASSERT_EQ(tree_.pending.size(), 1u);
  EXPECT_EQ(tree_.pending[0]->deadline_ms, 100u);
  tree_.statuses = {-ETIMEDOUT};
  Answer(&tree_);
  for (Read *r : {&first, &same}) {
    EXPECT_EQ(r->n_done, 1);
    EXPECT_EQ(r->read.status, -ETIMEDOUT);
  }
  ASSERT_EQ(tree_.pending.size(), 1u); // one again, for the two
  EXPECT_EQ(tree_.pending[0]->deadline_ms, 200u);
  AnswerAll();
  for (Read *r : {&longer, &longest}) {
    EXPECT_EQ(r->n_done, 1);
    EXPECT_EQ(r->read.status, 0);
    EXPECT_TRUE(IsRight(r->buf, r->read.offset));
  }
}

TEST_F(CallingTest, WhoHasLessTimeDoesNotWaitForTheLoadOfAnother) {
  OpenCalling();
  Read longest, longer, first;
  longer.read.deadline_ms = 200;
  first.read.deadline_ms = 100;
  for (Read *r : {&longest, &longer, &first}) {
    ASSERT_EQ(Start(r, 0, kBlock), SOURCE_PENDING);
    Answer(&image_);
  }
  ASSERT_EQ(tree_.pending.size(), 3u);
  EXPECT_EQ(tree_.pending[1]->deadline_ms, 200u);
  EXPECT_EQ(tree_.pending[2]->deadline_ms, 100u);
  AnswerAll();
  for (Read *r : {&longest, &longer, &first})
    EXPECT_EQ(r->read.status, 0);
}

TEST_F(CallingTest, WhatIsThereAtOnceIsProvenAtOnce) {
  OpenCalling();
  image_.at_once = tree_.at_once = 100;
  Read read;
  EXPECT_EQ(Start(&read, 0, kBlock), SOURCE_DONE);
  EXPECT_EQ(read.read.status, 0);
  EXPECT_TRUE(IsRight(read.buf, 0));
  image_.always = {3 * kBlock};
  EXPECT_EQ(Start(&read, 3 * kBlock, kBlock), SOURCE_DONE);
  EXPECT_EQ(read.read.status, -EBADMSG);
  EXPECT_EQ(read.n_done, 0);
}

TEST_F(CallingTest, WhoNeedsAnotherPartOfTheTreeDoesNotWait) {
  OpenCalling();
  Read first, second;
  Start(&first, 1499 * kBlock, kBlock);
  Answer(&image_);
  ASSERT_EQ(tree_.pending.size(), 1u);
  tree_.at_once = 100;
  Start(&second, 0, kBlock);
  Answer(&image_);
  EXPECT_EQ(second.n_done, 1);
  EXPECT_TRUE(IsRight(second.buf, 0));
  EXPECT_EQ(first.n_done, 0);
  AnswerAll();
  EXPECT_EQ(first.n_done, 1);
  EXPECT_TRUE(IsRight(first.buf, 1499 * kBlock));
}

TEST_F(CallingTest, ItMayBeClosedByTheEndOfItsLastRead) {
  OpenCalling();
  struct Closing {
    source_read read = {};
    struct source *source;
    Bytes buf = Bytes(kBlock);
  } closing;
  closing.source = source_;
  closing.read.buf = closing.buf.data();
  closing.read.len = kBlock;
  closing.read.done = [](source_read *r) {
    struct source *src = reinterpret_cast<Closing *>(r)->source;
    src->ops->close(src);
  };
  source_start(source_, &closing.read);
  source_ = nullptr;
  AnswerAll();
  EXPECT_EQ(closing.read.status, 0);
  EXPECT_EQ(image_.n_closed, 1);
  EXPECT_EQ(tree_.n_closed, 1);
}

} // namespace
