// The calls of Cachet, the OCaml library, as its documentation and its tests
// have them, one by one, over a `map` function that counts.  Where this library
// means to differ, the test says so.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <string>

#include "tests/client/handle.h"

namespace {

constexpr size_t kPage = 4096;

/* Cachet's "syscalls" are calls of `map`; here one may bring several pages, so
 * what is counted is pages that were missed. */
class CachetTest : public ::testing::Test {
protected:
  /* No readahead: only what a call asks for is loaded. */
  void Make(size_t size, uint32_t page_size = kPage) {
    c_.reset();
    source_ = std::make_unique<MadeSource>(Content(size));
    cachet_options options = CACHET_OPTIONS_INIT;
    options.flags = CACHET_NO_READAHEAD;
    options.page_size = page_size;
    options.cache_size = 1 << 20;
    c_ = source_->Make(options);
  }
  std::string Oracle(size_t addr, size_t len) const {
    return std::string(source_->bytes.begin() + static_cast<long>(addr),
                       source_->bytes.begin() + static_cast<long>(addr + len));
  }
  std::string String(uint64_t addr, size_t len) {
    char *text = nullptr;
    EXPECT_EQ(cachet_get_string(c_.get(), addr, len, &text), CACHET_OK)
        << cachet_errmsg(c_.get());
    std::string result = text ? std::string(text, len) : "";
    free(text);
    return result;
  }
  std::vector<std::string> Seq(uint64_t addr) {
    std::vector<std::string> pieces;
    cachet_seq seq;
    EXPECT_EQ(cachet_seq_begin(c_.get(), addr, &seq), CACHET_OK);
    cachet_slice s;
    cachet_status status;
    while ((status = cachet_seq_next(&seq, &s)) == CACHET_OK)
      pieces.emplace_back(reinterpret_cast<const char *>(s.data), s.length);
    EXPECT_EQ(status, CACHET_END);
    cachet_seq_end(&seq);
    return pieces;
  }
  static std::string Join(const std::vector<std::string> &pieces) {
    std::string all;
    for (const std::string &piece : pieces)
      all += piece;
    return all;
  }
  static int Append(void *text, uint8_t byte) {
    static_cast<std::string *>(text)->push_back(static_cast<char>(byte));
    return 0;
  }

  std::unique_ptr<MadeSource> source_; // outlives the handle
  Handle c_;
};

/* Its README: a file behind `map`, which maps it page by page, read from front
 * to back by get_seq. */
struct MappedFile {
  int fd;
  uint64_t size;
  static ssize_t Map(void *ctx, uint64_t pos, size_t len, const void **bytes) {
    auto *f = static_cast<MappedFile *>(ctx);
    if (pos >= f->size)
      return 0;
    size_t n = std::min<uint64_t>(len, f->size - pos);
    void *at =
        mmap(nullptr, n, PROT_READ, MAP_SHARED, f->fd, static_cast<off_t>(pos));
    if (at == MAP_FAILED)
      return -errno;
    *bytes = at;
    return static_cast<ssize_t>(n);
  }
  static void Unmap(void *, const void *bytes, size_t len) {
    munmap(const_cast<void *>(bytes), len);
  }
  static void Close(void *ctx) { close(static_cast<MappedFile *>(ctx)->fd); }
};

TEST(CachetReadmeTest, AFileThatIsMappedPageByPageIsReadAsASeq) {
  TempDir dir;
  std::vector<uint8_t> bytes = Content(10 * kPage + 77);
  MappedFile file = {open(dir.Write("disk.img", bytes).c_str(), O_RDONLY), 0};
  ASSERT_GE(file.fd, 0);
  file.size = bytes.size();
  cachet_source source = {};
  source.struct_size = sizeof source;
  source.size = file.size;
  source.ctx = &file;
  source.map = MappedFile::Map;
  source.unmap = MappedFile::Unmap;
  source.close = MappedFile::Close;
  cachet_options options = CACHET_OPTIONS_INIT;
  options.page_size = static_cast<uint32_t>(getpagesize());
  cachet *c = nullptr;
  ASSERT_EQ(cachet_make(&source, &options, &c, nullptr), CACHET_OK);
  EXPECT_EQ(cachet_context(c), &file);
  cachet_seq seq;
  ASSERT_EQ(cachet_seq_begin(c, 0, &seq), CACHET_OK);
  std::vector<uint8_t> all;
  cachet_slice s;
  while (cachet_seq_next(&seq, &s) == CACHET_OK)
    all.insert(all.end(), s.data, s.data + s.length);
  cachet_seq_end(&seq);
  cachet_close(c);
  EXPECT_TRUE(all == bytes);
  EXPECT_LT(fcntl(file.fd, F_GETFD), 0); // close ran
}

/* Its own test: 0xe000 bytes in pages of 0x100, get_uint8 and get_string at
 * 0xdead and 0xdea0, and the whole as a seq. */
TEST_F(CachetTest, ItsOwnTest) {
  Make(0xe000, 0x100);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c_.get(), 0xdead, &byte), CACHET_OK);
  EXPECT_EQ(byte, source_->bytes[0xdead]);
  EXPECT_EQ(String(0xdead, 10), Oracle(0xdead, 10));
  EXPECT_EQ(String(0xdea0, 10), Oracle(0xdea0, 10));
  std::vector<std::string> pieces = Seq(0);
  EXPECT_EQ(pieces.size(), 0xe0u);
  EXPECT_EQ(Join(pieces), Oracle(0, 0xe000));
}

