// The table of metrics, and the man page that describes each.  What the daemon
// says over HTTP is in monitor_test; that a counter counts, in the test of what
// it counts.
#include <gtest/gtest.h>

#include <fstream>
#include <regex>
#include <sstream>
#include <string>

#include "daemon/serve/metrics.h"
#include "tests/support/daemon_process.h"

namespace {

std::string Name(const metric &m, bool of_image) {
  char name[METRICS_NAME_LEN];
  metrics_print_name(&m, of_image, name);
  return name;
}

TEST(MetricsTest, NamesHaveBaseUnits) {
  EXPECT_EQ(Name({"held", METRIC_GAUGE, "bytes", METRIC_OF_DAEMON, ""}, false),
            "cachetd_held_bytes");
  EXPECT_EQ(
      Name({"bytes_sent", METRIC_COUNTER, "bytes", METRIC_OF_IMAGE, ""}, true),
      "cachetd_image_bytes_sent_total");
  EXPECT_EQ(
      Name({"hits", METRIC_COUNTER, "pages", METRIC_OF_DAEMON, ""}, false),
      "cachetd_hits_total");
}

// ".TP", ".B name \fR(kind, unit)", and the help.
TEST(MetricsTest, TheManPageDescribesEachAsTheTableDoes) {
  std::ifstream file(DaemonProcess::Runfile("docs/man/cachetd.8"));
  std::stringstream all;
  all << file.rdbuf();
  std::string page = all.str();
  size_t begin = page.find("\n.SH METRICS\n"),
         end = page.find("\n.SH ", begin + 1);
  ASSERT_NE(begin, std::string::npos);
  page = page.substr(begin, end - begin);
  std::string expected, found;
  for (const metric &m : metrics_table)
    expected += std::string(m.name) + " (" +
                (m.kind == METRIC_COUNTER ? "counter" : "gauge") + ", " +
                m.unit +
                (m.of & METRIC_OF_IMAGE ? ", of each image, too" : "") +
                "): " + m.help + ".\n";
  std::regex entry(
      "\n\\.TP\n\\.BR (\\S+) \" \\(([^\"]*)\\)\"\n([^\n]*(?:\n[^.\n][^\n]*)*)");
  for (std::sregex_iterator i(page.begin(), page.end(), entry), none; i != none;
       ++i)
    found += std::string((*i)[1]) + " (" + std::string((*i)[2]) + "): " +
             std::regex_replace(std::string((*i)[3]), std::regex("\n"), " ") +
             "\n";
  EXPECT_EQ(found, expected);
}

} // namespace
