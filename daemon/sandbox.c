#include "daemon/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/log.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x8u
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif
#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif
#ifndef BLKGETDISKSEQ
#define BLKGETDISKSEQ _IOR(0x12, 128, uint64_t)
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SANITIZER true
#endif
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER false
#endif

/* Sets of kinds. */
enum {
  M = 1 << SANDBOX_MAIN,
  W = 1 << SANDBOX_WORKER,
  P = 1 << SANDBOX_POOL,
  E = 1 << SANDBOX_EVICTOR,
  C = 1 << SANDBOX_RECLAIMER,
  L = 1 << SANDBOX_LOG,
  R = 1 << SANDBOX_RELOADER,
  H = 1 << SANDBOX_METRICS,
  S = 1 << SANDBOX_REACTOR,
  ALL = (1 << SANDBOX_N_KINDS) - 1,
  /* Those that make mirrors, fill them, or have a hand in it. */
  CACHE = M | W | P | E | C | R | S,
};

/* ---- Calls that are allowed whatever they are given ---------------------- */

struct call {
  unsigned kinds;
  int number;
};

static const struct call calls[] = {
    /* libc needs these for locks, memory, time, and the end of a thread. */
    {ALL, SCMP_SYS(brk)},
    {ALL, SCMP_SYS(clock_getres)},
    {ALL, SCMP_SYS(clock_gettime)},
    {ALL, SCMP_SYS(clock_nanosleep)},
    {ALL, SCMP_SYS(exit)},
    {ALL, SCMP_SYS(exit_group)},
    {ALL, SCMP_SYS(futex)},
    {ALL, SCMP_SYS(getcpu)},
    {ALL, SCMP_SYS(getpid)},
    {ALL, SCMP_SYS(getrandom)},
    {ALL, SCMP_SYS(gettid)},
    {ALL, SCMP_SYS(gettimeofday)},
    {ALL, SCMP_SYS(madvise)},
    {ALL, SCMP_SYS(mremap)},
    {ALL, SCMP_SYS(munmap)},
    {ALL, SCMP_SYS(nanosleep)},
    {ALL, SCMP_SYS(restart_syscall)},
    {ALL, SCMP_SYS(rseq)},
    {ALL, SCMP_SYS(rt_sigaction)},
    {ALL, SCMP_SYS(rt_sigprocmask)},
    {ALL, SCMP_SYS(rt_sigreturn)},
    {ALL, SCMP_SYS(sched_getaffinity)},
    {ALL, SCMP_SYS(sched_yield)},
    {ALL, SCMP_SYS(set_robust_list)},
    {ALL, SCMP_SYS(sigaltstack)},
    {ALL, SCMP_SYS(sysinfo)},
    /* Descriptors that are open. */
    {ALL, SCMP_SYS(close)},
    {ALL, SCMP_SYS(fcntl)},
    {ALL, SCMP_SYS(fstat)}, /* and newfstatat(), with glibc before 2.39 */
    {ALL, SCMP_SYS(lseek)},
    {ALL, SCMP_SYS(poll)},
    {ALL, SCMP_SYS(ppoll)},
    {ALL, SCMP_SYS(read)},
    {ALL, SCMP_SYS(readv)},
    {ALL, SCMP_SYS(write)},
    {ALL, SCMP_SYS(writev)},
    /* Mirrors: pages are written, and holes are punched. */
    {CACHE, SCMP_SYS(fallocate)},
    {CACHE, SCMP_SYS(fchmod)},
    {CACHE, SCMP_SYS(fstatfs)},
    {CACHE, SCMP_SYS(ftruncate)},
    {CACHE, SCMP_SYS(membarrier)},
    {CACHE, SCMP_SYS(munlock)},
    {CACHE, SCMP_SYS(pwrite64)},
    {CACHE, SCMP_SYS(pwritev)},
    {CACHE | H, SCMP_SYS(sendmsg)}, /* the service manager keeps them */
    /* Sources: open files are read. */
    {CACHE, SCMP_SYS(cachestat)},
    {CACHE, SCMP_SYS(fadvise64)},
    {CACHE, SCMP_SYS(pread64)},
    {CACHE, SCMP_SYS(preadv)},
    {CACHE, SCMP_SYS(preadv2)},
    /* Sources: files are looked for, and directories are listed. */
    {M | P | R | S, SCMP_SYS(access)},
    {M | P | R | S, SCMP_SYS(faccessat)},
    {M | P | R | S, SCMP_SYS(faccessat2)},
    {M | P | R | S, SCMP_SYS(getdents64)},
    {M | P | R | S, SCMP_SYS(readlink)},
    {M | P | R | S, SCMP_SYS(newfstatat)},
    {M | P | R | S, SCMP_SYS(readlinkat)},
    {M | P | R | S, SCMP_SYS(statfs)},
    {M | P | R | S, SCMP_SYS(statx)},
    {P | R, SCMP_SYS(openat2)}, /* which no filter sees the flags of */
    /* Loops, and sockets that are open. */
    {M | W | R | H | S, SCMP_SYS(epoll_ctl)},
    {M | W | R | H | S, SCMP_SYS(epoll_pwait)},
    {M | W | R | H | S, SCMP_SYS(epoll_pwait2)},
    {M | W | R | H | S, SCMP_SYS(epoll_wait)},
    {M | W | R | H | S, SCMP_SYS(getpeername)},
    {M | W | R | H | S, SCMP_SYS(getsockname)},
    {M | W | R | H | S, SCMP_SYS(getsockopt)},
    {M | W | R | H | S, SCMP_SYS(recvfrom)},
    {M | W | R | H | S, SCMP_SYS(recvmsg)},
    {M | W | R | H | S, SCMP_SYS(sendto)},
    {M | W | R | H | S, SCMP_SYS(setsockopt)},
    {M | W | R | H | S, SCMP_SYS(shutdown)},
    /* The thread's ring is there already, and makes reads alone (uring.h). */
    {W, SCMP_SYS(io_uring_enter)},
    {W, SCMP_SYS(pidfd_open)}, /* to see the end of a client that shares */
    {M | H, SCMP_SYS(accept4)},
    /* The process itself, also for messages to the service manager. */
    {M | R | S, SCMP_SYS(connect)},
    {M | R | S, SCMP_SYS(getegid)},
    {M | W | R | S, SCMP_SYS(geteuid)},
    {M | R | S, SCMP_SYS(getgid)},
    {M | W | R | S, SCMP_SYS(getuid)},
    /* Listening sockets, whose files are made and removed. */
    {R | S, SCMP_SYS(bind)}, /* or a socket that asks for addresses */
    {R, SCMP_SYS(listen)},
    {R, SCMP_SYS(chmod)},
    {R, SCMP_SYS(fchmodat)},
    {R, SCMP_SYS(unlink)},
    {M | R, SCMP_SYS(flock)},
    {M | R, SCMP_SYS(unlinkat)},
    {M, SCMP_SYS(setitimer)}, /* a stop's limit */
    /* Names of users and hosts: modules of libc may ask a service for them. */
    {R | S, SCMP_SYS(epoll_create1)},
    {R | S, SCMP_SYS(eventfd2)},
    {R | S, SCMP_SYS(getresgid)},
    {R | S, SCMP_SYS(getresuid)},
    {R | S, SCMP_SYS(pipe2)},
    {R | S, SCMP_SYS(sendmmsg)},
    {R | S, SCMP_SYS(timerfd_create)},
    {M | R | S, SCMP_SYS(timerfd_settime)}, /* M: the loop's */
    {R | S, SCMP_SYS(uname)},
    {S, SCMP_SYS(socketpair)},
    {S, SCMP_SYS(epoll_create)}, /* librados */
};

