// Handles without a daemon: over a file, and over a function.
#include "cache/mirror.h"
#include "tests/client/handle.h"
#include "tests/support/quiet_fork.h"

#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace {

constexpr size_t kPage = 4096;

cachet_options Cache(uint64_t size) {
  cachet_options o = Options();
  o.cache_size = size;
  return o;
}

// ---- Opening ----------------------------------------------------------------

cachet_status OpenError(const std::string &uri, std::string *message) {
  cachet *c = nullptr;
  cachet_error err = {};
  cachet_status status = cachet_open(uri.c_str(), nullptr, &c, &err);
  EXPECT_EQ(c, nullptr);
  EXPECT_EQ(err.code, status);
  *message = err.message;
  return status;
}

TEST(OpenTest, AFileThatIsNotThereIsNoImage) {
  std::string message;
  EXPECT_EQ(OpenError("no/such.img", &message), CACHET_E_NOIMAGE);
  EXPECT_EQ(message, "image \"no/such.img\": open: No such file or directory");
}

TEST(OpenTest, ADirectoryIsAnInvalidImage) {
  std::string message;
  EXPECT_EQ(OpenError("/tmp", &message), CACHET_E_INVAL);
  EXPECT_EQ(message, "image \"/tmp\": open: Is a directory");
}

TEST(OpenTest, AUriIsDecodedAndAPathIsNot) {
  TempDir dir;
  dir.Write("a%20b", Content(10));
  dir.Write("a b", Content(20));
  EXPECT_EQ(cachet_size(Open(dir.File("a%20b"), Options()).get()), 10u);
  EXPECT_EQ(cachet_size(Open("file:" + dir.File("a%20b"), Options()).get()),
            20u);
}

