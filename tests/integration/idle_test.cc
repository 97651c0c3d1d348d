// A daemon that nobody asks for anything sleeps, but for a look at all its
// images once a second, and keeps no memory of the reads that it has made.
#include <gtest/gtest.h>

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tests/support/daemon_process.h"
#include "tests/support/wire_client.h"

namespace {

// How often each thread of a process went to sleep, so far.
std::map<std::string, uint64_t> Sleeps(pid_t pid) {
  std::map<std::string, uint64_t> sleeps;
  std::string tasks = "/proc/" + std::to_string(pid) + "/task/";
  DIR *dir = opendir(tasks.c_str());
  while (const dirent *entry = dir ? readdir(dir) : nullptr) {
    if (entry->d_name[0] == '.')
      continue;
    std::ifstream status(tasks + entry->d_name + "/status");
    for (std::string word; status >> word;)
      if (word == "voluntary_ctxt_switches:")
        status >> sleeps[entry->d_name];
  }
  if (dir)
    closedir(dir);
  return sleeps;
}

constexpr int kSeconds = 4;
// The thread that has the timer, and the one that looks.
constexpr size_t kAwake = 2;

// What woke in some seconds: how often, in all, and how many threads.
struct Awake {
  uint64_t n = 0;
  size_t n_threads = 0;
  double seconds = 0;  // a busy machine makes more of them
  std::string wakeups; // thread=times

  // A look takes one sleep of each of the two threads.
  double limit() const { return 2 * (seconds + 1); }
};

Awake Watch(pid_t pid) {
  auto start = std::chrono::steady_clock::now();
  auto before = Sleeps(pid);
  sleep(kSeconds);
  Awake awake;
  for (const auto &[thread, n] : Sleeps(pid)) {
    uint64_t woke = n - before[thread];
    awake.n += woke;
    awake.n_threads += woke > 0;
    awake.wakeups += " " + thread + "=" + std::to_string(woke);
  }
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  awake.seconds = took.count();
  return awake;
}

TEST(IdleTest, ADaemonOfManyImagesWakesForALookASecondAtAllOfThem) {
  constexpr int kImages = 128;
  TempDir directory;
  std::string socket = directory / "s";
  std::vector<std::string> args{"--listen", "unix:" + socket};
  for (int i = 0; i < kImages; i++) {
    std::string path = directory / std::to_string(i);
    WriteRandomFile(path, 10000, uint64_t(i));
    args.insert(args.end(), {"--image", path});
  }
  DaemonProcess daemon(args);
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  WireClient quiet = WireClient::Unix(socket); // and stays
  uint32_t image = quiet.Start("7").image;
  EXPECT_EQ(quiet.Read(image, 0, 10000).status, 0);

  // It takes a while until what began with the read has ended, and on a machine
  // that is busy a look may wait for the file system; a daemon that is not idle
  // never gets there.
  Awake awake;
  std::string tries; // a line for each
  for (int i = 0; i < 10; i++) {
    awake = Watch(daemon.pid());
    tries += awake.wakeups + "\n";
    if (awake.n_threads <= kAwake && double(awake.n) <= awake.limit())
      break;
  }
  EXPECT_LE(awake.n_threads, kAwake) << tries;
  EXPECT_LE(double(awake.n), awake.limit()) << tries;
}

// Memory that the process has for itself, in KiB.
uint64_t AnonymousKib(pid_t pid) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/smaps_rollup");
  uint64_t kib = 0;
  for (std::string word; in >> word;)
    if (word == "Anonymous:")
      in >> kib;
  return kib;
}

bool PagesAreHugeUnasked() {
  std::ifstream in("/sys/kernel/mm/transparent_hugepage/enabled");
  std::string word;
  in >> word;
  return word == "[always]";
}

TEST(IdleTest, WhatLongReadsTookGoesBackToTheKernel) {
  constexpr uint64_t kLimitKib = 3 << 10; // 0.6 MiB of it are of the policy
  if (PagesAreHugeUnasked())
    GTEST_SKIP() << "the kernel gives any memory in huge pages";
  TempDir directory;
  const std::string socket = directory / "s", image = directory / "i";
  WriteRandomFile(image, 64 << 20, 1);
  // More workers may take more buffers than there are.
  DaemonProcess daemon(
      {"--listen", "unix:" + socket, "--image", image, "--workers", "2"});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  const std::string command = DaemonProcess::Runfile("client/cachet") +
                              " cat 'cachet+unix:///i?socket=" + socket +
                              "' >" + (directory / "out");
  std::vector<FILE *> readers;
  for (int i = 0; i < 4; i++)
    readers.push_back(popen((command + std::to_string(i)).c_str(), "r"));
  for (FILE *reader : readers)
    EXPECT_EQ(pclose(reader), 0);
  auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (AnonymousKib(daemon.pid()) > kLimitKib &&
         std::chrono::steady_clock::now() < end)
    usleep(50000);
  EXPECT_LE(AnonymousKib(daemon.pid()), kLimitKib) << daemon.log();
}

} // namespace