/* "A slice is an aligned segment of bytes (according to the pagesize) with its
 * absolute position"; load "reads one page at most". */
TEST_F(CachetTest, LoadGivesTheAlignedPageThatHoldsTheAddress) {
  Make(5 * kPage);
  cachet_slice s;
  ASSERT_EQ(cachet_load(c_.get(), 2 * kPage + 5, 1, &s), CACHET_OK);
  EXPECT_EQ(s.offset, 2 * kPage);
  EXPECT_EQ(s.length, kPage);
  EXPECT_EQ(memcmp(s.data, &source_->bytes[2 * kPage], kPage), 0);
  EXPECT_EQ(cachet_misses(c_.get()), 1u);
  cachet_release(c_.get(), &s);
}

/* "If the slice does not contain at least len bytes, load returns None"; more
 * than a page is Invalid_argument. */
TEST_F(CachetTest, LoadAsksForALeastLength) {
  Make(kPage + 100);
  cachet_slice s;
  ASSERT_EQ(cachet_load(c_.get(), kPage + 10, 90, &s), CACHET_OK);
  EXPECT_EQ(s.length, 100u);
  cachet_release(c_.get(), &s);
  EXPECT_EQ(cachet_load(c_.get(), kPage + 10, 91, &s), CACHET_END);
  EXPECT_EQ(cachet_load(c_.get(), 10, kPage - 9, &s), CACHET_END); // next page
  EXPECT_EQ(cachet_load(c_.get(), 0, kPage + 1, &s), CACHET_E_INVAL);
}

/* load ~len:0 needs no byte; here too, but only where there is a page (Cachet
 * gives an empty slice everywhere). */
TEST_F(CachetTest, LoadOfNothingGivesAPageWhereThereIsOne) {
  Make(kPage);
  cachet_slice s;
  ASSERT_EQ(cachet_load(c_.get(), kPage - 1, 0, &s), CACHET_OK);
  cachet_release(c_.get(), &s);
  EXPECT_EQ(cachet_load(c_.get(), kPage, 0, &s), CACHET_END);
}

TEST_F(CachetTest, NextIsThePageAfterASliceAndNoneAtTheEnd) {
  Make(2 * kPage + 1);
  cachet_slice s, next;
  ASSERT_EQ(cachet_load(c_.get(), 7, 1, &s), CACHET_OK);
  for (uint64_t page = 1; page <= 2; page++) {
    ASSERT_EQ(cachet_next(c_.get(), &s, &next), CACHET_OK);
    EXPECT_EQ(next.offset, page * kPage);
    EXPECT_EQ(next.length, page == 2 ? 1 : kPage);
    cachet_release(c_.get(), &s);
    s = next;
  }
  EXPECT_EQ(cachet_next(c_.get(), &s, &next), CACHET_END);
  cachet_release(c_.get(), &s);
}