/* ---- Calls that depend on what they are given ---------------------------- */

struct filter {
  scmp_filter_ctx ctx;
  unsigned kind; /* as a set */
  int r;         /* of the first rule that failed; 0: none */
};

static void note(struct filter *f, int r) {
  /* -EDOM: this architecture has no such call. */
  if (r < 0 && r != -EDOM && f->r == 0)
    f->r = r;
}

/* Allows a call if the thread is of one of these kinds and the argument
 * matches. */
static void allow_if(struct filter *f, unsigned kinds, int number,
                     struct scmp_arg_cmp arg) {
  if (f->kind & kinds)
    note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, number, 1, arg));
}

/* The kernel ignores the upper half of the register of an int, so the filter
 * must ignore it too. */
#define ARG_IS(n, value) SCMP_CMP64(n, SCMP_CMP_MASKED_EQ, UINT32_MAX, value)
#define ARG_IS_NULL(n) SCMP_CMP64(n, SCMP_CMP_MASKED_EQ, UINT64_MAX, 0)
#define ARG_HAS_NONE(n, bits) SCMP_CMP64(n, SCMP_CMP_MASKED_EQ, bits, 0)
#define ARG_HAS_ALL(n, bits) SCMP_CMP64(n, SCMP_CMP_MASKED_EQ, bits, bits)