// As under ulimit -v, or valgrind: the address space has no room for the image.
TEST(OpenTest, AnImageLongerThanTheAddressSpaceIsReadAllTheSame) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "the sanitizer itself takes terabytes of address space";
#endif
  TempDir dir;
  std::vector<uint8_t> bytes = Content(64 * kPage);
  std::string path = dir.Write("image", bytes);
  ASSERT_EQ(truncate(path.c_str(), off_t{1} << 40), 0);
  pid_t child = fork();
  if (child == 0) {
    rlimit limit = {off_t{2} << 30, off_t{2} << 30};
    if (setrlimit(RLIMIT_AS, &limit) != 0)
      _exit(2);
    Handle c = Open(path, Options());
    std::vector<uint8_t> buf(bytes.size());
    cachet_slice s;
    uint8_t byte = 1;
    if (!c || cachet_read(c.get(), 0, buf.data(), buf.size()) != CACHET_OK ||
        buf != bytes)
      _exit(3);
    if (cachet_load(c.get(), 5 * kPage, 8, &s) != CACHET_OK ||
        memcmp(s.data, &bytes[5 * kPage], kPage))
      _exit(4);
    cachet_release(c.get(), &s);
    if (cachet_get_u8(c.get(), uint64_t{1} << 39, &byte) != CACHET_OK || byte)
      _exit(5);
    if (cachet_invalidate(c.get(), 0, CACHET_TO_END) != CACHET_OK)
      _exit(6);
    _exit(cachet_get_u8(c.get(), 7, &byte) == CACHET_OK && byte == bytes[7]
              ? 0
              : 7);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// The limit of file sizes falls after the handle was made.
TEST(OpenTest, ALimitOfFileSizesThatComesLaterCostsTheCacheOnly) {
  TempDir dir;
  std::vector<uint8_t> bytes = Content(64 * kPage);
  std::string path = dir.Write("image", bytes);
  pid_t child = fork();
  if (child == 0) {
    Handle c = Open(path, Options());
    rlimit limit = {4096, 4096};
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
      _exit(2);
    std::vector<uint8_t> buf(bytes.size());
    _exit(c && cachet_read(c.get(), 0, buf.data(), buf.size()) == CACHET_OK &&
                  buf == bytes
              ? 0
              : 3);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(OpenTest, BadOptionsAreRefused) {
  TempDir dir;
  std::string path = dir.Write("image", Content(10));
  auto refused = [&](const cachet_options &o) {
    cachet *c = nullptr;
    cachet_error err = {};
    cachet_status status = cachet_open(path.c_str(), &o, &c, &err);
    cachet_close(c);
    return status == CACHET_E_INVAL && *err.message;
  };
  for (uint32_t size : {3u, 4097u, 12288u, 4u << 20, 1u << 31}) {
    cachet_options o = Options();
    o.page_size = size;
    EXPECT_TRUE(refused(o)) << size;
  }
  cachet_options o = Options();
  o.struct_size = 0;
  EXPECT_TRUE(refused(o));
  o = Options();
  o.flags = 1u << 31;
  EXPECT_TRUE(refused(o));
  o = Options();
  o.request_timeout_ms = -2;
  EXPECT_TRUE(refused(o));
}

TEST(OpenTest, AnOlderCallersOptionsLackFieldsAndANewersAddThem) {
  TempDir dir;
  std::string path = dir.Write("image", Content(10));
  struct {
    cachet_options o;
    uint64_t more;
  } newer = {};
  newer.o.struct_size = sizeof newer;
  cachet *c = nullptr;
  ASSERT_EQ(cachet_open(path.c_str(), &newer.o, &c, nullptr), CACHET_OK);
  cachet_close(c);
  newer.more = 1;
  EXPECT_EQ(cachet_open(path.c_str(), &newer.o, &c, nullptr), CACHET_E_INVAL);
  cachet_options older = Options();
  older.struct_size = offsetof(cachet_options, cache_size);
  older.page_size = 8192;
  older.connect_timeout_ms = -77; // not read
  ASSERT_EQ(cachet_open(path.c_str(), &older, &c, nullptr), CACHET_OK);
  EXPECT_EQ(cachet_page_size(c), 8192u);
  cachet_close(c);
}

TEST(OpenTest, AFailedMakeDoesNotClose) {
  MadeSource source(Content(10));
  cachet_source table = source.Table();
  cachet_options o = Options();
  o.page_size = 3;
  cachet *c = nullptr;
  EXPECT_EQ(cachet_make(&table, &o, &c, nullptr), CACHET_E_INVAL);
  table.map = nullptr;
  EXPECT_EQ(cachet_make(&table, nullptr, &c, nullptr), CACHET_E_INVAL);
  table = source.Table();
  table.size = 1ull << 62; // more than can be mapped
  EXPECT_NE(cachet_make(&table, nullptr, &c, nullptr), CACHET_OK);
  EXPECT_EQ(source.n_closes, 0);
}

// ---- make -------------------------------------------------------------------

TEST(MakeTest, ClosesOnceAfterTheLastHandle) {
  MadeSource source(Content(3 * kPage));
  Handle a = source.Make();
  Handle b = Copy(a.get());
  a.reset();
  EXPECT_EQ(source.n_closes, 0);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(b.get(), 5000, &byte), CACHET_OK);
  b.reset();
  EXPECT_EQ(source.n_closes, 1);
  EXPECT_EQ(source.n_maps, source.n_unmaps);
}

TEST(MakeTest, ShortResultsAreContinuedAtThePageBoundary) {
  MadeSource source(Content(10 * kPage + 100));
  source.longest = 3 * kPage - 1;
  Handle c = source.Make();
  std::vector<uint8_t> buf(source.bytes.size());
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK);
  EXPECT_EQ(buf, source.bytes);
}

TEST(MakeTest, LessThanAPageIsAnError) {
  MadeSource source(Content(10 * kPage));
  source.longest = kPage - 1;
  Handle c = source.Make();
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_IO);
  EXPECT_NE(std::string(cachet_errmsg(c.get())).find("read"),
            std::string::npos);
}

TEST(MakeTest, AFailureIsToldAndNotRemembered) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  uint8_t byte = 0x77;
  for (int error : {EIO, ESTALE, ENXIO, 100000}) {
    source.fail_with = error;
    EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_IO) << error;
  }
  EXPECT_EQ(byte, 0x77);
  source.fail_with = 0;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(byte, source.bytes[0]);
}

