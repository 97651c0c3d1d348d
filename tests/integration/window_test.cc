// Parts of a file as images of their own, through the daemon: by shared memory
// and over TCP.
#include <cachet/cachet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

using testing::HasSubstr;
using Bytes = std::vector<uint8_t>;

// The middle begins and ends within a page of the file, and has a short last
// page of its own.
constexpr uint64_t kSize = 300000, kOffset = 70001, kLength = 100003;

struct Close {
  void operator()(cachet *c) const { cachet_close(c); }
  void operator()(cachet_admin *a) const { cachet_admin_close(a); }
};
using Handle = std::unique_ptr<cachet, Close>;

enum class Way { kAttached, kTcp };

class WindowTest : public testing::TestWithParam<Way> {
protected:
  void SetUp() override {
    bytes_ = WriteRandomFile(path_, kSize, 1);
    std::string offset = ",offset=" + std::to_string(kOffset);
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", "middle=" + path_ + offset + ",length=100003", "--image",
        "rest=" + path_ + offset, "--image", "all=" + path_, "--image",
        "large=" + path_ + offset + ",page-size=64K", "--listen",
        "unix:" + socket_, "--listen", "tcp:127.0.0.1:" + port_});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  void TearDown() override {
    daemon_->Kill(SIGTERM);
    EXPECT_EQ(daemon_->Wait(), 0) << daemon_->log();
  }

  std::string Uri(const std::string &image) const {
    return GetParam() == Way::kTcp
               ? "cachet://127.0.0.1:" + port_ + "/" + image
               : "cachet+unix:///" + image + "?socket=" + socket_;
  }

  Handle Open(const std::string &image) {
    cachet *c = nullptr;
    cachet_error err{};
    EXPECT_EQ(cachet_open(Uri(image).c_str(), nullptr, &c, &err), CACHET_OK)
        << err.message;
    return Handle(c);
  }

  Bytes Part(uint64_t from, uint64_t len) const {
    return Bytes(bytes_.begin() + long(from),
                 bytes_.begin() + long(from + len));
  }

  static Bytes Read(cachet *c, uint64_t addr, uint64_t len) {
    Bytes bytes(len);
    EXPECT_EQ(cachet_read(c, addr, bytes.data(), len), CACHET_OK)
        << cachet_errmsg(c);
    return bytes;
  }

  // Waits until the handle is of an epoch whose size that is.
  static void AwaitSize(cachet *c, uint64_t size) {
    uint8_t byte;
    while (cachet_size(c) != size)
      cachet_get_u8(c, 0, &byte);
  }

  // Another file takes the place of the one that is served.
  void Replace(uint64_t size, uint64_t seed) {
    bytes_ = WriteRandomFile(path_ + ".new", size, seed);
    ASSERT_EQ(rename((path_ + ".new").c_str(), path_.c_str()), 0);
  }

  void AwaitLog(const std::string &line) { daemon_->AwaitLog(line); }

  TempDir dir_;
  std::string path_ = dir_ / "disk.img", socket_ = dir_ / "socket";
  std::string port_ = std::to_string(DaemonProcess::FreePort());
  Bytes bytes_;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_P(WindowTest, EachImageHasItsPartOfTheFile) {
  Handle middle = Open("middle"), rest = Open("rest"), all = Open("all");
  EXPECT_EQ(cachet_size(middle.get()), kLength);
  EXPECT_EQ(cachet_size(rest.get()), kSize - kOffset);
  EXPECT_EQ(Read(middle.get(), 0, kLength), Part(kOffset, kLength));
  EXPECT_EQ(Read(rest.get(), 0, kSize - kOffset),
            Part(kOffset, kSize - kOffset));
  EXPECT_EQ(Read(all.get(), 0, kSize), bytes_);
  EXPECT_EQ(cachet_is_shared(middle.get()), GetParam() == Way::kAttached);
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(middle.get(), kLength, &byte), CACHET_E_BOUNDS);
}

TEST_P(WindowTest, PagesAreThoseOfTheWindow) {
  Handle middle = Open("middle");
  cachet_slice slice;
  ASSERT_EQ(cachet_load(middle.get(), 0, 4096, &slice), CACHET_OK);
  EXPECT_EQ(Bytes(slice.data, slice.data + slice.length), Part(kOffset, 4096));
  cachet_release(middle.get(), &slice);
  ASSERT_EQ(cachet_load(middle.get(), kLength - 1, 1, &slice), CACHET_OK);
  EXPECT_EQ(slice.length, kLength % 4096);
  cachet_release(middle.get(), &slice);
}