/* No thread may make its own memory executable.  Some threads may map a file as
 * executable.  libc loads modules when a reload looks up the first user, or the
 * reactor the first host.  The threads that the reactor begins load the modules
 * of the daemon.  A filter cannot see which file is mapped.  So these threads
 * could also map a mirror as executable, to which they may write. */
static void allow_memory(struct filter *f) {
  const struct scmp_arg_cmp file[] = {
      SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, PROT_EXEC | PROT_WRITE, PROT_EXEC),
      ARG_HAS_NONE(3, MAP_ANONYMOUS)};
  allow_if(f, ALL, SCMP_SYS(mmap), ARG_HAS_NONE(2, PROT_EXEC));
  allow_if(f, ALL, SCMP_SYS(mprotect), ARG_HAS_NONE(2, PROT_EXEC));
  if (f->kind & (R | S))
    note(f, seccomp_rule_add_array(f->ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2,
                                   file));
}

/* Files may be opened for reading.  A thread that removes a socket makes a lock
 * file beside it, without bytes.  A worker opens descriptors of its own again,
 * so that a client cannot write to them. */
static void allow_open(struct filter *f) {
  const unsigned writes =
      O_ACCMODE | O_TRUNC | O_APPEND | (O_TMPFILE & ~O_DIRECTORY);
  allow_if(f, W | P | S, SCMP_SYS(openat), ARG_HAS_NONE(2, writes | O_CREAT));
  allow_if(f, M | R, SCMP_SYS(openat), ARG_HAS_NONE(2, writes));
  /* librados names its threads, for which libc writes to a file of /proc.  It
   * works without that, so the call fails. */
  if (f->kind & S)
    note(f, seccomp_rule_add(
                f->ctx, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 1,
                SCMP_CMP64(2, SCMP_CMP_MASKED_EQ, writes | O_CREAT, O_RDWR)));
  /* Threads that do not look for files may only ask about a descriptor. */
  allow_if(f, W | E | C | H, SCMP_SYS(newfstatat), ARG_IS(3, AT_EMPTY_PATH));
  allow_if(f, W | E | C | H, SCMP_SYS(statx), ARG_HAS_ALL(2, AT_EMPTY_PATH));
  /* What the reactor finds too long, or of another version, the pool ends. */
  allow_if(f, CACHE & ~S, SCMP_SYS(memfd_create), ARG_HAS_NONE(1, MFD_EXEC));
}

/* Messages to the service manager, and questions to a service of user names,
 * need a new Unix socket.  Listeners and host names need other sockets. */
static void allow_sockets(struct filter *f) {
  allow_if(f, M | R | S, SCMP_SYS(socket), ARG_IS(0, AF_UNIX));
  allow_if(f, R | S, SCMP_SYS(socket), ARG_IS(0, AF_INET));
  allow_if(f, R | S, SCMP_SYS(socket), ARG_IS(0, AF_INET6));
  allow_if(f, S, SCMP_SYS(socket), ARG_IS(0, AF_NETLINK)); /* own addresses */
}

/* Threads are allowed, and processes are not.  A filter cannot see the flags of
 * clone3(2), so that call is answered as if the kernel did not have it: libc
 * then uses clone(2). */
static void allow_threads(struct filter *f) {
  allow_if(f, P | R | S, SCMP_SYS(clone),
           ARG_HAS_ALL(0, CLONE_VM | CLONE_THREAD));
  if (f->kind & (P | R | S))
    note(f,
         seccomp_rule_add(f->ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0));
}

/* The rest: the name of a thread, questions about limits, sockets and devices,
 * and abort(3). */