TEST(MakeTest, AFailureNamesThePageAndIsOfNoOther) {
  MadeSource src(Content(16 * 4096));
  src.longest = 4096;
  src.before_map = [&](uint64_t pos) {
    src.fail_with = pos == 5 * 4096 ? EIO : 0;
  };
  Handle c = src.Make();
  std::vector<uint8_t> buf(16 * 4096);
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_E_IO);
  EXPECT_NE(strstr(cachet_errmsg(c.get()), "read 4096 bytes at 20480: "),
            nullptr)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), src.bytes.data(), 5 * 4096), 0);
  for (uint64_t page = 0; page < 16; page++)
    EXPECT_EQ(cachet_read(c.get(), page * 4096, buf.data(), 4096),
              page == 5 ? CACHET_E_IO : CACHET_OK);
}

TEST(MakeTest, LoadsNoMoreThanPagesSays) {
  MadeSource source(Content(300 * kPage + 9));
  uint64_t mapped = 0;
  Handle c = source.Make(Cache(16 * kPage));
  source.before_map = [&](uint64_t) { mapped++; };
  source.longest = kPage; // one page a call: calls are pages
  std::vector<uint8_t> buf(source.bytes.size());
  for (auto [addr, len] : {std::pair<size_t, size_t>{1, kPage},
                           {100 * kPage, 200 * kPage + 9},
                           {3, source.bytes.size() - 3}}) {
    mapped = 0;
    ASSERT_EQ(cachet_read(c.get(), addr, buf.data(), len), CACHET_OK);
    EXPECT_LE(mapped, cachet_pages(c.get(), addr, len));
    EXPECT_EQ(memcmp(buf.data(), &source.bytes[addr], len), 0);
    mapped = 0;
    cachet_slice s;
    ASSERT_EQ(cachet_map(c.get(), addr, len, &s), CACHET_OK);
    EXPECT_LE(mapped, cachet_pages(c.get(), addr, len));
    EXPECT_EQ(memcmp(s.data, &source.bytes[addr], len), 0);
    cachet_release(c.get(), &s);
  }
}

TEST(MakeTest, CountsHitsAndMissesPageByPage) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  uint8_t buf[4 * kPage];
  ASSERT_EQ(cachet_read(c.get(), 0, buf, 2 * kPage), CACHET_OK);
  EXPECT_EQ(cachet_misses(c.get()), 2u);
  EXPECT_EQ(cachet_hits(c.get()), 0u);
  ASSERT_EQ(cachet_read(c.get(), 0, buf, 4 * kPage), CACHET_OK);
  EXPECT_EQ(cachet_misses(c.get()), 4u);
  EXPECT_EQ(cachet_hits(c.get()), 2u);
  cachet_slice s;
  ASSERT_EQ(cachet_load(c.get(), 0, 1, &s), CACHET_OK);
  EXPECT_EQ(cachet_hits(c.get()), 3u);
}

// ---- Slices -----------------------------------------------------------------

TEST(SliceTest, SurvivesEviction) {
  MadeSource source(Content(400 * kPage));
  Handle c = source.Make(Cache(8 * kPage));
  std::vector<cachet_slice> held(20);
  for (size_t i = 0; i < held.size(); i++)
    ASSERT_EQ(cachet_load(c.get(), i * kPage, 0, &held[i]), CACHET_OK);
  std::vector<uint8_t> buf(source.bytes.size());
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK);
  EXPECT_EQ(buf, source.bytes);
  for (auto &s : held) {
    EXPECT_EQ(memcmp(s.data, &source.bytes[s.offset], s.length), 0);
    cachet_release(c.get(), &s);
  }
}

TEST(SliceTest, SurvivesInvalidationAndTheNextLoadIsFresh) {
  MadeSource source(Content(40 * kPage));
  Handle c = source.Make();
  cachet_slice page, range;
  ASSERT_EQ(cachet_load(c.get(), 0, 0, &page), CACHET_OK);
  ASSERT_EQ(cachet_map(c.get(), 100, 20 * kPage, &range), CACHET_OK);
  std::vector<uint8_t> old = source.bytes;
  source.bytes = Content(40 * kPage, 2);
  ASSERT_EQ(cachet_invalidate(c.get(), 0, CACHET_TO_END), CACHET_OK);
  EXPECT_FALSE(cachet_is_cached(c.get(), 0));
  cachet_slice fresh;
  ASSERT_EQ(cachet_load(c.get(), 0, 0, &fresh), CACHET_OK);
  EXPECT_EQ(memcmp(fresh.data, source.bytes.data(), kPage), 0);
  EXPECT_EQ(memcmp(page.data, old.data(), kPage), 0);
  EXPECT_EQ(memcmp(range.data, &old[100], range.length), 0);
  cachet_release(c.get(), &page);
  cachet_release(c.get(), &range);
  EXPECT_EQ(memcmp(fresh.data, source.bytes.data(), kPage), 0);
  cachet_release(c.get(), &fresh);
}

