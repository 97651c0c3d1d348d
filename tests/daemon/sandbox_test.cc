// The filters of system calls: what each kind of thread may do, and what kills
// the process.
#include "daemon/sandbox.h"

#include <gtest/gtest.h>

#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

namespace {

enum Exit { kLived = 0, kUnconfined = 3, kFailed = 4 };

struct Kind {
  sandbox_kind kind;
  std::string name;
};

const Kind kinds[] = {
    {SANDBOX_MAIN, "main"},           {SANDBOX_WORKER, "worker"},
    {SANDBOX_POOL, "pool"},           {SANDBOX_EVICTOR, "evictor"},
    {SANDBOX_RECLAIMER, "reclaimer"}, {SANDBOX_LOG, "log"},
    {SANDBOX_RELOADER, "reloader"},   {SANDBOX_PRESSURE, "pressure"},
    {SANDBOX_CLOSER, "closer"},       {SANDBOX_METRICS, "metrics"},
};

// Does it in a thread of that kind of a process of its own.  Returns the
// status, as of waitpid(2).
int Try(sandbox_kind kind, const std::function<bool()> &act) {
  pid_t pid = fork();
  if (pid == 0) {
    rlimit none = {0, 0}; // no cores
    setrlimit(RLIMIT_CORE, &none);
    std::thread([&] {
      if (sandbox_confine(kind) < 0)
        _exit(kUnconfined);
      _exit(act() ? kLived : kFailed);
    }).join();
  }
  int status = -1;
  EXPECT_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

void ExpectLives(const Kind &kind, const std::string &what,
                 const std::function<bool()> &act) {
  int status = Try(kind.kind, act);
  EXPECT_FALSE(WIFSIGNALED(status))
      << kind.name << ": " << what << ": " << strsignal(WTERMSIG(status));
  EXPECT_EQ(WEXITSTATUS(status), kLived) << kind.name << ": " << what;
}

void ExpectDies(const Kind &kind, const std::string &what,
                const std::function<void()> &act) {
  int status = Try(kind.kind, [&] {
    act();
    return true;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
      << kind.name << ": " << what << ": status " << status;
}

class SandboxTest : public testing::TestWithParam<Kind> {
protected:
  static void SetUpTestSuite() {
    int status = Try(SANDBOX_LOG, [] { return true; });
    if (WIFEXITED(status) && WEXITSTATUS(status) == kUnconfined)
      GTEST_SKIP() << "there is no seccomp here";
  }
  bool IsOneOf(std::initializer_list<sandbox_kind> some) const {
    for (sandbox_kind kind : some)
      if (kind == GetParam().kind)
        return true;
    return false;
  }
  void Dies(const std::string &what, const std::function<void()> &act) {
    ExpectDies(GetParam(), what, act);
  }
  void Lives(const std::string &what, const std::function<bool()> &act) {
    ExpectLives(GetParam(), what, act);
  }
};

// A call by its number, with nothing that it could work on.
template <typename... Args> void Call(long number, Args... args) {
  syscall(number, args...);
}

TEST_P(SandboxTest, ForbiddenActsKillTheProcess) {
  static char word[] = "x";
  static char *argv[] = {word, nullptr};
  struct {
    const char *what;
    std::function<void()> act;
  } const acts[] = {
      {"execve", [] { execv("/bin/true", argv); }},
      {"execveat", [] { Call(SYS_execveat, -1, "", argv, argv, 0); }},
      {"fork", [] { fork(); }},
      {"vfork", [] { Call(SYS_vfork); }},
      {"a process by clone", [] { Call(SYS_clone, SIGCHLD, 0, 0, 0, 0); }},
      {"system", [] { EXPECT_EQ(system("true"), 0); }},
      {"ptrace", [] { ptrace(PTRACE_TRACEME, 0, 0, 0); }},
      {"process_vm_readv",
       [] { Call(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0); }},
      {"process_vm_writev",
       [] { Call(SYS_process_vm_writev, 1, 0, 0, 0, 0, 0); }},
      {"pidfd_getfd", [] { Call(SYS_pidfd_getfd, -1, 0, 0); }},
      {"kill", [] { kill(getppid(), 0); }},
      {"tgkill of another process",
       [] { Call(SYS_tgkill, getppid(), getppid(), 0); }},
      {"open to write", [] { open("/dev/null", O_WRONLY | O_CLOEXEC); }},
      {"open to read and write", [] { open("/dev/null", O_RDWR | O_CLOEXEC); }},
      {"open and cut", [] { open("/dev/null", O_RDONLY | O_TRUNC); }},
      {"make a file to write to",
       [] { open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); }},
      {"creat", [] { Call(SYS_creat, "/dev/null", 0); }},
      {"rename", [] { Call(SYS_rename, "", ""); }},
      {"link", [] { Call(SYS_link, "", ""); }},
      {"mkdir", [] { Call(SYS_mkdir, "", 0); }},
      {"chown", [] { Call(SYS_fchownat, -1, "", 0, 0, 0); }},
      {"truncate", [] { Call(SYS_truncate, "", 0); }},
      {"an executable mapping",
       [] {
         mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
              -1, 0);
       }},
      {"a mapping to write to and run",
       [] { mmap(nullptr, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE, 0, 0); }},
      {"make memory executable",
       [] { Call(SYS_mprotect, 0, 4096, PROT_READ | PROT_EXEC); }},
      {"pkey_mprotect", [] { Call(SYS_pkey_mprotect, 0, 0, PROT_EXEC, -1); }},
      {"an executable memfd",
       [] { Call(SYS_memfd_create, "x", MFD_CLOEXEC | MFD_EXEC); }},
      {"a netlink socket", [] { socket(AF_NETLINK, SOCK_RAW, 0); }},
      {"a packet socket", [] { socket(AF_PACKET, SOCK_RAW, 0); }},
      {"a vsock", [] { socket(AF_VSOCK, SOCK_STREAM, 0); }},
      {"an algorithm's socket", [] { socket(AF_ALG, SOCK_SEQPACKET, 0); }},
      {"bpf", [] { Call(SYS_bpf, 0, 0, 0); }},
      {"userfaultfd", [] { Call(SYS_userfaultfd, 0); }},
      {"perf_event_open", [] { Call(SYS_perf_event_open, 0, 0, -1, -1, 0); }},
      {"io_uring", [] { Call(SYS_io_uring_setup, 1, 0); }},
      {"io_uring_register", [] { Call(SYS_io_uring_register, -1, 0, 0, 0); }},
      {"keyctl", [] { Call(SYS_keyctl, KEYCTL_GET_KEYRING_ID, 0, 0); }},
      {"add_key", [] { Call(SYS_add_key, "", "", 0, 0, 0); }},
      {"mount", [] { Call(SYS_mount, "", "", "", 0, 0); }},
      {"umount", [] { Call(SYS_umount2, "", 0); }},
      {"pivot_root", [] { Call(SYS_pivot_root, "", ""); }},
      {"chroot", [] { Call(SYS_chroot, ""); }},
      {"unshare", [] { Call(SYS_unshare, CLONE_NEWUSER); }},
      {"setns", [] { Call(SYS_setns, -1, 0); }},
      {"setuid", [] { Call(SYS_setuid, getuid()); }},
      {"setgid", [] { Call(SYS_setgid, getgid()); }},
      {"capset", [] { Call(SYS_capset, 0, 0); }},
      {"kexec", [] { Call(SYS_kexec_load, 0, 0, 0, 0); }},
      {"a module", [] { Call(SYS_finit_module, -1, "", 0); }},
      {"reboot", [] { Call(SYS_reboot, 0, 0, 0, 0); }},
      {"the clock", [] { Call(SYS_clock_settime, 0, 0); }},
      {"a limit", [] { Call(SYS_prlimit64, 0, RLIMIT_CORE, "", 0); }},
      {"personality", [] { Call(SYS_personality, 0xffffffff); }},
      {"a core dump of itself", [] { prctl(PR_SET_DUMPABLE, 1); }},
      {"another filter", [] { prctl(PR_SET_SECCOMP, 1); }},
      {"terminal input",
       [] { Call(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, word); }},
      {"open_by_handle_at", [] { Call(SYS_open_by_handle_at, -1, 0, 0); }},
#ifdef __x86_64__
      {"a call of 32 bits",
       [] {
         long number = 20; // getpid
         __asm__ volatile("int $0x80" : "+a"(number) : : "memory");
       }},
      {"a call of x32", [] { Call(0x40000000 + 39); }},
#endif
  };
  for (const auto &act : acts)
    Dies(act.what, act.act);
  if (!IsOneOf({SANDBOX_MAIN, SANDBOX_RELOADER})) {
    Dies("make a file", [] { open("/dev/null", O_RDONLY | O_CREAT, 0600); });
    Dies("remove a file", [] { Call(SYS_unlinkat, -1, "", 0); });
    Dies("a socket", [] { socket(AF_UNIX, SOCK_STREAM, 0); });
    Dies("connect", [] { Call(SYS_connect, -1, 0, 0); });
  }
  if (!IsOneOf({SANDBOX_RELOADER})) {
    Dies("a network socket", [] { socket(AF_INET, SOCK_STREAM, 0); });
    Dies("bind", [] { Call(SYS_bind, -1, 0, 0); });
    Dies("a file's code", [] {
      Call(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, -1, 0);
    });
  }
  if (!IsOneOf({SANDBOX_WORKER}))
    Dies("a ring", [] { Call(SYS_io_uring_enter, -1, 0, 0, 0, 0, 0); });
  if (!IsOneOf({SANDBOX_RELOADER, SANDBOX_POOL})) {
    Dies("a thread", [] { std::thread([] {}).join(); });
    Dies("openat2", [] { Call(SYS_openat2, -1, "", 0, 0); });
  }
  if (IsOneOf({SANDBOX_EVICTOR, SANDBOX_RECLAIMER, SANDBOX_LOG,
               SANDBOX_PRESSURE, SANDBOX_CLOSER})) {
    Dies("open to read", [] { open("/dev/null", O_RDONLY); });
    Dies("receive", [] { Call(SYS_recvfrom, -1, 0, 0, 0, 0, 0); });
  }
}

TEST_P(SandboxTest, WhatALibcDoesLives) {
  Lives("memory, small and large", [] {
    for (size_t len = 16; len < (64u << 20); len *= 4) {
      std::unique_ptr<char[]> bytes(new char[len]);
      bytes[len - 1] = 1;
    }
    return true;
  });
  Lives("a pipe and a clock", [] {
    timespec now;
    char byte;
    int fds[2] = {-1, -1};
    return write(fds[1], "x", 1) < 0 && read(fds[0], &byte, 1) < 0 &&
           clock_gettime(CLOCK_MONOTONIC, &now) == 0 && usleep(1) == 0;
  });
  Lives("its name", [] { return prctl(PR_SET_NAME, "name") == 0; });
  int status = Try(GetParam().kind, [] {
    abort();
    return true;
  });
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT)
      << "an assertion that fails is seen as that";
}

INSTANTIATE_TEST_SUITE_P(Of, SandboxTest, testing::ValuesIn(kinds),
                         [](const auto &i) { return i.param.name; });

TEST(SandboxKindsTest, AWorkerUsesItsRing) {
  ExpectLives(kinds[1], "io_uring_enter", [] {
    return syscall(SYS_io_uring_enter, -1, 0, 0, 0, nullptr, 0) < 0 &&
           errno == EBADF;
  });
}

TEST(SandboxKindsTest, ThoseWhoReadSourcesOpenThemAndMakeThreads) {
  const Kind pool = kinds[2], reloader = kinds[6];
  for (const Kind &kind : {pool, reloader}) {
    ExpectLives(kind, "open", [] {
      return open("/dev/null", O_RDONLY | O_CLOEXEC | O_NONBLOCK) >= 0;
    });
    ExpectLives(kind, "a thread", [] {
      bool ran = false;
      std::thread([&] { ran = true; }).join();
      return ran;
    });
    ExpectLives(kind, "a mirror", [] {
      int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
      return fd >= 0 && ftruncate(fd, 1 << 20) == 0 &&
             mmap(nullptr, 1 << 20, PROT_READ, MAP_SHARED, fd, 0) !=
                 MAP_FAILED &&
             fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                       4096) == 0;
    });
  }
}

