// What a daemon serves, and its counters, by the library, from a cachetd of its
// own process.
#include <cachet/cachet.h>

#include <gtest/gtest.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"

namespace {

struct AdminClose {
  void operator()(cachet_admin *a) const { cachet_admin_close(a); }
};
struct HandleClose {
  void operator()(cachet *c) const { cachet_close(c); }
};

class AdminTest : public testing::Test {
protected:
  using Admin = std::unique_ptr<cachet_admin, AdminClose>;
  using Handle = std::unique_ptr<cachet, HandleClose>;

  void SetUp() override {
    WriteRandomFile(directory_ / "disk.img", 100000, 1);
    port_ = DaemonProcess::FreePort();
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", directory_ / "disk.img", "--image",
        "later=" + (directory_ / "later"), "--page-size", "8192", "--listen",
        "unix:" + (directory_ / "s"), "--listen",
        "tcp:127.0.0.1:" + std::to_string(port_)});
    ASSERT_TRUE(daemon_->ready()) << daemon_->log();
  }

  std::string Unix(const std::string &image) const {
    return "cachet+unix:///" + image + "?socket=" + (directory_ / "s");
  }
  std::string Tcp(const std::string &image) const {
    return "cachet://127.0.0.1:" + std::to_string(port_) + "/" + image;
  }

  static Admin Connect(const std::string &uri) {
    cachet_admin *a = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_admin_open(uri.c_str(), nullptr, &a, &err), CACHET_OK)
        << err.message;
    return Admin(a);
  }

  static Handle Open(const std::string &uri) {
    cachet *c = nullptr;
    cachet_error err = {};
    EXPECT_EQ(cachet_open(uri.c_str(), nullptr, &c, &err), CACHET_OK)
        << err.message;
    return Handle(c);
  }

  // By name.
  static std::map<std::string, cachet_image_info> List(cachet_admin *a) {
    std::map<std::string, cachet_image_info> images;
    auto fn = [](void *arg, const cachet_image_info *info) {
      auto *all = static_cast<std::map<std::string, cachet_image_info> *>(arg);
      all->emplace(info->name, *info);
      return 0;
    };
    EXPECT_EQ(cachet_admin_list(a, fn, &images), CACHET_OK)
        << cachet_admin_errmsg(a);
    return images;
  }

  // By name, and for an image's by "IMAGE NAME".
  static std::map<std::string, uint64_t> Stats(cachet_admin *a) {
    std::map<std::string, uint64_t> counters;
    auto fn = [](void *arg, const char *image, const char *name,
                 uint64_t value) {
      auto *all = static_cast<std::map<std::string, uint64_t> *>(arg);
      all->emplace((image ? std::string(image) + " " : "") + name, value);
      return 0;
    };
    EXPECT_EQ(cachet_admin_stats(a, fn, &counters), CACHET_OK)
        << cachet_admin_errmsg(a);
    return counters;
  }

  TempDir directory_;
  int port_ = 0;
  std::unique_ptr<DaemonProcess> daemon_;
};

TEST_F(AdminTest, ListsWhatAHandleWouldSeeAndWhatIsMissing) {
  for (const std::string &uri : {Unix(""), Tcp("")}) {
    Admin a = Connect(uri);
    Handle c = Open(Unix("disk.img"));
    auto images = List(a.get());
    ASSERT_EQ(images.size(), 2u);
    const cachet_image_info &disk = images.at("disk.img");
    EXPECT_EQ(disk.flags, 0u);
    EXPECT_EQ(disk.size, 100000u);
    EXPECT_EQ(disk.page_size, 8192u);
    EXPECT_EQ(disk.epoch, cachet_epoch(c.get()));
    EXPECT_EQ(images.at("later").flags, CACHET_IMAGE_MISSING);
  }
}

TEST_F(AdminTest, AnImageIsMissingNoMoreOnceItIsThere) {
  Admin a = Connect(Unix(""));
  EXPECT_EQ(List(a.get()).at("later").flags, CACHET_IMAGE_MISSING);
  WriteRandomFile(directory_ / "part", 20000, 2);
  ASSERT_EQ(
      rename((directory_ / "part").c_str(), (directory_ / "later").c_str()), 0);
  while (List(a.get()).at("later").flags & CACHET_IMAGE_MISSING)
    usleep(10000); // it looks once a second
  EXPECT_EQ(List(a.get()).at("later").size, 20000u);
}

TEST_F(AdminTest, WarmingShowsInTheCounters) {
  Admin a = Connect(Unix(""));
  auto before = Stats(a.get());
  ASSERT_TRUE(before.count("disk.img hits"));
  ASSERT_TRUE(before.count("filled_pages"));
  EXPECT_EQ(before.at("filled_pages"), 0u);
  for (const std::string &uri : {Tcp("disk.img"), Unix("disk.img")}) {
    Handle c = Open(uri);
    ASSERT_EQ(cachet_warm(c.get(), 0, CACHET_TO_END), CACHET_OK)
        << cachet_errmsg(c.get());
    EXPECT_EQ(Stats(a.get()).at("filled_pages"), 13u);
  }
}

} // namespace
