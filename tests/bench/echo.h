/* echo: the other end of a bare round trip over a Unix socket: a process that
 * sends back what it receives, and does nothing else. */
#ifndef TESTS_BENCH_ECHO_H
#define TESTS_BENCH_ECHO_H

#include <sys/types.h>

/* About what a Read that names one page, and its answer, take. */
enum { ECHO_LEN = 64 };

struct echo {
  pid_t pid;
  int fd;
};

void echo_start(struct echo *e);

/* Sends ECHO_LEN bytes, and waits until they are back. */
void echo_round_trip(const struct echo *e);

/* Ends the process, and waits for its end. */
void echo_stop(const struct echo *e);

#endif