TEST(SliceTest, AReaderThatStaysOnOnePageSeesAnInvalidation) {
  MadeSource source(Content(kPage));
  Handle c = source.Make();
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 7, &byte), CACHET_OK);
  source.bytes[7] ^= 0xff;
  ASSERT_EQ(cachet_get_u8(c.get(), 7, &byte), CACHET_OK);
  EXPECT_NE(byte, source.bytes[7]);
  Handle other = Copy(c.get());
  ASSERT_EQ(cachet_invalidate(other.get(), 7, 1), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c.get(), 7, &byte), CACHET_OK);
  EXPECT_EQ(byte, source.bytes[7]);
}

TEST(SliceTest, MoreThanTheLimitIsBusy) {
  MadeSource source(Content(200 * kPage));
  Handle c = source.Make(Cache(64 << 20));
  size_t limit = cachet_pin_limit(c.get());
  ASSERT_GE(limit, 64u);
  std::vector<cachet_slice> held(limit);
  for (size_t i = 0; i < limit; i++)
    ASSERT_EQ(i % 3 ? cachet_load(c.get(), i * kPage, 0, &held[i])
                    : cachet_map(c.get(), i * kPage, 2 * kPage, &held[i]),
              CACHET_OK)
        << i;
  cachet_slice more = {};
  EXPECT_EQ(cachet_load(c.get(), 0, 0, &more), CACHET_E_BUSY);
  EXPECT_EQ(cachet_map(c.get(), 0, 9000, &more), CACHET_E_BUSY);
  // What can never be right, and what is not there, goes before that.
  EXPECT_EQ(cachet_load(c.get(), 0, kPage + 1, &more), CACHET_E_INVAL);
  EXPECT_EQ(cachet_load(c.get(), 200 * kPage, 0, &more), CACHET_END);
  EXPECT_EQ(cachet_map(c.get(), 200 * kPage, 1, &more), CACHET_END);
  EXPECT_EQ(cachet_load_async(
                c.get(), 0, 0, [](void *, cachet_status, cachet_slice *) {},
                nullptr, nullptr),
            CACHET_E_BUSY);
  uint8_t byte; // what needs no slice still works
  EXPECT_EQ(cachet_get_u8(c.get(), 199 * kPage, &byte), CACHET_OK);
  for (auto &s : held) {
    EXPECT_EQ(memcmp(s.data, &source.bytes[s.offset], s.length), 0);
    cachet_release(c.get(), &s);
  }
  ASSERT_EQ(cachet_load(c.get(), 0, 0, &more), CACHET_OK);
}

TEST(SliceTest, ASecondReleaseLeavesOthersAlone) {
  MadeSource source(Content(4 * kPage));
  Handle c = source.Make(Cache(2 * kPage));
  cachet_slice zero = {};
  cachet_release(c.get(), &zero);
  cachet_slice a, b;
  ASSERT_EQ(cachet_load(c.get(), 0, 0, &a), CACHET_OK);
  cachet_slice stale = a;
  cachet_release(c.get(), &a);
  cachet_release(c.get(), &a);
  ASSERT_EQ(cachet_load(c.get(), kPage, 0, &b), CACHET_OK);
  cachet_release(c.get(), &stale); // the same place, an older use
  cachet_slice forged = b;
  forged.pin = ~0ull;
  cachet_release(c.get(), &forged);
  uint8_t buf[2 * kPage];
  ASSERT_EQ(cachet_read(c.get(), 2 * kPage, buf, sizeof buf), CACHET_OK);
  ASSERT_EQ(cachet_read(c.get(), 0, buf, kPage), CACHET_OK);
  EXPECT_EQ(memcmp(b.data, &source.bytes[kPage], kPage), 0);
  cachet_release(c.get(), &b);
}

