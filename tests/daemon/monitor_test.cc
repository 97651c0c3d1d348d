// What the daemon says of itself over HTTP, and that all places say the same.
#include <gtest/gtest.h>

#include <cachet/cachet.h>

#include <map>
#include <memory>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "daemon/monitor.h"
#include "daemon/net/listener.h"
#include "daemon/serve/metrics.h"
#include "source/retrying.h"
#include "tests/support/http_client.h"
#include "tests/support/listener_port.h"
#include "tests/support/test_server.h"

namespace {

constexpr uint64_t kSize = 1 << 20;

class MonitorTest : public testing::Test {
protected:
  void TearDown() override { monitor_stop(monitor_); }

  void Start(const std::vector<std::string> &names,
             const TestServer::Options &options = {}) {
    std::vector<std::pair<std::string, FakeSource *>> images;
    for (const std::string &name : names) {
      sources_.push_back(std::make_unique<FakeSource>(kSize));
      images.emplace_back(name, sources_.back().get());
    }
    server_ = std::make_unique<TestServer>(images, options);
    address a;
    char err[256];
    listener *l;
    ASSERT_EQ(address_parse("tcp:127.0.0.1:0", &a, err, sizeof err), 0);
    ASSERT_EQ(listener_open(&a, &l, err, sizeof err), 0) << err;
    port_ = ListenerPort(l);
    ASSERT_EQ(monitor_start(server_->get(), l, &monitor_), 0);
  }
  HttpReply Get(const std::string &path) { return HttpClient(port_).Get(path); }
  MetricsText Metrics() {
    HttpReply reply = Get("/metrics");
    EXPECT_EQ(reply.status, 200);
    EXPECT_TRUE(reply.is_whole);
    EXPECT_NE(reply.head.find("text/plain; version=0.0.4; charset=utf-8"),
              std::string::npos);
    return MetricsText(reply.body);
  }