/* map ~pos len: a view of `len` bytes from `pos` on, of as many pages as it
 * takes, cut short at the end. */
TEST_F(CachetTest, MapGivesSeveralPagesAsOneSlice) {
  Make(6 * kPage + 10);
  cachet_slice s;
  uint64_t addr = kPage - 3, len = 3 * kPage;
  ASSERT_EQ(cachet_map(c_.get(), addr, len, &s), CACHET_OK);
  EXPECT_EQ(s.offset, addr);
  EXPECT_EQ(s.length, len);
  EXPECT_EQ(memcmp(s.data, &source_->bytes[addr], len), 0);
  EXPECT_EQ(cachet_misses(c_.get()), cachet_pages(c_.get(), addr, len));
  cachet_release(c_.get(), &s);
  ASSERT_EQ(cachet_map(c_.get(), 5 * kPage, 100 * kPage, &s), CACHET_OK);
  EXPECT_EQ(s.length, kPage + 10);
  cachet_release(c_.get(), &s);
}

/* "binary decode integers from byte sequences"; an error "if the space needed
 * is not available". */
TEST_F(CachetTest, IntegersAreDecodedByOrderAndSign) {
  Make(2 * kPage);
  const uint8_t at[] = {0xfe, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x87};
  uint64_t addr = kPage - 3; // across two pages
  memcpy(&source_->bytes[addr], at, sizeof at);
  cachet *c = c_.get();
  uint8_t u8;
  int8_t i8;
  uint16_t u16;
  int16_t i16;
  int32_t i32;
  int64_t i64, raw;
  ASSERT_EQ(cachet_get_u8(c, addr, &u8), CACHET_OK);
  EXPECT_EQ(u8, 0xfe);
  ASSERT_EQ(cachet_get_i8(c, addr, &i8), CACHET_OK);
  EXPECT_EQ(i8, -2);
  ASSERT_EQ(cachet_get_u16le(c, addr, &u16), CACHET_OK);
  EXPECT_EQ(u16, 0x01fe);
  ASSERT_EQ(cachet_get_u16be(c, addr, &u16), CACHET_OK);
  EXPECT_EQ(u16, 0xfe01);
  ASSERT_EQ(cachet_get_i16be(c, addr, &i16), CACHET_OK);
  EXPECT_EQ(i16, -511);
  ASSERT_EQ(cachet_get_i32le(c, addr, &i32), CACHET_OK);
  EXPECT_EQ(i32, 0x030201fe);
  ASSERT_EQ(cachet_get_i32be(c, addr, &i32), CACHET_OK);
  EXPECT_EQ(static_cast<uint32_t>(i32), 0xfe010203u);
  ASSERT_EQ(cachet_get_i64le(c, addr, &i64), CACHET_OK);
  EXPECT_EQ(static_cast<uint64_t>(i64), 0x87060504030201feull);
  ASSERT_EQ(cachet_get_i64ne(c, addr, &i64), CACHET_OK);
  memcpy(&raw, at, sizeof raw);
  EXPECT_EQ(i64, raw);
  EXPECT_EQ(cachet_get_i64le(c, 2 * kPage - 7, &i64), CACHET_E_BOUNDS);
  EXPECT_EQ(cachet_get_u8(c, 2 * kPage, &u8), CACHET_E_BOUNDS);
}

/* get_string "loads the various pages needed"; it fails "if map cannot give us
 * enough". */
TEST_F(CachetTest, GetStringCopiesAcrossPages) {
  Make(4 * kPage);
  EXPECT_EQ(String(kPage - 10, kPage + 20), Oracle(kPage - 10, kPage + 20));
  char *text;
  EXPECT_EQ(cachet_get_string(c_.get(), 4 * kPage - 5, 6, &text),
            CACHET_E_BOUNDS);
}

