// One thread of another process that is held, as one that hangs.
#ifndef TESTS_SUPPORT_STOPPED_THREAD_H
#define TESTS_SUPPORT_STOPPED_THREAD_H

#include <dirent.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <fstream>
#include <string>

class StoppedThread {
public:
  // The process's thread of that name, of which there is one.  The first one
  // has that of the program, as have others before they take their own.
  StoppedThread(pid_t process, const std::string &name)
      : thread_(Find(process, name)) {
    // One that is at work may hold a lock, and then all others hang as well.
    for (Stop(); stopped_ && !Sleeps(process); Stop())
      Continue();
  }
  ~StoppedThread() { Continue(); }
  StoppedThread(const StoppedThread &) = delete;

  // False: there is none, or this system lets nobody stop it (errno).
  bool stopped() const { return stopped_; }
  void Continue() {
    if (stopped_)
      ptrace(PTRACE_DETACH, thread_, nullptr, nullptr);
    stopped_ = false;
  }

private:
  void Stop() {
    int status;
    stopped_ = thread_ != 0 &&
               ptrace(PTRACE_SEIZE, thread_, nullptr, nullptr) == 0 &&
               ptrace(PTRACE_INTERRUPT, thread_, nullptr, nullptr) == 0 &&
               waitpid(thread_, &status, __WALL) == thread_;
  }

  // Whether it was stopped in a system call, as the kernel says.
  bool Sleeps(pid_t process) const {
    std::ifstream file("/proc/" + std::to_string(process) + "/task/" +
                       std::to_string(thread_) + "/syscall");
    std::string number;
    file >> number;
    return number != "-1" && number != "running";
  }

  static pid_t Find(pid_t process, const std::string &name) {
    std::string tasks = "/proc/" + std::to_string(process) + "/task/";
    pid_t found = 0;
    DIR *dir = opendir(tasks.c_str());
    while (const dirent *entry = dir ? readdir(dir) : nullptr) {
      std::string comm;
      std::ifstream file(tasks + entry->d_name + "/comm");
      std::getline(file, comm);
      if (!found && comm == name)
        found = pid_t(atol(entry->d_name));
    }
    if (dir)
      closedir(dir);
    return found;
  }

  pid_t thread_;
  bool stopped_ = false;
};

#endif