TEST(SandboxKindsTest, WorkersAskSocketsHowMuchTheyHold) {
  const Kind worker = kinds[1];
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ExpectLives(worker, "ioctl", [=] {
    int n;
    ioctl(fd, SIOCOUTQ, &n); // it is not connected
    return true;
  });
  ExpectLives(worker, "getsockopt", [=] {
    tcp_info info;
    socklen_t len = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0;
  });
  close(fd);
}

TEST(SandboxKindsTest, TheReactorMakesNoMemoryThatItCouldMapAsCode) {
  const Kind reactor = {SANDBOX_REACTOR, "reactor"};
  ExpectDies(reactor, "a mirror", [] { memfd_create("x", MFD_CLOEXEC); });
  ExpectDies(reactor, "an executable mapping", [] {
    mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
         0);
  });
}

TEST(SandboxKindsTest, TheReloaderListensAndLooksUsersUp) {
  const Kind reloader = kinds[6];
  for (int family : {AF_UNIX, AF_INET, AF_INET6})
    ExpectLives(reloader, "a socket", [family] {
      return socket(family, SOCK_STREAM, 0) >= 0 || errno == EAFNOSUPPORT;
    });
  ExpectLives(reloader, "a module of libc's", [] {
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    return mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) !=
           MAP_FAILED;
  });
}

} // namespace