/* blit_to_bytes copies `len` bytes from src_off to dst_off. */
TEST_F(CachetTest, ReadBlitsIntoABuffer) {
  Make(4 * kPage);
  std::string buf(3 * kPage, '.');
  ASSERT_EQ(cachet_read(c_.get(), 100, &buf[7], 2 * kPage), CACHET_OK);
  EXPECT_EQ(buf.substr(0, 7), ".......");
  EXPECT_EQ(buf.substr(7, 2 * kPage), Oracle(100, 2 * kPage));
  EXPECT_EQ(buf[7 + 2 * kPage], '.');
  EXPECT_EQ(cachet_read(c_.get(), 4 * kPage - 1, &buf[0], 2), CACHET_E_BOUNDS);
}

/* get_seq: the rest of the first page from the address on, then whole pages. */
TEST_F(CachetTest, SeqIsTheRestOfAPageAndThenPages) {
  Make(3 * kPage + 9);
  std::vector<std::string> pieces = Seq(kPage + 100);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0], Oracle(kPage + 100, kPage - 100));
  EXPECT_EQ(pieces[1], Oracle(2 * kPage, kPage));
  EXPECT_EQ(pieces[2], Oracle(3 * kPage, 9));
  EXPECT_TRUE(Seq(3 * kPage + 9).empty());
}

/* A Seq.t is lazy: a page is loaded when its element is forced. */
TEST_F(CachetTest, SeqLoadsAPageWhenItIsAskedFor) {
  Make(3 * kPage);
  cachet_seq seq;
  cachet_slice s;
  ASSERT_EQ(cachet_seq_begin(c_.get(), 0, &seq), CACHET_OK);
  EXPECT_EQ(cachet_misses(c_.get()), 0u);
  ASSERT_EQ(cachet_seq_next(&seq, &s), CACHET_OK);
  EXPECT_EQ(cachet_misses(c_.get()), 1u);
  EXPECT_FALSE(cachet_is_cached(c_.get(), kPage));
  cachet_seq_end(&seq);
}

/* iter ?len ~fn addr: fn for each byte; without len, to the end; out of bounds
 * if there are fewer (here before the first byte, there after the last). */
TEST_F(CachetTest, IterCallsForEachByte) {
  Make(2 * kPage + 50);
  std::string seen;
  ASSERT_EQ(cachet_iter(c_.get(), kPage - 2, 4, Append, &seen), CACHET_OK);
  EXPECT_EQ(seen, Oracle(kPage - 2, 4));
  seen.clear();
  ASSERT_EQ(cachet_iter(c_.get(), 10, 2 * kPage, Append, &seen), CACHET_OK);
  EXPECT_EQ(seen, Oracle(10, 2 * kPage));
  seen.clear();
  ASSERT_EQ(cachet_iter(c_.get(), 5, CACHET_TO_END, Append, &seen), CACHET_OK);
  EXPECT_EQ(seen, Oracle(5, 2 * kPage + 45));
  seen.clear();
  EXPECT_EQ(cachet_iter(c_.get(), 2 * kPage, 51, Append, &seen),
            CACHET_E_BOUNDS);
  EXPECT_EQ(seen, "");
}

/* cache_hit and cache_miss: how many loads found their page, and did not. */
TEST_F(CachetTest, HitsAndMissesAreCounted) {
  Make(2 * kPage);
  uint8_t byte;
  for (int i = 0; i < 3; i++)
    ASSERT_EQ(cachet_get_u8(c_.get(), 5, &byte), CACHET_OK);
  ASSERT_EQ(cachet_get_u8(c_.get(), kPage, &byte), CACHET_OK);
  EXPECT_EQ(cachet_misses(c_.get()), 2u);
  EXPECT_EQ(cachet_hits(c_.get()), 2u);
}

