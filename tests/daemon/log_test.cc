#include "daemon/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <string>

namespace {

using testing::HasSubstr;
using testing::Not;

class LogTest : public testing::Test {
protected:
  LogTest() { unsetenv("JOURNAL_STREAM"); }
  ~LogTest() override { log_set_level(LEVEL_INFO); }

  std::string Write(log_level level, const char *value) {
    const log_field fields[] = {{"key", value, 0}, {nullptr, nullptr, 0}};
    testing::internal::CaptureStderr();
    log_write(level, "event", fields);
    return testing::internal::GetCapturedStderr();
  }
};

TEST_F(LogTest, ALineIsKeysAndValues) {
  const log_field fields[] = {
      {"text", "a", 0}, {"number", nullptr, -7}, {nullptr, nullptr, 0}};
  testing::internal::CaptureStderr();
  log_write(LEVEL_WARN, "odd", fields);
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "level=warn event=odd text=a number=-7\n");
}

TEST_F(LogTest, AHostileValueCannotMakeALineOfItsOwn) {
  EXPECT_EQ(Write(LEVEL_INFO, "a\nlevel=error \"x\\\x1b\xff"),
            "level=info event=event "
            "key=\"a\\x0alevel=error \\\"x\\\\\\x1b\\xff\"\n");
}

TEST_F(LogTest, AnEmptyValueIsQuoted) {
  EXPECT_THAT(Write(LEVEL_INFO, ""), HasSubstr("key=\"\""));
}

TEST_F(LogTest, AnOverlongValueIsCutAndTheLineEnds) {
  std::string line = Write(LEVEL_INFO, std::string(5000, 'x').c_str());
  EXPECT_LE(line.size(), 1024u);
  EXPECT_EQ(line.back(), '\n');
}

TEST_F(LogTest, WhatIsLessUrgentThanTheLevelIsDropped) {
  log_set_level(LEVEL_WARN);
  EXPECT_EQ(Write(LEVEL_INFO, "x"), "");
  EXPECT_NE(Write(LEVEL_ERROR, "x"), "");
}

TEST_F(LogTest, UnderTheJournalALineHasAPriority) {
  setenv("JOURNAL_STREAM", "8:1", 1);
  EXPECT_EQ(Write(LEVEL_ERROR, "x").substr(0, 3), "<3>");
  EXPECT_EQ(Write(LEVEL_INFO, "x").substr(0, 3), "<6>");
  unsetenv("JOURNAL_STREAM");
}

TEST_F(LogTest, LinesThatAPeerCanCauseAreFew) {
  const log_field fields[] = {{"key", "x", 0}, {nullptr, nullptr, 0}};
  testing::internal::CaptureStderr();
  for (int i = 0; i < 10000; i++)
    log_peer(LEVEL_WARN, "noise", fields);
  std::string lines = testing::internal::GetCapturedStderr();
  EXPECT_LT(std::count(lines.begin(), lines.end(), '\n'), 1000);
}

TEST_F(LogTest, LevelsHaveNames) {
  EXPECT_EQ(log_level_parse("debug"), LEVEL_DEBUG);
  EXPECT_EQ(log_level_parse("DEBUG"), -1);
  EXPECT_STREQ(log_level_name(LEVEL_WARN), "warn");
}

} // namespace