TEST_P(WindowTest, AnImageMayHavePagesOfItsOwn) {
  Handle large = Open("large"), rest = Open("rest");
  EXPECT_EQ(cachet_page_size(large.get()), 65536u);
  EXPECT_EQ(cachet_page_size(rest.get()), 4096u);
  EXPECT_EQ(Read(large.get(), 0, kSize - kOffset),
            Part(kOffset, kSize - kOffset));
  EXPECT_EQ(cachet_is_shared(large.get()), GetParam() == Way::kAttached);
  cachet_slice slice;
  ASSERT_EQ(cachet_load(large.get(), 65536, 65536, &slice), CACHET_OK);
  EXPECT_EQ(Bytes(slice.data, slice.data + slice.length),
            Part(kOffset + 65536, 65536));
  cachet_release(large.get(), &slice);
}

TEST_P(WindowTest, TheListSaysTheWindowsSize) {
  cachet_admin *a = nullptr;
  cachet_error err{};
  ASSERT_EQ(cachet_admin_open(Uri("").c_str(), nullptr, &a, &err), CACHET_OK)
      << err.message;
  std::unique_ptr<cachet_admin, Close> admin(a);
  std::map<std::string, uint64_t> sizes;
  auto note = [](void *arg, const cachet_image_info *info) {
    (*static_cast<std::map<std::string, uint64_t> *>(arg))[info->name] =
        info->size;
    return 0;
  };
  ASSERT_EQ(cachet_admin_list(a, note, &sizes), CACHET_OK);
  EXPECT_EQ(sizes,
            (std::map<std::string, uint64_t>{{"all", kSize},
                                             {"large", kSize - kOffset},
                                             {"middle", kLength},
                                             {"rest", kSize - kOffset}}));
}

TEST_P(WindowTest, AChangeOfTheFileIsOneOfItsParts) {
  Handle middle = Open("middle"), rest = Open("rest");
  Read(middle.get(), 0, kLength);
  uint64_t epoch = cachet_epoch(middle.get());
  Replace(2 * kSize, 2);
  AwaitSize(rest.get(), 2 * kSize - kOffset);
  while (cachet_epoch(middle.get()) == epoch)
    Read(middle.get(), 0, 1);
  EXPECT_EQ(cachet_size(middle.get()), kLength);
  EXPECT_EQ(Read(middle.get(), 0, kLength), Part(kOffset, kLength));
  EXPECT_EQ(Read(rest.get(), 2 * kSize - kOffset - 9, 9),
            Part(2 * kSize - 9, 9));
}

TEST_P(WindowTest, OneThatTheFileCutsIsLostUntilAllOfItIsThereAgain) {
  Handle middle = Open("middle"), rest = Open("rest");
  uint64_t epoch = cachet_epoch(middle.get());
  uint8_t byte;
  Bytes first = Read(middle.get(), 0, 1);
  ASSERT_EQ(truncate(path_.c_str(), kOffset + kLength - 1), 0);
  EXPECT_EQ(cachet_get_u8(middle.get(), kLength - 1, &byte), CACHET_E_IO);
  EXPECT_THAT(
      cachet_errmsg(middle.get()),
      HasSubstr("image \"middle\": read 1699 bytes at 98304: its source "
                "ends before the window of it that is served"));
  EXPECT_EQ(cachet_epoch(middle.get()), epoch) << "the old one stays";
  AwaitSize(rest.get(), kLength - 1);
  AwaitLog("event=image-lost image=middle reason=\"its source ends before");

  Replace(kOffset + kLength, 3);
  AwaitLog("event=image-back image=middle");
  while (cachet_epoch(middle.get()) == epoch)
    cachet_get_u8(middle.get(), 0, &byte);
  EXPECT_EQ(Read(middle.get(), 0, kLength), Part(kOffset, kLength));
}

INSTANTIATE_TEST_SUITE_P(Ways, WindowTest,
                         testing::Values(Way::kAttached, Way::kTcp),
                         [](const auto &way) {
                           return way.param == Way::kTcp ? "Tcp" : "Attached";
                         });

} // namespace
