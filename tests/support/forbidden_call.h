// System calls that fail, as in a container that forbids them: by a filter,
// which the thread keeps until it ends, and which its children inherit.
#ifndef TESTS_SUPPORT_FORBIDDEN_CALL_H
#define TESTS_SUPPORT_FORBIDDEN_CALL_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cstddef>

inline bool InstallFilter(sock_filter *code, size_t len) {
  sock_fprog program = {static_cast<unsigned short>(len), code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// From here on the call of this number fails.  False: there are no filters.
inline bool ForbidCall(int number, int error) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, unsigned(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | unsigned(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  return InstallFilter(code, sizeof code / sizeof *code);
}

// Only if the lower half of argument `i`, counted from 0, has this value.
inline bool ForbidCallWith(int number, unsigned i, unsigned value, int error) {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, unsigned(number), 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
               unsigned(offsetof(seccomp_data, args) + 8 * i)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | unsigned(error)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  return InstallFilter(code, sizeof code / sizeof *code);
}

#endif // TESTS_SUPPORT_FORBIDDEN_CALL_H