static void allow_others(struct filter *f) {
  allow_if(f, ALL, SCMP_SYS(prctl), ARG_IS(0, PR_SET_NAME));
  allow_if(f, ALL, SCMP_SYS(prlimit64), ARG_IS_NULL(2));
  allow_if(f, ALL, SCMP_SYS(tgkill), ARG_IS(0, (scmp_datum_t)getpid()));
  allow_if(f, W, SCMP_SYS(ioctl), ARG_IS(1, SIOCOUTQ));
  allow_if(f, H | S, SCMP_SYS(ioctl), ARG_IS(1, FIONREAD));
  allow_if(f, S, SCMP_SYS(ioctl), ARG_IS(1, FIONBIO));
  allow_if(f, CACHE, SCMP_SYS(ioctl), ARG_IS(1, BLKGETSIZE64));
  allow_if(f, CACHE, SCMP_SYS(ioctl), ARG_IS(1, BLKGETDISKSEQ));
}

/* ---- Filters ------------------------------------------------------------- */

static void set_up(struct filter *f) {
  note(f, seccomp_attr_set(f->ctx, SCMP_FLTATR_ACT_BADARCH,
                           SCMP_ACT_KILL_PROCESS));
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++)
    if (calls[i].kinds & f->kind)
      note(f, seccomp_rule_add(f->ctx, SCMP_ACT_ALLOW, calls[i].number, 0));
  allow_memory(f);
  allow_open(f);
  allow_sockets(f);
  allow_threads(f);
  allow_others(f);
}

/* Writes the program of a filter to a file in memory, because libseccomp has no
 * other way to give it before version 2.6. */
static int write_program(enum sandbox_kind kind, int fd) {
  struct filter f = {.ctx = seccomp_init(SCMP_ACT_KILL_PROCESS),
                     .kind = 1u << kind};
  if (!f.ctx)
    return -ENOMEM;
  set_up(&f);
  if (f.r == 0)
    f.r = seccomp_export_bpf(f.ctx, fd);
  seccomp_release(f.ctx);
  return f.r;
}

/* Makes the program of a kind; its instructions are malloc(3)ed. */
static int make_program(enum sandbox_kind kind, struct sock_fprog *program) {
  CLEANUP(cleanup_close)
  int fd = memfd_create("filter", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
    fd = memfd_create("filter", MFD_CLOEXEC);
  if (fd < 0)
    return -errno;
  int r = write_program(kind, fd);
  off_t len = r < 0 ? 0 : lseek(fd, 0, SEEK_CUR);
  if (r < 0 || len < 0)
    return r < 0 ? r : -errno;
  CLEANUP(cleanup_free) void *code = malloc((size_t)len);
  if (!code)
    return -ENOMEM;
  if (pread(fd, code, (size_t)len, 0) != len)
    return -EIO;
  program->len = (unsigned short)((size_t)len / sizeof *program->filter);
  program->filter = STEAL(code);
  return 0;
}

static int install_program(const struct sock_fprog *program) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
      syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, program) < 0)
    return -errno;
  return 0;
}

int sandbox_confine(enum sandbox_kind kind) {
  struct sock_fprog program = {0};
  int r = make_program(kind, &program);
  if (r == 0)
    r = install_program(&program);
  free(program.filter);
  return r;
}

/* ---- Entering ------------------------------------------------------------ */

/* The programs are made once, while there is one thread: libseccomp takes
 * 70 KiB of the stack and 90 KiB of the heap for each, and every thread would
 * keep its own. */
static struct {
  bool is_enabled;
  int r; /* of the first program that could not be made */
  struct sock_fprog programs[SANDBOX_N_KINDS];
} sandbox;

void sandbox_enable(void) {
  if (HAS_SANITIZER)
    return;
  /* libc reads files at the first use of some functions: that of the time zone,
   * and the number of processors, by which it limits its arenas.  A confined
   * thread must not be the first to use them. */
  tzset();
  mallopt(M_ARENA_MAX, 8 * (int)sysconf(_SC_NPROCESSORS_ONLN));
  for (int kind = 0; kind < SANDBOX_N_KINDS && sandbox.r == 0; kind++)
    sandbox.r = make_program((enum sandbox_kind)kind, &sandbox.programs[kind]);
  sandbox.is_enabled = true;
}

void sandbox_enter(enum sandbox_kind kind) {
  static atomic_flag told = ATOMIC_FLAG_INIT;
  if (!sandbox.is_enabled)
    return;
  int r = sandbox.r < 0 ? sandbox.r : install_program(&sandbox.programs[kind]);
  if (r < 0 && !atomic_flag_test_and_set(&told))
    log_event(LEVEL_WARN, "no-sandbox", LOG_TEXT("reason", strerror(-r)),
              LOG_TEXT("meaning", "threads may make any system call that the "
                                  "service may"));
}
