#include "daemon/image_sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "source/retrying.h"
#include "tests/support/fake_kind.h"

namespace {

using testing::ElementsAre;

class ImageSourcesTest : public testing::Test {
protected:
  ImageSourcesTest() {
    config_init(&config_);
    config_.kinds = fake_kinds;
    EXPECT_EQ(remotes_new(&remotes_), 0);
  }

  ~ImageSourcesTest() override {
    image_sources_close(&opened_, 1);
    remotes_free(remotes_);
    config_fini(&config_);
  }

  void Set(config_image *image, const char *key, const char *value) {
    char why[CONFIG_WHY_LEN];
    EXPECT_EQ(
        config_image_set_option(image, key, value, {nullptr, 1, nullptr}, why),
        0);
  }

  // An image of that source, in the configuration.
  config_image *Add(const char *source) {
    char why[CONFIG_WHY_LEN] = "";
    config_image image;
    config_image_init(&image, config_.kinds);
    snprintf(image.name, sizeof image.name, "a");
    EXPECT_EQ(config_image_set(&image, CONFIG_IMAGE_SOURCE, source,
                               {nullptr, 1, nullptr}, why),
              0)
        << why;
    EXPECT_EQ(config_add_image(&config_, &image, why), 0);
    return &config_.images[0];
  }

  int Open() {
    const config_image *image = &config_.images[0];
    return image_sources_open(&config_, &image, 1, IMAGE_SOURCES_START_MS,
                              remotes_, "start-failed", &opened_);
  }

  FakeKind kind_;
  config config_;
  remotes *remotes_ = nullptr;
  server_image opened_ = {};
};

TEST_F(ImageSourcesTest, AURIIsOpenedByItsKindWithItsOptions) {
  Set(Add("fake://me:secret@h/disk?sign=secret"), "ca", "/ca.pem");
  ASSERT_EQ(Open(), 0);
  EXPECT_EQ(opened_.missing, 0);
  EXPECT_EQ(opened_.source->size, 1u << 20);
  EXPECT_THAT(kind_.opened(),
              ElementsAre("fake://me:secret@h/disk?sign=secret ca=/ca.pem"));
  EXPECT_STREQ(opened_.path, "fake://h/disk") << "which is shown";
}

TEST_F(ImageSourcesTest, OneThatIsDownIsServedOnceItIsThere) {
  Add("fake://h/disk");
  kind_.Fail(ECONNREFUSED, "connect to h: Connection refused");
  testing::internal::CaptureStderr();
  ASSERT_EQ(Open(), 0);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(testing::HasSubstr("image-missing"),
                             testing::HasSubstr("connect to h: Connection")));
  EXPECT_EQ(opened_.missing, ECONNREFUSED);
  EXPECT_EQ(opened_.source->size, 0u);

  source *next = nullptr;
  EXPECT_EQ(opened_.source->ops->reopen(opened_.source, &next), -ECONNREFUSED);
  EXPECT_EQ(next, nullptr);
  kind_.Fail(0, "");
  ASSERT_EQ(opened_.source->ops->reopen(opened_.source, &next), 0);
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(next->size, 1u << 20);
  next->ops->close(next);
}

TEST_F(ImageSourcesTest, AMissReadsWhatTheKindOrTheImageSays) {
  config_image *image = Add("fake://h/disk");
  ASSERT_EQ(Open(), 0);
  EXPECT_EQ(opened_.source->fetch_size.least, 65536u);
  EXPECT_EQ(opened_.source->fetch_size.most, 4u << 20);
  image_sources_close(&opened_, 1);
  image->fetch_size.least = 8192;
  image->fetch_size.most = 16384;
  ASSERT_EQ(Open(), 0);
  EXPECT_EQ(opened_.source->fetch_size.least, 8192u);
  EXPECT_EQ(opened_.source->fetch_size.most, 16384u);
}

TEST_F(ImageSourcesTest, APartOfOneIsAnImage) {
  Add("fake://h/disk")->window = {4096, 8192};
  ASSERT_EQ(Open(), 0);
  EXPECT_EQ(opened_.source->fetch_size.least, 65536u);
  EXPECT_EQ(opened_.source->size, 8192u);
  uint8_t byte = 0;
  EXPECT_EQ(source_read_blocking(opened_.source, 0, &byte, 1), 0);
  EXPECT_EQ(byte, FakeSource::ByteAt(4096));
}

TEST_F(ImageSourcesTest, WhatIsAskedOfOneIsTriedAgainAndCounted) {
  Add("fake://h/disk");
  ASSERT_EQ(Open(), 0);
  kind_.source.FailReads(ETIMEDOUT, 1);
  uint8_t page[4096];
  EXPECT_EQ(source_read_blocking(opened_.source, 0, page, sizeof page), 0);
  ASSERT_NE(opened_.retrying, nullptr);
  retrying_counts counts;
  retrying_count(opened_.retrying, &counts);
  EXPECT_EQ(counts.n_requests, 2u);
  EXPECT_EQ(counts.n_timeouts, 1u);
  EXPECT_EQ(counts.n_bytes, sizeof page);
}

// Its thread still has what it is about to open.
TEST_F(ImageSourcesTest, AnOpeningThatWasGivenUpIsWaitedForAtTheEnd) {
  Add("fake://h/disk");
  const source_uri uri = config_image_uri(&config_.images[0]);
  kind_.ShutGate();
  remote *name = remotes_name(remotes_, fake_kinds[0], &uri);
  std::thread opening([&] {
    timespec deadline = {};
    source *opened = nullptr;
    source_fault fault;
    EXPECT_EQ(remotes_open(name, &deadline, &opened, &fault), 0);
    opened->ops->close(opened);
    remotes_unref(name);
  });
  std::thread end([&] {
    remotes_free(remotes_);
    EXPECT_EQ(kind_.source.n_closed(), 1);
  });
  kind_.OpenGate();
  end.join();
  opening.join();
  remotes_ = nullptr;
}

} // namespace
