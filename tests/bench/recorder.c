/* recorder: a library to preload (LD_PRELOAD), which writes down what a program
 * reads of the files in one directory.
 *
 *   RECORDER_DIR    the directory: an absolute path without links
 *   RECORDER_LOG    the file to which lines are appended
 *
 * A line is a letter, an offset, a length, and a path within the directory:
 *
 *   S 0 0 PATH      the program asked for the file's type, size or times
 *   D 0 0 PATH      it opened a directory, to list it
 *   R OFFSET LENGTH PATH
 *
 * It stands in front of the C library's calls, not the kernel's, so it needs no
 * right that its user lacks.  Reads through stdio and mappings are not seen:
 * find, grep, tar and sqlite3 do without. */
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Where no program expects a descriptor of its own. */
#define LOG_FD 200

static int log_fd = -1;
static const char *dir;
static size_t dir_len;

__attribute__((constructor)) static void begin(void) {
  const char *path = getenv("RECORDER_LOG");
  dir = getenv("RECORDER_DIR");
  if (!path || !dir)
    return;
  dir_len = strlen(dir);
  int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0)
    return;
  log_fd = fcntl(fd, F_DUPFD_CLOEXEC, LOG_FD);
  close(fd);
}

/* Each line is one write, so that those of two programs do not mix. */
static void record(char what, long long offset, long long len,
                   const char *path) {
  char line[PATH_MAX + 64];
  if (log_fd < 0 || strncmp(path, dir, dir_len) != 0 ||
      (path[dir_len] != '/' && path[dir_len] != '\0'))
    return;
  int n = snprintf(line, sizeof line, "%c %lld %lld %s\n", what, offset, len,
                   path[dir_len] ? path + dir_len : "/");
  if (n > 0 && (size_t)n < sizeof line && write(log_fd, line, (size_t)n) != n)
    abort();
}

static void path_of_fd(int fd, char path[PATH_MAX]) {
  char link[64];
  snprintf(link, sizeof link,
           fd == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", fd);
  ssize_t n = readlink(link, path, PATH_MAX - 1);
  path[n > 0 ? n : 0] = '\0';
}

static void record_fd(char what, int fd, long long offset, long long len) {
  char path[PATH_MAX];
  if (log_fd < 0)
    return;
  path_of_fd(fd, path);
  record(what, offset, len, path);
}

/* A name that programs make from names which they have read: no link is in it,
 * but it may begin with "./". */
static void record_at(int dirfd, const char *name) {
  char path[2 * PATH_MAX] = "";
  if (log_fd < 0)
    return;
  while (name[0] == '.' && name[1] == '/')
    name += 2;
  if (name[0] != '/')
    path_of_fd(dirfd, path);
  size_t len = strlen(path);
  if (strcmp(name, ".") != 0 && name[0] != '\0')
    snprintf(path + len, sizeof path - len, "%s%s", name[0] == '/' ? "" : "/",
             name);
  record('S', 0, 0, path);
}

/* ---- The calls ----------------------------------------------------------- */

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t read(int fd, void *data, size_t len) {
  static __typeof__(&read) next;
  next = next ? next : NEXT(read);
  off_t at = lseek(fd, 0, SEEK_CUR); /* -1: a pipe, say */
  ssize_t n = next(fd, data, len);
  if (n > 0 && at >= 0)
    record_fd('R', fd, at, n);
  return n;
}

ssize_t pread64(int fd, void *data, size_t len, off64_t at) {
  static __typeof__(&pread64) next;
  next = next ? next : NEXT(pread64);
  ssize_t n = next(fd, data, len, at);
  if (n > 0)
    record_fd('R', fd, at, n);
  return n;
}

DIR *opendir(const char *name) {
  static __typeof__(&opendir) next;
  next = next ? next : NEXT(opendir);
  DIR *d = next(name);
  if (d)
    record_fd('D', dirfd(d), 0, 0);
  return d;
}

DIR *fdopendir(int fd) {
  static __typeof__(&fdopendir) next;
  next = next ? next : NEXT(fdopendir);
  DIR *d = next(fd);
  if (d)
    record_fd('D', fd, 0, 0);
  return d;
}

int fstatat(int fd, const char *restrict name, struct stat *restrict out,
            int flags) {
  static __typeof__(&fstatat) next;
  next = next ? next : NEXT(fstatat);
  int r = next(fd, name, out, flags);
  if (r == 0)
    record_at(fd, name);
  return r;
}

int stat(const char *restrict name, struct stat *restrict out) {
  static __typeof__(&stat) next;
  next = next ? next : NEXT(stat);
  int r = next(name, out);
  if (r == 0)
    record_at(AT_FDCWD, name);
  return r;
}

int lstat(const char *restrict name, struct stat *restrict out) {
  static __typeof__(&lstat) next;
  next = next ? next : NEXT(lstat);
  int r = next(name, out);
  if (r == 0)
    record_at(AT_FDCWD, name);
  return r;
}
