#include "daemon/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <regex>
#include <string>
#include <thread>

namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;

constexpr char kTime[] =
    "time=[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z ";

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

  // The line without its time.
  static std::string WithoutTime(const std::string &line) {
    EXPECT_TRUE(std::regex_search(line, std::regex(std::string("^") + kTime)))
        << line;
    return line.substr(line.find(' ') + 1);
  }
};

TEST_F(LogTest, ALineIsKeysAndValues) {
  const log_field fields[] = {
      {"text", "a", 0}, {"number", nullptr, -7}, {nullptr, nullptr, 0}};
  testing::internal::CaptureStderr();
  log_write(LEVEL_WARN, "odd", fields);
  EXPECT_EQ(WithoutTime(testing::internal::GetCapturedStderr()),
            "level=warn event=odd text=a number=-7\n");
}

TEST_F(LogTest, AHostileValueCannotMakeALineOfItsOwn) {
  EXPECT_EQ(WithoutTime(Write(LEVEL_INFO, "a\nlevel=error \"x\\\x1b\xff")),
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

TEST_F(LogTest, ALineSaysWhenItWasWritten) {
  time_t before = time(nullptr);
  std::string line = Write(LEVEL_INFO, "x");
  tm utc = {};
  ASSERT_NE(strptime(line.c_str(), "time=%Y-%m-%dT%H:%M:%S.", &utc), nullptr);
  EXPECT_GE(timegm(&utc), before);
  EXPECT_LE(timegm(&utc), time(nullptr));
}

// What JOURNAL_STREAM is where descriptor 2 is the journal.
std::string JournalIsStderr() {
  struct stat st;
  fstat(2, &st);
  return std::to_string(st.st_dev) + ":" + std::to_string(st.st_ino);
}

TEST_F(LogTest, UnderTheJournalALineHasAPriorityAndNoTime) {
  for (auto [level, prefix] :
       {std::pair{LEVEL_ERROR, "<3>level="}, {LEVEL_INFO, "<6>level="}}) {
    const log_field fields[] = {{"key", "x", 0}, {nullptr, nullptr, 0}};
    testing::internal::CaptureStderr();
    setenv("JOURNAL_STREAM", JournalIsStderr().c_str(), 1);
    log_write(level, "event", fields);
    EXPECT_EQ(testing::internal::GetCapturedStderr().substr(0, 9), prefix);
  }
  unsetenv("JOURNAL_STREAM");
}

TEST_F(LogTest, AJournalThatIsNotStandardErrorDoesNotCount) {
  setenv("JOURNAL_STREAM", "8:1", 1); // inherited, and redirected since
  EXPECT_EQ(Write(LEVEL_INFO, "x").substr(0, 5), "time=");
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

// ---- The log's thread -------------------------------------------------------

// Standard error is a pipe that holds 4 KiB, and the log's thread runs.
class LogThreadTest : public LogTest {
protected:
  LogThreadTest() {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    reader_ = fds[0];
    fcntl(fds[1], F_SETPIPE_SZ, 4096);
    saved_ = dup(2);
    dup2(fds[1], 2);
    close(fds[1]);
    signal(SIGPIPE, SIG_IGN); // as the daemon does
    EXPECT_EQ(log_start(nullptr), 0);
  }

  ~LogThreadTest() override {
    CloseReader(); // so that the thread ends, whatever the test did
    Stop();
    Log(0); // takes what was dropped: the next test begins at none
    dup2(saved_, 2);
    close(saved_);
  }

  void Stop() {
    if (!stopped_)
      log_stop(30000);
    stopped_ = true;
  }

  void CloseReader() {
    if (reader_ >= 0)
      close(reader_);
    reader_ = -1;
  }

  void Log(int n) {
    const log_field fields[] = {{"n", nullptr, n}, {nullptr, nullptr, 0}};
    log_write(LEVEL_INFO, "event", fields);
  }

  // Up to and with the line that has `what`.
  std::string ReadUpTo(const std::string &what) {
    std::string lines, line;
    while (line.find(what) == std::string::npos) {
      size_t end = unread_.find('\n');
      while (end == std::string::npos && ReadMore())
        end = unread_.find('\n');
      if (end == std::string::npos)
        break;
      line = unread_.substr(0, end + 1);
      unread_.erase(0, end + 1);
      lines += line;
    }
    return lines;
  }

  bool ReadMore() {
    char buf[4096];
    pollfd p = {reader_, POLLIN, 0};
    ssize_t n = poll(&p, 1, 30000) == 1 ? read(reader_, buf, sizeof buf) : -1;
    if (n > 0)
      unread_.append(buf, size_t(n));
    return n > 0;
  }

  int reader_, saved_;
  std::string unread_; // and received
  bool stopped_ = false;
};

TEST_F(LogThreadTest, AReaderThatHasStoppedStopsNobody) {
  for (int i = 0; i < 10000; i++) // 600 KB: more than pipe and queue hold
    Log(i);
  EXPECT_THAT(ReadUpTo("n=0\n"), HasSubstr("event=event n=0\n"));
}

TEST_F(LogThreadTest, TheNextLineThatGetsThroughSaysHowManyDidNot) {
  int n = 0;
  for (; n < 10000; n++)
    Log(n);
  // Once lines are read there is room again.
  std::string lines, line;
  do {
    Log(n++);
    lines += line = ReadUpTo("\n");
  } while (line.find("lines_dropped=") == std::string::npos && n < 20000);
  std::smatch match;
  ASSERT_TRUE(std::regex_search(
      line, match, std::regex("n=([0-9]+) lines_dropped=([0-9]+)\n")));
  int whose = std::stoi(match[1]), dropped = std::stoi(match[2]);
  EXPECT_GT(dropped, 0);
  int last = whose - dropped - 1; // the last before the gap
  EXPECT_THAT(lines, HasSubstr("n=" + std::to_string(last) + "\n"));
  EXPECT_EQ(lines.find("n=" + std::to_string(last + 1) + "\n"),
            std::string::npos);
}

TEST_F(LogThreadTest, AStopWaitsForLinesThatAreRead) {
  std::string lines;
  std::thread reader([&] { lines = ReadUpTo("n=999\n"); });
  for (int i = 0; i < 1000; i++)
    Log(i);
  Stop();
  reader.join();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1000);
}

TEST_F(LogThreadTest, AReaderThatIsGoneIsNoReasonToEndOrToWait) {
  CloseReader();
  for (int i = 0; i < 10000; i++)
    Log(i);
  Stop();
}

TEST_F(LogThreadTest, ANonBlockingStandardErrorLosesNothing) {
  fcntl(2, F_SETFL, fcntl(2, F_GETFL) | O_NONBLOCK); // by another owner
  std::string lines;
  std::thread reader([&] { lines = ReadUpTo("n=999\n"); });
  for (int i = 0; i < 1000; i++)
    Log(i);
  Stop();
  reader.join();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1000);
}

TEST_F(LogTest, LevelsHaveNames) {
  EXPECT_EQ(log_level_parse("debug"), LEVEL_DEBUG);
  EXPECT_EQ(log_level_parse("DEBUG"), -1);
  EXPECT_EQ(log_level_parse("warn"), LEVEL_WARN);
}

} // namespace