  std::vector<std::unique_ptr<FakeSource>> sources_;
  std::unique_ptr<TestServer> server_; // ends before the sources
  monitor *monitor_ = nullptr;         // is stopped before the server
  int port_ = 0;
};

std::string Name(const metric &m, bool of_image) {
  char name[METRICS_NAME_LEN];
  metrics_print_name(&m, of_image, name);
  return name;
}

TEST_F(MonitorTest, AllMetricsAreThereInTheFormatOfPrometheus) {
  Start({"disk"});
  MetricsText text = Metrics();
  EXPECT_EQ(text.errors, std::vector<std::string>{});
  std::set<std::string> expected;
  for (const metric &m : metrics_table) {
    if (m.of & METRIC_OF_DAEMON)
      expected.insert(Name(m, false));
    if (m.of & (METRIC_OF_IMAGE | METRIC_OF_SOURCE))
      expected.insert(Name(m, true));
  }
  std::set<std::string> found;
  for (const auto &type : text.types) {
    found.insert(type.first);
    bool is_total = std::regex_search(type.first, std::regex("_total$"));
    EXPECT_EQ(type.second == "counter", is_total) << type.first;
  }
  EXPECT_EQ(found, expected);
}

TEST_F(MonitorTest, WhatIsAskedOfRemoteSourcesIsThereForThemAlone) {
  const retrying_clock clock = {[](void *) { return uint64_t{1}; },
                                [](void *, reactor_alarm *, uint64_t) {},
                                nullptr};
  retrying *counts = retrying_new(&clock, "far", nullptr);
  FakeSource far(kSize, FakeReads::kCallBack);
  source *src;
  ASSERT_EQ(retrying_source_new(counts, far.Open(), &src), 0);
  char bytes[100];
  ASSERT_EQ(source_read_blocking(src, 0, bytes, sizeof bytes), 0);
  Start({"disk"});
  server_image image = {};
  image.name = "far";
  image.source = src;
  image.retrying = counts;
  ASSERT_EQ(server_add_image(server_->get(), &image), 0);
  std::string text = Get("/metrics").body;
  EXPECT_NE(text.find("cachetd_image_source_requests_total{image=\"far\"} 1\n"),
            std::string::npos);
  EXPECT_NE(text.find("cachetd_image_source_bytes_total{image=\"far\"} 100\n"),
            std::string::npos);
  EXPECT_NE(
      text.find("cachetd_image_source_asked_bytes_total{image=\"far\"} 0\n"),
      std::string::npos);
  EXPECT_EQ(text.find("cachetd_image_source_requests_total{image=\"disk\"}"),
            std::string::npos);
  EXPECT_NE(text.find("cachetd_image_hits_total{image=\"far\"} 0\n"),
            std::string::npos);
  monitor_stop(monitor_);
  monitor_ = nullptr;
  server_.reset(); // before the source that it reads
}

// A Message has room for the counters of some images only.
TEST_F(MonitorTest, StatsOfManyRemoteImagesComeInParts) {
  const retrying_clock clock = {[](void *) { return uint64_t{1}; },
                                [](void *, reactor_alarm *, uint64_t) {},
                                nullptr};
  const int n = 200;
  FakeSource far(kSize, FakeReads::kCallBack);
  Start({});
  for (int i = 0; i < n; i++) {
    std::string name = std::to_string(1000 + i) + std::string(60, 'n');
    server_image image = {};
    image.name = name.c_str();
    image.retrying = retrying_new(&clock, image.name, nullptr);
    source *src;
    ASSERT_EQ(retrying_source_new(image.retrying, far.Open(), &src), 0);
    image.source = src;
    ASSERT_EQ(server_add_image(server_->get(), &image), 0);
  }
  cachet_admin *admin;
  cachet_error error;
  std::string uri = "cachet+unix:///?socket=" + server_->socket_path();
  ASSERT_EQ(cachet_admin_open(uri.c_str(), nullptr, &admin, &error), CACHET_OK)
      << error.message;
  std::map<std::string, int> images;
  EXPECT_EQ(cachet_admin_stats(
                admin,
                [](void *arg, const char *image, const char *, uint64_t) {
                  auto &found = *static_cast<std::map<std::string, int> *>(arg);
                  if (image)
                    found[image]++;
                  return 0;
                },
                &images),
            CACHET_OK);
  cachet_admin_close(admin);
  EXPECT_EQ(images.size(), size_t(n));
  int n_metrics = 0;
  for (const metric &m : metrics_table)
    n_metrics += (m.of & (METRIC_OF_IMAGE | METRIC_OF_SOURCE)) != 0;
  for (const auto &image : images)
    EXPECT_EQ(image.second, n_metrics) << image.first;
  monitor_stop(monitor_);
  monitor_ = nullptr;
  server_.reset(); // before the source that it reads
}

TEST_F(MonitorTest, MetricsAndStatsSayTheSame) {
  Start({"one", "two"});
  WireClient client = server_->Unix();
  uint32_t image = client.Start("two").image;
  client.Read(image, 0, 8192);
  client.Read(image, 0, 4096);
  std::map<std::string, uint64_t> stats = client.Stats();
  MetricsText text = Metrics();
  for (const metric &m : metrics_table)
    if (m.of & METRIC_OF_DAEMON) {
      EXPECT_EQ(text.values.at(Name(m, false)), double(stats.at(m.name)))
          << m.name;
    }
  EXPECT_EQ(text.values.at("cachetd_hits_total"), 1);
  EXPECT_EQ(text.values.at("cachetd_image_hits_total{image=\"two\"}"), 1);
  EXPECT_EQ(text.values.at("cachetd_image_misses_total{image=\"two\"}"), 2);
  EXPECT_EQ(text.values.at("cachetd_image_misses_total{image=\"one\"}"), 0);
}

TEST_F(MonitorTest, TotalsKeepWhatWasCountedOfAnImageThatIsGone) {
  Start({"one", "two"});
  WireClient client = server_->Unix();
  client.Read(client.Start("two").image, 0, 8192);
  ASSERT_TRUE(server_->Remove("two"));
  MetricsText text = Metrics();
  EXPECT_EQ(text.values.at("cachetd_misses_total"), 2);
  EXPECT_EQ(text.values.count("cachetd_image_misses_total{image=\"two\"}"), 0u);
}

TEST_F(MonitorTest, ImagesComeInManyParts) {
  std::vector<std::string> names;
  for (int i = 0; i < 300; i++)
    names.push_back("image-" + std::to_string(i));
  Start(names);
  MetricsText text = Metrics();
  EXPECT_EQ(text.errors, std::vector<std::string>{});
  for (const std::string &name : names)
    EXPECT_EQ(
        text.values.count("cachetd_image_hits_total{image=\"" + name + "\"}"),
        1u);
}

TEST_F(MonitorTest, NamesOfImagesAreEscaped) {
  Start({"a\"b\\c\nd"});
  MetricsText text = Metrics();
  EXPECT_EQ(text.errors, std::vector<std::string>{});
  EXPECT_EQ(
      text.values.count("cachetd_image_hits_total{image=\"a\\\"b\\\\c\\nd\"}"),
      1u);
}

TEST_F(MonitorTest, LoopsThatTurnAreAlive) {
  Start({"disk"});
  for (int i = 0; i < 3; i++) {
    HttpReply reply = Get("/livez");
    EXPECT_EQ(reply.status, 200) << reply.body;
    EXPECT_EQ(reply.body, "ok\n");
  }
}

TEST_F(MonitorTest, AnImageThatIsBeingWarmedIsReady) {
  TestServer::Options options;
  options.warm = true;
  Start({"disk"}, options);
  sources_[0]->ShutGate(); // it may have got that far, or not
  HttpReply reply;
  do
    reply = Get("/readyz");
  while (reply.body.find("accepts no connections yet") != std::string::npos);
  EXPECT_EQ(reply.status, 200) << reply.body;
  sources_[0]->OpenGate();
}

TEST_F(MonitorTest, EndsWhilePeersWait) {
  Start({"disk"});
  HttpClient first(port_), second(port_);
  first.Send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
  second.Send("GET /metrics HTTP/1.1\r\n");
  monitor_stop(monitor_);
  monitor_ = nullptr;
}

} // namespace