TEST(SliceTest, ASeqStopsWhenTheImageChanges) {
  TempDir dir;
  std::string path = dir.Write("image", Content(10 * kPage));
  Handle c = Open(path, Options());
  cachet_seq seq;
  cachet_slice s;
  ASSERT_EQ(cachet_seq_begin(c.get(), 0, &seq), CACHET_OK);
  ASSERT_EQ(cachet_seq_next(&seq, &s), CACHET_OK);
  dir.Write("image", Content(5 * kPage, 2)); // truncated in place
  cachet_status status;
  while ((status = cachet_seq_next(&seq, &s)) == CACHET_OK)
    ;
  EXPECT_EQ(status, CACHET_E_CHANGED);
  cachet_seq_end(&seq);
  EXPECT_EQ(cachet_size(c.get()), 5 * kPage);
}

// ---- Changes ----------------------------------------------------------------

TEST(ChangeTest, ATruncatedFileIsAnErrorAndNotASignal) {
  TempDir dir;
  std::string path = dir.Write("image", Content(10 * kPage));
  Handle c = Open(path, Options());
  uint64_t epoch = cachet_epoch(c.get());
  ASSERT_EQ(truncate(path.c_str(), 100), 0);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 5 * kPage, &byte), CACHET_E_BOUNDS);
  EXPECT_EQ(cachet_size(c.get()), 100u);
  EXPECT_NE(cachet_epoch(c.get()), epoch);
  EXPECT_EQ(cachet_get_u8(c.get(), 99, &byte), CACHET_OK);
}

TEST(ChangeTest, AFileThatGrewIsFoundLongerByWhoAsksPastItsOldEnd) {
  TempDir dir;
  std::string path = dir.Write("image", Content(2 * kPage));
  Handle a = Open(path, Options()), b = Open(path, Options());
  uint8_t byte;
  for (Handle *c : {&a, &b})
    for (uint64_t page = 0; page < 2; page++)
      ASSERT_EQ(cachet_get_u8(c->get(), page * kPage, &byte), CACHET_OK);
  std::vector<uint8_t> longer = Content(4 * kPage, 2);
  dir.Write("image", longer);
  // A file is looked at once a second at most.
  cachet_slice s;
  cachet_status status;
  while ((status = cachet_load(a.get(), 3 * kPage, 0, &s)) == CACHET_END)
    usleep(10000);
  ASSERT_EQ(status, CACHET_OK);
  EXPECT_EQ(memcmp(s.data, &longer[3 * kPage], kPage), 0);
  EXPECT_EQ(cachet_size(a.get()), 4 * kPage);
  char *text;
  while ((status = cachet_get_string(b.get(), 2 * kPage, 4, &text)) ==
         CACHET_E_BOUNDS)
    usleep(10000);
  ASSERT_EQ(status, CACHET_OK);
  EXPECT_EQ(memcmp(text, &longer[2 * kPage], 4), 0);
  free(text);
}

// ---- Fork -------------------------------------------------------------------

TEST(ForkTest, AChildsCloseLeavesWhatTheChildPutInThePlaceOfOurs) {
  MadeSource source(Content(10 * kPage));
  int lowest = dup(0);
  close(lowest);
  Handle c = source.Make();
  int behind = dup(0); // the handle's are between the two
  pid_t pid = QuietFork();
  if (pid == 0) {
    int other = open("/dev/null", O_RDONLY);
    for (int fd = lowest; fd < behind; fd++)
      dup2(other, fd);
    cachet_close(c.release());
    int n_gone = 0;
    for (int fd = lowest; fd < behind; fd++)
      n_gone += fcntl(fd, F_GETFD) < 0;
    _exit(lowest < behind ? n_gone : 100);
  }
  close(behind);
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

TEST(ForkTest, TheChildIsRefusedAndTheParentGoesOn) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  cachet_slice s;
  ASSERT_EQ(cachet_load(c.get(), 0, 0, &s), CACHET_OK);
  pid_t pid = QuietFork();
  if (pid == 0) {
    cachet_slice mine = s, more;
    uint8_t byte;
    char *text;
    cachet *copy;
    cachet_seq seq;
    bool ok = cachet_load(c.get(), 0, 0, &more) == CACHET_E_FORKED &&
              cachet_map(c.get(), 0, 1, &more) == CACHET_E_FORKED &&
              cachet_get_u8(c.get(), 0, &byte) == CACHET_E_FORKED &&
              cachet_read(c.get(), 0, &byte, 1) == CACHET_E_FORKED &&
              cachet_get_string(c.get(), 0, 1, &text) == CACHET_E_FORKED &&
              cachet_seq_begin(c.get(), 0, &seq) == CACHET_E_FORKED &&
              cachet_prefetch(c.get(), 0, 1) == CACHET_E_FORKED &&
              cachet_invalidate(c.get(), 0, 1) == CACHET_E_FORKED &&
              cachet_dispatch(c.get()) == CACHET_E_FORKED &&
              cachet_copy(c.get(), &copy, nullptr) == CACHET_E_FORKED &&
              !cachet_is_cached(c.get(), 0) &&
              cachet_size(c.get()) == 10 * kPage;
    cachet_release(c.get(), &mine);
    cachet_close(c.release());
    _exit(ok && source.n_closes == 0 ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(memcmp(s.data, source.bytes.data(), kPage), 0);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 9 * kPage, &byte), CACHET_OK);
  cachet_release(c.get(), &s);
}

