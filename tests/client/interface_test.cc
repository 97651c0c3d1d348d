// The calls of the public header that ask a handle or a slice, and touch no
// page.
#include <dlfcn.h>

#include <string>

#include "tests/client/handle.h"

namespace {

constexpr size_t kPage = 4096;

cachet_error LastError(const Handle &c) {
  cachet_error e = {CACHET_E_UNSUPPORTED, -1, "untouched"};
  cachet_last_error(c.get(), &e);
  return e;
}

TEST(VersionTest, TheLibraryThatRunsIsTheOneThatWasCompiledAgainst) {
  EXPECT_STREQ(cachet_version(), CACHET_VERSION_STRING);
  EXPECT_EQ(std::string(cachet_version()),
            std::to_string(CACHET_VERSION_MAJOR) + "." +
                std::to_string(CACHET_VERSION_MINOR) + "." +
                std::to_string(CACHET_VERSION_PATCH));
}

TEST(OptionsTest, OptionsInitIsAllDefaults) {
  MadeSource source(Content(kPage));
  cachet_options options = CACHET_OPTIONS_INIT;
  cachet_options zeroed = Options();
  EXPECT_EQ(memcmp(&options, &zeroed, sizeof options), 0);
  Handle c = source.Make(options);
  EXPECT_EQ(cachet_page_size(c.get()), kPage);
}

TEST(LastErrorTest, IsSuccessBeforeTheFirstFailure) {
  MadeSource source(Content(kPage));
  Handle c = source.Make();
  cachet_error e = LastError(c);
  EXPECT_EQ(e.code, CACHET_OK);
  EXPECT_EQ(e.sys_errno, 0);
  EXPECT_STREQ(e.message, "");
}

TEST(LastErrorTest, HasStatusErrnoAndMessageOfTheLastFailure) {
  MadeSource source(Content(2 * kPage));
  Handle c = source.Make();
  uint8_t byte;
  source.fail_with = ENXIO;
  ASSERT_EQ(cachet_get_u8(c.get(), 5, &byte), CACHET_E_IO);
  cachet_error e = LastError(c);
  EXPECT_EQ(e.code, CACHET_E_IO);
  EXPECT_EQ(e.sys_errno, ENXIO);
  EXPECT_STREQ(e.message, cachet_errmsg(c.get()));
  EXPECT_STRNE(e.message, "");

  /* A failure that has no errno; a success and an end leave it alone. */
  source.fail_with = 0;
  ASSERT_EQ(cachet_get_u8(c.get(), 2 * kPage, &byte), CACHET_E_BOUNDS);
  ASSERT_EQ(cachet_get_u8(c.get(), 5, &byte), CACHET_OK);
  cachet_slice slice;
  ASSERT_EQ(cachet_load(c.get(), 2 * kPage, 0, &slice), CACHET_END);
  e = LastError(c);
  EXPECT_EQ(e.code, CACHET_E_BOUNDS);
  EXPECT_EQ(e.sys_errno, 0);
}

TEST(LastErrorTest, InACallbackIsThatOfItsRequest) {
  MadeSource source(Content(2 * kPage));
  Handle c = source.Make();
  Outcome failed;
  cachet_error seen = {};
  failed.then = [&](Outcome &) { seen = LastError(c); };
  source.fail_with = EIO;
  ASSERT_EQ(cachet_load_async(c.get(), 0, 1, Outcome::Loaded, &failed, nullptr),
            CACHET_OK);
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 2 * kPage, &byte), CACHET_E_BOUNDS);
  RunUntil(c.get(), [&] { return failed.n == 1; });
  EXPECT_EQ(seen.code, CACHET_E_IO);
  EXPECT_EQ(seen.sys_errno, EIO);
}

TEST(ContextTest, IsTheSourcesOfAHandleAndItsCopies) {
  MadeSource source(Content(kPage));
  Handle c = source.Make();
  Handle copy = Copy(c.get());
  EXPECT_EQ(cachet_context(c.get()), &source);
  c.reset();
  EXPECT_EQ(cachet_context(copy.get()), &source);
}

