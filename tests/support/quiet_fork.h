// A fork whose child goes on in this program: what another thread holds at that
// moment, the allocator's lock for one, the child cannot have.
#ifndef TESTS_SUPPORT_QUIET_FORK_H
#define TESTS_SUPPORT_QUIET_FORK_H

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

// As fork(2), when no thread but this one runs.
inline pid_t QuietFork() {
  const std::string self = std::to_string(gettid());
  for (bool all_sleep = false; !all_sleep;) {
    all_sleep = true;
    for (const auto &task :
         std::filesystem::directory_iterator("/proc/self/task")) {
      std::string stat;
      std::getline(std::ifstream(task.path() / "stat"), stat);
      const size_t state = stat.rfind(')') + 2; // a thread may have ended
      if (task.path().filename() != self && state < stat.size() &&
          stat[state] != 'S')
        all_sleep = false;
    }
  }
  return fork();
}

#endif