// ---- Asynchronous -----------------------------------------------------------

TEST(AsyncTest, ALoadReadsTheSourceInDispatch) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  Outcome out;
  EXPECT_EQ(cachet_timeout_ms(c.get()), -1);
  ASSERT_EQ(cachet_load_async(c.get(), 5000, 1, Outcome::Loaded, &out, nullptr),
            CACHET_OK);
  EXPECT_EQ(source.n_maps, 0);
  EXPECT_EQ(cachet_timeout_ms(c.get()), 0);
  ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  EXPECT_EQ(source.n_maps, 1);
  ASSERT_EQ(out.n, 1);
  ASSERT_EQ(out.status, CACHET_OK);
  EXPECT_EQ(memcmp(out.slice.data, &source.bytes[kPage], kPage), 0);
  cachet_release(c.get(), &out.slice);
  EXPECT_EQ(cachet_timeout_ms(c.get()), -1);
}

TEST(AsyncTest, AHitCompletesFromDispatchToo) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  Outcome out;
  ASSERT_EQ(cachet_load_async(c.get(), 0, 1, Outcome::Loaded, &out, nullptr),
            CACHET_OK);
  EXPECT_EQ(out.n, 0);
  EXPECT_EQ(cachet_get_u8(c.get(), 9 * kPage, &byte), CACHET_OK);
  EXPECT_EQ(out.n, 0); // blocking calls run none
  cachet_dispatch(c.get());
  EXPECT_EQ(out.n, 1);
}

TEST(AsyncTest, WhatIsWrongFromTheStartIsToldAtOnce) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  Outcome out;
  char buf[10];
  EXPECT_EQ(
      cachet_load_async(c.get(), 0, kPage + 1, Outcome::Loaded, &out, nullptr),
      CACHET_E_INVAL);
  EXPECT_EQ(
      cachet_load_async(c.get(), 10 * kPage, 0, Outcome::Loaded, &out, nullptr),
      CACHET_END);
  EXPECT_EQ(cachet_load_async(c.get(), 0, 0, nullptr, nullptr, nullptr),
            CACHET_E_INVAL);
  EXPECT_EQ(cachet_read_async(c.get(), 10 * kPage, buf, 10, Outcome::Read, &out,
                              nullptr),
            CACHET_E_BOUNDS);
  cachet_dispatch(c.get());
  EXPECT_EQ(out.n, 0);
}

TEST(AsyncTest, ACancelledRequestCompletesFromTheNextDispatch) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  Outcome out, complete;
  cachet_request *request, *other;
  char buf[10];
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &complete, &other);
  cachet_read_async(c.get(), kPage, buf, 10, Outcome::Read, &out, &request);
  EXPECT_EQ(cachet_cancel(c.get(), request), CACHET_OK);
  EXPECT_EQ(cachet_cancel(c.get(), request), CACHET_OK);
  EXPECT_EQ(cachet_cancel(c.get(), other), CACHET_OK); // complete: as it was
  EXPECT_EQ(out.n, 0);
  cachet_dispatch(c.get());
  EXPECT_EQ(out.n, 1);
  EXPECT_EQ(out.status, CACHET_E_CANCELED);
  EXPECT_EQ(complete.status, CACHET_OK);
  EXPECT_EQ(source.n_maps, 1);
}