TEST(ContextTest, IsNullForAFile) {
  TempDir dir;
  Handle c = Open(dir.Write("disk.img", Content(kPage)), Options());
  EXPECT_EQ(cachet_context(c.get()), nullptr);
}

/* What the slice says at an address is what the handle says, wherever the slice
 * has all of it. */
template <typename T>
void ExpectSliceGetter(cachet *c, const cachet_slice &s,
                       bool (*from_slice)(const cachet_slice *, uint64_t, T *),
                       cachet_status (*from_handle)(cachet *, uint64_t, T *)) {
  const T before = static_cast<T>(0x5a5a5a5a5a5a5a5aull);
  for (uint64_t addr = s.offset - 10; addr < s.offset + s.length + 10; addr++) {
    bool is_inside =
        addr >= s.offset && addr + sizeof(T) <= s.offset + s.length;
    T value = before, want = before;
    ASSERT_EQ(from_slice(&s, addr, &value), is_inside) << addr;
    if (is_inside) {
      ASSERT_EQ(from_handle(c, addr, &want), CACHET_OK);
    }
    ASSERT_EQ(value, want) << addr;
  }
}

TEST(SliceGetterTest, SaysWhatTheHandleSaysAndFalseOutside) {
  MadeSource source(Content(2 * kPage));
  Handle owner = source.Make();
  cachet *c = owner.get();
  cachet_slice s;
  ASSERT_EQ(cachet_map(c, 1001, 50, &s), CACHET_OK);
#define CHECK_(type)                                                           \
  ExpectSliceGetter(c, s, cachet_slice_##type, cachet_get_##type)
#define CHECK_ORDERS_(type)                                                    \
  CHECK_(type##le);                                                            \
  CHECK_(type##be);                                                            \
  CHECK_(type##ne)
  CHECK_(u8);
  CHECK_(i8);
  CHECK_ORDERS_(u16);
  CHECK_ORDERS_(i16);
  CHECK_ORDERS_(u32);
  CHECK_ORDERS_(i32);
  CHECK_ORDERS_(u64);
  CHECK_ORDERS_(i64);
  cachet_release(c, &s);
}

TEST(SliceGetterTest, ASliceAtTheEndOfAddressesDoesNotWrap) {
  static const uint8_t bytes[] = {1, 2, 3, 4};
  cachet_slice s = {};
  s.offset = UINT64_MAX - 3;
  s.length = sizeof bytes;
  s.data = bytes;
  uint32_t value = 0;
  uint16_t half = 7;
  EXPECT_TRUE(cachet_slice_u32be(&s, UINT64_MAX - 3, &value));
  EXPECT_EQ(value, 0x01020304u);
  EXPECT_FALSE(cachet_slice_u16be(&s, UINT64_MAX, &half));
  EXPECT_FALSE(cachet_slice_u16be(&s, 0, &half));
  EXPECT_EQ(half, 7);
}

/* As a binding does: by name, without the header's code. */
TEST(SymbolsTest, AnInlineFunctionIsASymbolOfTheSharedLibrary) {
  void *library = dlopen("client/libcachet-client.so", RTLD_NOW | RTLD_LOCAL);
  ASSERT_NE(library, nullptr) << dlerror();
  auto at =
      reinterpret_cast<const uint8_t *(*)(const cachet_slice *, uint64_t)>(
          dlsym(library, "cachet_slice_at"));
  auto u16be =
      reinterpret_cast<bool (*)(const cachet_slice *, uint64_t, uint16_t *)>(
          dlsym(library, "cachet_slice_u16be"));
  ASSERT_NE(at, nullptr);
  ASSERT_NE(u16be, nullptr);
  static const uint8_t bytes[] = {1, 2, 3, 4};
  cachet_slice s = {};
  s.offset = 100;
  s.length = sizeof bytes;
  s.data = bytes;
  uint16_t value = 0;
  EXPECT_EQ(at(&s, 102), bytes + 2);
  EXPECT_TRUE(u16be(&s, 101, &value));
  EXPECT_EQ(value, 0x0203);
  EXPECT_FALSE(u16be(&s, 103, &value));
  dlclose(library);
}

} // namespace