/* is_cached asks, and neither loads nor counts. */
TEST_F(CachetTest, IsCachedIsTrueOfWhatWasLoaded) {
  Make(2 * kPage);
  uint8_t byte;
  EXPECT_FALSE(cachet_is_cached(c_.get(), 0));
  ASSERT_EQ(cachet_get_u8(c_.get(), 5, &byte), CACHET_OK);
  EXPECT_TRUE(cachet_is_cached(c_.get(), 0));
  EXPECT_TRUE(cachet_is_cached(c_.get(), kPage - 1));
  EXPECT_FALSE(cachet_is_cached(c_.get(), kPage));
  EXPECT_EQ(source_->n_maps, 1);
  EXPECT_EQ(cachet_hits(c_.get()), 0u);
}

/* invalidate ~off ~len: the next load reads anew.  Exactly the pages that the
 * range overlaps go: Cachet counts from off / pagesize to (off + len) /
 * pagesize, and so spares the last one where the range ends within it. */
TEST_F(CachetTest, InvalidateDropsThePagesThatOverlap) {
  Make(4 * kPage);
  char buf[4 * kPage];
  ASSERT_EQ(cachet_read(c_.get(), 0, buf, sizeof buf), CACHET_OK);
  source_->bytes[kPage] ^= 1;
  source_->bytes[2 * kPage] ^= 1;
  ASSERT_EQ(cachet_invalidate(c_.get(), 2 * kPage - 1, 2), CACHET_OK);
  for (uint64_t page = 0; page < 4; page++)
    EXPECT_EQ(cachet_is_cached(c_.get(), page * kPage), page == 0 || page == 3);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c_.get(), kPage, &byte), CACHET_OK);
  EXPECT_EQ(byte, source_->bytes[kPage]);
  ASSERT_EQ(cachet_get_u8(c_.get(), 2 * kPage, &byte), CACHET_OK);
  EXPECT_EQ(byte, source_->bytes[2 * kPage]);
}

/* syscalls: "the maximum number (if the cache is empty) of calls to map to load
 * a segment".  It is the number of pages that the segment overlaps, cut at the
 * image's end; and no read of it loads more. */
TEST_F(CachetTest, SyscallsIsHowManyPagesAReadMayLoad) {
  const size_t n_pages = 6;
  struct Segment {
    uint64_t addr, len, pages;
  };
  const Segment segments[] = {{0, 0, 0},
                              {0, 1, 1},
                              {0, kPage, 1},
                              {0, kPage + 1, 2},
                              {kPage - 1, 1, 1},
                              {kPage - 1, 2, 2},
                              {1, kPage, 2},
                              {kPage - 1, kPage + 2, 3},
                              {0, CACHET_TO_END, n_pages}};
  for (const Segment &segment : segments) {
    Make(n_pages * kPage);
    EXPECT_EQ(cachet_pages(c_.get(), segment.addr, segment.len), segment.pages)
        << segment.addr << " " << segment.len;
    size_t len = segment.len == CACHET_TO_END ? n_pages * kPage : segment.len;
    std::vector<uint8_t> buf(len + 1);
    ASSERT_EQ(cachet_read(c_.get(), segment.addr, buf.data(), len), CACHET_OK);
    EXPECT_EQ(cachet_misses(c_.get()), segment.pages);
    EXPECT_LE(source_->n_maps, static_cast<int>(segment.pages));
  }
}

/* copy "creates a new, empty cache using the same map function"; here it is
 * another handle on the same cache, so that what one has loaded is not loaded
 * again; counters are its own. */
TEST_F(CachetTest, CopySharesTheMapFunctionAndTheCache) {
  Make(kPage);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c_.get(), 0, &byte), CACHET_OK);
  Handle copy = Copy(c_.get());
  ASSERT_EQ(cachet_get_u8(copy.get(), 0, &byte), CACHET_OK);
  EXPECT_EQ(source_->n_maps, 1);
  EXPECT_EQ(cachet_misses(copy.get()), 0u);
  EXPECT_EQ(cachet_hits(copy.get()), 1u);
}

} // namespace