TEST(AsyncTest, CloseCompletesWhatIsOutstandingWithCanceled) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  Outcome a, b;
  char buf[10];
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &a, nullptr);
  cachet_read_async(c.get(), 5, buf, 10, Outcome::Read, &b, nullptr);
  c.reset();
  EXPECT_EQ(a.n, 1);
  EXPECT_EQ(b.n, 1);
  EXPECT_EQ(a.status, CACHET_E_CANCELED);
  EXPECT_EQ(b.status, CACHET_E_CANCELED);
}

TEST(AsyncTest, InACallbackHitsSucceedAndWaitsAreRefused) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  cachet_status hit = CACHET_END, miss = CACHET_END, map = CACHET_END,
                dispatch = CACHET_END, again = CACHET_END;
  Outcome out, next;
  out.then = [&](Outcome &) {
    uint8_t byte;
    cachet_slice s;
    hit = cachet_get_u8(c.get(), 0, &byte);
    miss = cachet_get_u8(c.get(), 5 * kPage, &byte);
    map = cachet_map(c.get(), 0, 3 * kPage, &s);
    dispatch = cachet_dispatch(c.get());
    again =
        cachet_load_async(c.get(), kPage, 0, Outcome::Loaded, &next, nullptr);
  };
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  cachet_dispatch(c.get());
  EXPECT_EQ(hit, CACHET_OK);
  EXPECT_EQ(miss, CACHET_E_INVAL);
  EXPECT_EQ(map, CACHET_E_INVAL);
  EXPECT_EQ(dispatch, CACHET_E_INVAL);
  EXPECT_EQ(again, CACHET_OK);
  EXPECT_EQ(next.n, 0);
  cachet_dispatch(c.get());
  EXPECT_EQ(next.n, 1);
}

TEST(AsyncTest, ACallbackSeesTheStoryOfItsRequest) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  source.fail_with = EIO;
  std::string message;
  Outcome out;
  out.then = [&](Outcome &) { message = cachet_errmsg(c.get()); };
  cachet_load_async(c.get(), 2 * kPage, 0, Outcome::Loaded, &out, nullptr);
  cachet_dispatch(c.get());
  EXPECT_EQ(out.status, CACHET_E_IO);
  EXPECT_EQ(message, "image \"made\": read 4096 bytes at 8192: "
                     "Input/output error");
}

TEST(AsyncTest, TheWatchHearsOfARequest) {
  MadeSource source(Content(10 * kPage));
  Handle c = source.Make();
  int n = 0;
  cachet_set_watch(
      c.get(), [](void *arg) { ++*static_cast<int *>(arg); }, &n);
  EXPECT_EQ(cachet_watch_arg(c.get()), &n);
  Outcome out;
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  EXPECT_GT(n, 0);
  cachet_set_watch(c.get(), nullptr, nullptr);
  EXPECT_EQ(cachet_watch_arg(c.get()), nullptr);
  cachet_dispatch(c.get());
}

// ---- Threads ----------------------------------------------------------------

TEST(ThreadTest, CopiesReadTogetherAndMapIsNeverRunTwiceAtOnce) {
  MadeSource source(Content(200 * kPage));
  std::atomic<int> inside{0}, n_together{0};
  source.before_map = [&](uint64_t) {
    n_together += ++inside > 1;
    std::this_thread::yield();
    --inside;
  };
  Handle first = source.Make(Cache(32 * kPage));
  std::vector<std::thread> threads;
  std::atomic<int> n_wrong{0};
  for (unsigned t = 0; t < 4; t++)
    threads.emplace_back([&, t, c = Copy(first.get())] {
      std::mt19937_64 random(t);
      std::vector<uint8_t> buf(20 * kPage);
      for (int i = 0; i < 400; i++) {
        size_t addr = random() % (source.bytes.size() - buf.size());
        size_t len = random() % buf.size();
        n_wrong += cachet_read(c.get(), addr, buf.data(), len) != CACHET_OK ||
                   memcmp(buf.data(), &source.bytes[addr], len) != 0;
        cachet_slice s;
        n_wrong += cachet_map(c.get(), addr, len + 1, &s) != CACHET_OK ||
                   memcmp(s.data, &source.bytes[addr], s.length) != 0;
        if (i % 16 == 0)
          n_wrong += cachet_invalidate(c.get(), addr, len) != CACHET_OK;
        n_wrong += memcmp(s.data, &source.bytes[addr], s.length) != 0;
        cachet_release(c.get(), &s);
      }
    });
  for (auto &t : threads)
    t.join();
  EXPECT_EQ(n_wrong, 0);
  EXPECT_EQ(n_together, 0);
}

