#include "client/command/progress.h"

#include <gtest/gtest.h>

#include <pty.h>
#include <unistd.h>

#include <cstdio>
#include <string>

namespace {

std::string Line(uint64_t total, uint64_t done, int64_t ms) {
  progress p = {};
  p.act = "warm";
  p.total = total;
  char line[PROGRESS_LINE_LEN];
  progress_print(&p, done, ms, line);
  return line;
}

TEST(ProgressTest, ShowsABarARateAndTheTimeThatIsLeft) {
  EXPECT_EQ(Line(400000000, 100000000, 2000),
            "warm: [######..................]  25 %, 50.0 MB/s, 6 s left");
  EXPECT_EQ(Line(100000000, 100000000, 2000),
            "warm: [########################] 100 %, 50.0 MB/s, 0 s left");
}

TEST(ProgressTest, LongTimesAreMinutes) {
  EXPECT_EQ(Line(100000000000, 4000000000, 40000),
            "warm: [........................]   4 %, 100.0 MB/s, 16 min left");
  EXPECT_EQ(Line(UINT64_MAX, 1, 3600000),
            "warm: [........................]   0 %, 0.0 MB/s, long left");
}

TEST(ProgressTest, ARateThatSaysNothingIsNotShown) {
  EXPECT_EQ(Line(100, 50, 100), "warm: [############............]  50 %");
  EXPECT_EQ(Line(100, 0, 5000), "warm: [........................]   0 %");
  EXPECT_EQ(Line(0, 0, 100), "warm: [########################] 100 %");
}

// What standard error gets from a piece of work that lasts long enough.
std::string Shown(bool is_terminal) {
  int here, there, pipe_fds[2];
  EXPECT_EQ(openpty(&here, &there, nullptr, nullptr, nullptr), 0);
  EXPECT_EQ(pipe(pipe_fds), 0);
  int before = dup(STDERR_FILENO);
  dup2(is_terminal ? there : pipe_fds[1], STDERR_FILENO);
  progress p = progress_begin("warm", 100);
  p.begun_ms -= 1000; // it has lasted for a second
  p.shown_ms -= 1000;
  progress_show(&p, 50);
  progress_show(&p, 60); // too soon to show again
  progress_end(&p);
  fputs("end\n", stderr);
  dup2(before, STDERR_FILENO);
  std::string shown;
  char c = 0;
  while (c != '\n' && read(is_terminal ? here : pipe_fds[0], &c, 1) == 1)
    shown += c;
  for (int fd : {here, there, pipe_fds[0], pipe_fds[1], before})
    close(fd);
  return shown;
}

TEST(ProgressTest, ATerminalIsShownALineThatGoesAtTheEnd) {
  EXPECT_EQ(Shown(true), "\rwarm: [############............]  50 %, 0.0 MB/s, "
                         "1 s left\033[K\r\033[Kend\r\n");
}

TEST(ProgressTest, WhatIsNoTerminalIsShownNothing) {
  EXPECT_EQ(Shown(false), "end\n");
}

} // namespace
