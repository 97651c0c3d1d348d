/* rig: what the benchmarks stand on: a file of random bytes, daemons over it,
 * clients of those, a clock.
 *
 * A rig fails by ending the program with status 1 and a message.  What it made
 * and started goes with the program then, as at a regular end.  One rig a
 * program; the thread of main() only. */
#ifndef TESTS_BENCH_RIG_H
#define TESTS_BENCH_RIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include <cachet/cachet.h>

enum { RIG_PAGE = 4096, RIG_CHUNK = 1 << 20, RIG_MAX_SERVERS = 16 };
enum { RIG_PATH_LEN = 80 };

/* Room beyond the file in a daemon's cache: what clients pin comes out of it.
 */
#define RIG_SPARE_CACHE (UINT64_C(344) << 20)

/* A program that serves the file on a Unix socket. */
struct rig_server {
  bool taken; /* from rig_server_new() to rig_server_stop() */
  pid_t pid;
  int stdin_fd; /* the other end of its standard input, or -1: none */
  char socket[RIG_PATH_LEN];
};

struct rig {
  char dir[64], file[RIG_PATH_LEN];
  uint64_t size; /* of the file: whole chunks */
  int fd;
  struct rig_server servers[RIG_MAX_SERVERS];
};

__attribute__((format(printf, 1, 2), noreturn)) void
rig_fail(const char *format, ...);

/* Fails unless the status is CACHET_OK. */
__attribute__((noreturn)) void rig_fail_call(const cachet *c,
                                             enum cachet_status status);
static inline void rig_check(const cachet *c, enum cachet_status status) {
  if (__builtin_expect(status != CACHET_OK, 0))
    rig_fail_call(c, status);
}

/* Makes the file, in a directory of its own, with writes of `piece` bytes, a
 * power of two from a page to a chunk.  The kernel may keep what was written at
 * once in memory that is contiguous, which shortens the processor's way to a
 * page.  A daemon's memory is made of single pages: with a `piece` of one the
 * file lies in memory just as scattered. */
struct rig *rig_make(uint64_t size, size_t piece);

/* A path in the rig's directory, which goes with all that is in it. */
void rig_path(const struct rig *rig, const char *name, char out[RIG_PATH_LEN]);

/* One more file of such bytes, in the rig's directory.  Returns a descriptor.
 */
int rig_make_file(const char *path, uint64_t size, size_t piece);

/* One that is a hole. */
int rig_make_sparse(const char *path, uint64_t size);

/* One that has its place on the disk, and was not written: the kernel reads it
 * without the disk, and for the daemon it is no hole. */
int rig_make_unwritten(const char *path, uint64_t size);

/* Maps the file, every page of it, read-only and shared. */
const uint8_t *rig_map(const struct rig *rig);

/* Pseudo-random numbers, the same in every run; `*state` is not 0. */
uint64_t rig_random(uint64_t *state);

/* fork(2), for a child that gets the signal `death` when this program ends. */
pid_t rig_fork(int death);

/* Runs one of the system's programs, by its path from the root on, to its end.
 * What it writes to standard output goes to `out`, as a string, or nowhere if
 * that is NULL.  False: it failed, and has said why. */
bool rig_run(const char *const args[], char *out, size_t out_len);

/* The path of a program that was built beside this one, of `name` in the tree;
 * of one that begins at the root, that. */
void rig_find_program(const char *name, char path[PATH_MAX]);

/* ---- Servers and clients ------------------------------------------------- */

/* Starts a program that was built beside this one, or, with a path from the
 * root on, one of the system's, of which only standard error is seen: with the
 * arguments given, and a pipe as its standard input if `has_stdin`.  The caller
 * composes its arguments with the server's socket, hence in two steps. */
struct rig_server *rig_server_new(struct rig *rig, const char *name);
void rig_server_start(struct rig_server *s, const char *program,
                      const char *const args[], bool has_stdin);

/* Starts a daemon that serves the file as "image". */
struct rig_server *rig_start_daemon(struct rig *rig, const char *name,
                                    uint64_t cache_size);

/* Ends it, and waits for its end. */
void rig_server_stop(struct rig_server *s);

/* Opens the image of the server at a socket, which may still have to come up.
 * A handle without shared memory keeps next to nothing itself, so that each of
 * its reads goes to the daemon.  No time-outs. */
cachet *rig_open(const char *socket, uint32_t flags);

/* Reads the whole file through the handle, and holds it against the file. */
void rig_warm(const struct rig *rig, cachet *c);

/* Fails unless all pages of the file are in the handle's cache. */
void rig_expect_resident(const struct rig *rig, const cachet *c);

/* On which of the processors that this program began with it runs from here
 * on, and all threads of a server. */
enum rig_cpus { RIG_ALL_CPUS, RIG_FIRST_CPU, RIG_LAST_CPU };
void rig_place(pid_t server, enum rig_cpus its, enum rig_cpus ours);

/* A line of one of a process's files in proc(5), such as "VmRSS:" of "status".
 */
uint64_t rig_memory_kib(pid_t pid, const char *file, const char *field);

/* ---- Numbers ------------------------------------------------------------- */

double rig_now_ns(clockid_t clock);

/* Sorts, and returns the middle. */
double rig_median(double *values, size_t n);

/* A size for rig_make(). */
bool rig_parse_piece(const char *arg, uint64_t *out);

/* A number from `min` to `max`, with K, M or G behind it. */
bool rig_parse_number(const char *arg, uint64_t min, uint64_t max,
                      uint64_t *out);

#endif