// One thread is held inside `map`, until the gate opens.
struct Held {
  std::mutex lock;
  std::condition_variable changed;
  bool entered = false, open = false;

  void Enter() {
    std::unique_lock<std::mutex> hold(lock);
    entered = true;
    changed.notify_all();
    changed.wait(hold, [this] { return open; });
  }
  void AwaitEntry() {
    std::unique_lock<std::mutex> hold(lock);
    changed.wait(hold, [this] { return entered; });
  }
  void Open() {
    std::unique_lock<std::mutex> hold(lock);
    open = true;
    changed.notify_all();
  }
};

TEST(ThreadTest, APageThatAnotherThreadReadsIsJoined) {
  MadeSource source(Content(10 * kPage));
  Held held;
  source.before_map = [&](uint64_t) { held.Enter(); };
  Handle a = source.Make(), b = Copy(a.get());
  std::thread reader([&] {
    uint8_t byte;
    EXPECT_EQ(cachet_get_u8(b.get(), 0, &byte), CACHET_OK);
  });
  held.AwaitEntry();
  Outcome out, dropped;
  cachet_request *request;
  cachet_load_async(a.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  cachet_load_async(a.get(), 0, 0, Outcome::Loaded, &dropped, &request);
  cachet_dispatch(a.get()); // does not wait for the other thread
  EXPECT_EQ(out.n, 0);
  cachet_cancel(a.get(), request);
  cachet_dispatch(a.get());
  EXPECT_EQ(dropped.status, CACHET_E_CANCELED);
  held.Open();
  while (!out.n) {
    struct pollfd p = {cachet_fd(a.get()), cachet_events(a.get()), 0};
    poll(&p, 1, cachet_timeout_ms(a.get()));
    cachet_dispatch(a.get());
  }
  reader.join();
  EXPECT_EQ(out.status, CACHET_OK);
  EXPECT_EQ(source.n_maps, 1);
}

TEST(ThreadTest, AJoinThatTakesTooLongTimesOut) {
  MadeSource source(Content(10 * kPage));
  Held held;
  source.before_map = [&](uint64_t) { held.Enter(); };
  cachet_options o = Options();
  o.request_timeout_ms = 20;
  Handle a = source.Make(o), b = Copy(a.get());
  std::thread reader([&] {
    uint8_t byte;
    EXPECT_EQ(cachet_get_u8(b.get(), 0, &byte), CACHET_OK);
  });
  held.AwaitEntry();
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(a.get(), 0, &byte), CACHET_E_TIMEOUT);
  held.Open();
  a.reset(); // waits for the fill that it had joined
  reader.join();
}

TEST(LocalTest, APageIsKeptHoweverManyWordsWereLookedAt) {
  // Each page has a page of states of its own: what those take is swept, over
  // and over, and what is swept is room.
  constexpr uint64_t kStride = 16 << 20, kCount = 2000;
  if (mirror_is_overcommit_strict())
    GTEST_SKIP() << "states have their memory from the start where the kernel "
                    "overcommits strictly, more than this cache has";
  static const uint8_t zeros[kPage] = {};
  cachet_source table = {};
  table.struct_size = sizeof table;
  table.size = kStride * kCount;
  table.map = [](void *, uint64_t, size_t len, const void **out) -> ssize_t {
    *out = zeros;
    return ssize_t(std::min<size_t>(len, kPage));
  };
  cachet_options options = Options();
  options.cache_size = 1 << 20;
  cachet *made = nullptr;
  ASSERT_EQ(cachet_make(&table, &options, &made, nullptr), CACHET_OK);
  Handle c(made);
  for (uint64_t i = 0; i < kCount; i++) {
    uint8_t byte;
    ASSERT_EQ(cachet_get_u8(c.get(), i * kStride, &byte), CACHET_OK);
    ASSERT_TRUE(cachet_is_cached(c.get(), i * kStride)) << "the " << i << "th";
  }
}

} // namespace
