#include "daemon/net/listener.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "proto/socket.h"
#include "proto/tls.h"

enum {
  BACKLOG = 1024,
  /* How long this daemon waits while another one binds at the same path: 2
   * s. */
  LOCK_TRIES = 200,
  LOCK_PAUSE_MS = 10,
};

struct listener {
  atomic_uint n_refs; /* the last one acquires what the others released */
  struct address address;
  char text[ADDRESS_TEXT_LEN];
  pthread_mutex_t tls_lock; /* a leaf */
  struct tls_context *tls;  /* NULL: none; guarded by tls_lock */
  int fd;
  int file_fd;       /* O_PATH on the socket file, or -1: identity and group */
  int dir_fd;        /* O_PATH on its directory, if we made the file, or -1 */
  bool owns_file;    /* we made the file and shall remove it */
  bool only_v6;      /* at [::] it takes no connections to IPv4 addresses */
  bool may_hold_fds; /* peers that wait to be accepted may have brought some */
};

/* Writes "ADDRESS: what: strerror" and returns `r`. */
static int fail(const char *text, const char *what, int r, char *err,
                size_t err_len) {
  snprintf(err, err_len, "%s: %s: %s", text, what, strerror(-r));
  return r;
}

/* ---- Unix ---------------------------------------------------------------- */

/* The lock of a socket's path: a file beside the socket, which exists while the
 * lock is held.  The directory cannot serve as the lock, because any process
 * that can open it could lock it. */
struct path_lock {
  int dir_fd;                                             /* its directory */
  char name[sizeof(struct sockaddr_un) + sizeof ".lock"]; /* its name there */
  int fd;
};

/* The last part of the socket's path. */
static const char *socket_name(const struct listener *l) {
  const char *path = l->address.un.sun_path;
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* Opens the socket's directory, so that the file can be removed at the end
 * whatever the working directory is by then. */
static int open_directory(struct listener *l) {
  char path[sizeof l->address.un.sun_path + sizeof "."];
  size_t len = (size_t)(socket_name(l) - l->address.un.sun_path);
  snprintf(path, sizeof path, "%.*s.", (int)len, l->address.un.sun_path);
  l->dir_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  return l->dir_fd < 0 ? -errno : 0;
}

/* Whether the file that is open as `fd` is the one of that name. */
static bool is_same_file(int fd, int dir_fd, const char *name) {
  struct stat open_one, there;
  return fstat(fd, &open_one) == 0 &&
         fstatat(dir_fd, name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
         open_one.st_dev == there.st_dev && open_one.st_ino == there.st_ino;
}

/* Tries once to lock it.  -EWOULDBLOCK: another process holds the lock, or it
 * removed the file between the open and the lock.  The second case is why the
 * file is compared again after it was locked. */
static int try_lock(struct path_lock *lock) {
  lock->fd = openat(lock->dir_fd, lock->name,
                    O_RDONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (lock->fd < 0)
    return -errno;
  int r = flock(lock->fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
  if (r == 0 && !is_same_file(lock->fd, lock->dir_fd, lock->name))
    r = -EWOULDBLOCK;
  if (r < 0)
    close(lock->fd);
  return r;
}

/* 0, and unlock_path() is due; or a negative errno. */
static int lock_path(struct path_lock *lock, const struct listener *l) {
  int r = -EWOULDBLOCK;
  lock->dir_fd = l->dir_fd;
  snprintf(lock->name, sizeof lock->name, "%s.lock", socket_name(l));
  for (int i = 0; i < LOCK_TRIES && r == -EWOULDBLOCK; i++) {
    if (i)
      nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_MS * 1000000L}, NULL);
    r = try_lock(lock);
  }
  return r;
}

static void unlock_path(struct path_lock *lock) {
  unlinkat(lock->dir_fd, lock->name, 0);
  close(lock->fd);
}

/* What connect(2) says of a socket file.  0 and EAGAIN (its backlog is full)
 * mean that a process listens there. */
static int probe(const struct address *address) {
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0)
    return -errno;
  int r = connect(fd, &address->generic, address->len) < 0 ? -errno : 0;
  close(fd);
  return r;
}

/* Removes a socket file that a process which is gone has left.  The path is
 * locked, so no other daemon binds there between the check and the removal. */
static int make_way(struct listener *l, char *err, size_t err_len) {
  const char *path = l->address.un.sun_path;
  struct stat st;
  if (lstat(path, &st) < 0)
    return errno == ENOENT ? 0 : fail(l->text, "stat", -errno, err, err_len);
  if (!S_ISSOCK(st.st_mode)) {
    snprintf(err, err_len, "%s: there is a file that is no socket", l->text);
    return -EEXIST;
  }
  int r = probe(&l->address);
  if (r == 0 || r == -EAGAIN) {
    snprintf(err, err_len, "%s: in use, a server answers there", l->text);
    return -EADDRINUSE;
  }
  if (r != -ECONNREFUSED)
    return fail(l->text, "is there a server? connect", r, err, err_len);
  if (unlink(path) < 0 && errno != ENOENT)
    return fail(l->text, "remove the stale socket", -errno, err, err_len);
  return 0;
}

/* Binds and listens; the path is locked.  The mode is set between bind(2) and
 * listen(2): until then no process can connect, whatever the mode is. */
static int bind_in_way(struct listener *l, char *err, size_t err_len) {
  const char *path = l->address.un.sun_path;
  int r = make_way(l, err, err_len);
  if (r < 0)
    return r;
  if (bind(l->fd, &l->address.generic, l->address.len) < 0)
    return fail(l->text, "bind", -errno, err, err_len);
  l->owns_file = true;
  l->file_fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (l->file_fd < 0)
    return fail(l->text, "open the socket file", -errno, err, err_len);
  if (chmod(path, 0660) < 0)
    return fail(l->text, "chmod", -errno, err, err_len);
  l->may_hold_fds = !socket_allow_fds(l->fd, false);
  if (listen(l->fd, BACKLOG) < 0)
    return fail(l->text, "listen", -errno, err, err_len);
  return 0;
}

static int unix_bind(struct listener *l, char *err, size_t err_len) {
  struct path_lock lock;
  int r = open_directory(l);
  if (r < 0)
    return fail(l->text, "open its directory", r, err, err_len);
  r = lock_path(&lock, l);
  if (r == -EWOULDBLOCK) {
    snprintf(err, err_len, "%s: %s is locked by another process", l->text,
             lock.name);
    return r;
  }
  if (r < 0)
    return fail(l->text, "make a lock file beside it", r, err, err_len);
  r = bind_in_way(l, err, err_len);
  unlock_path(&lock);
  return r;
}

/* Removes our socket file, if the path still leads to it.  If the path cannot
 * be locked, because its directory is gone for instance, the file stays: the
 * next daemon removes a stale socket. */
static void unix_remove(struct listener *l) {
  struct path_lock lock;
  const char *name = socket_name(l);
  if (lock_path(&lock, l) < 0)
    return;
  if (l->file_fd >= 0 && is_same_file(l->file_fd, l->dir_fd, name))
    unlinkat(l->dir_fd, name, 0);
  unlock_path(&lock);
}

/* ---- TCP ----------------------------------------------------------------- */

static int tcp_bind(struct listener *l, char *err, size_t err_len) {
  int on = 1;
  /* It lets us bind while connections of a former run linger.  On Linux it does
   * not let two listeners share a port. */
  if (setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
    return fail(l->text, "setsockopt", -errno, err, err_len);
  if (bind(l->fd, &l->address.generic, l->address.len) < 0)
    return fail(l->text, "bind", -errno, err, err_len);
  if (listen(l->fd, BACKLOG) < 0)
    return fail(l->text, "listen", -errno, err, err_len);
  return 0;
}

/* ---- Either -------------------------------------------------------------- */

/* Asks the kernel where the socket is bound. */
static int learn_address(struct listener *l) {
  struct address a;
  memset(&a, 0, sizeof a);
  a.is_tls = l->address.is_tls;
  a.len = sizeof a.storage;
  if (getsockname(l->fd, &a.generic, &a.len) < 0)
    return -errno;
  if (a.generic.sa_family == AF_UNIX)
    a.un.sun_path[sizeof a.un.sun_path - 1] = '\0';
  /* As address_unix() has it, for address_is_same(). */
  if (a.generic.sa_family == AF_UNIX && a.un.sun_path[0] &&
      a.len <= sizeof a.un)
    a.len = sizeof a.un;
  int only_v6 = 0;
  socklen_t len = sizeof only_v6;
  if (a.generic.sa_family == AF_INET6 &&
      getsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &only_v6, &len) < 0)
    return -errno;
  l->only_v6 = only_v6;
  l->address = a;
  address_format(&l->address, l->text);
  return 0;
}

static struct listener *listener_alloc(int fd) {
  struct listener *l = calloc(1, sizeof *l);
  if (!l)
    return NULL;
  atomic_init(&l->n_refs, 1);
  pthread_mutex_init(&l->tls_lock, NULL);
  l->fd = fd;
  l->file_fd = -1;
  l->dir_fd = -1;
  return l;
}

static int listener_start(struct listener *l, char *err, size_t err_len) {
  int family = l->address.generic.sa_family;
  l->fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (l->fd < 0)
    return fail(l->text, "socket", -errno, err, err_len);
  if (family == AF_UNIX)
    return unix_bind(l, err, err_len);
  int r = tcp_bind(l, err, err_len);
  if (r < 0)
    return r;
  r = learn_address(l);
  return r < 0 ? fail(l->text, "learn the address", r, err, err_len) : 0;
}

int listener_open(const struct address *address, struct listener **out,
                  char *err, size_t err_len) {
  struct listener *l = listener_alloc(-1);
  if (!l) {
    snprintf(err, err_len, "out of memory");
    return -ENOMEM;
  }
  l->address = *address;
  address_format(address, l->text);
  int r = listener_start(l, err, err_len);
  if (r < 0) {
    listener_unref(l);
    return r;
  }
  *out = l;
  return 0;
}

/* Whether the daemon can serve on an inherited descriptor. */
static int check_inherited(struct listener *l, unsigned flags, char *err,
                           size_t err_len) {
  int type = 0, listening = 0;
  socklen_t len = sizeof type;
  snprintf(l->text, sizeof l->text, "descriptor:%d", l->fd);
  if (getsockopt(l->fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
    return fail(l->text, "inherited", -errno, err, err_len);
  len = sizeof listening;
  if (getsockopt(l->fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
    return fail(l->text, "inherited", -errno, err, err_len);
  if (type != SOCK_STREAM || !listening) {
    snprintf(err, err_len, "%s: inherited, but no listening stream socket",
             l->text);
    return -EINVAL;
  }
  int r = learn_address(l);
  if (r < 0)
    return fail(l->text, "learn the address", r, err, err_len);
  if (listener_is_local(l) && listener_is_tls(l)) {
    snprintf(err, err_len, "%s: a Unix socket speaks no TLS", l->text);
    return -EINVAL;
  }
  r = flags & LISTENER_INSECURE ? 0 : address_check(&l->address, err, err_len);
  if (r < 0)
    return r;
  int mode = fcntl(l->fd, F_GETFL);
  if (mode < 0 || fcntl(l->fd, F_SETFL, mode | O_NONBLOCK) < 0 ||
      fcntl(l->fd, F_SETFD, FD_CLOEXEC) < 0)
    return fail(l->text, "fcntl", -errno, err, err_len);
  if (listener_is_local(l)) {
    /* Peers that connected before the next call may have sent descriptors. */
    l->may_hold_fds = true;
    socket_allow_fds(l->fd, false);
  }
  return 0;
}

int listener_adopt(int fd, unsigned flags, struct listener **out, char *err,
                   size_t err_len) {
  struct listener *l = listener_alloc(fd);
  if (!l) {
    close(fd);
    snprintf(err, err_len, "out of memory");
    return -ENOMEM;
  }
  l->address.is_tls = flags & LISTENER_TLS;
  int r = check_inherited(l, flags, err, err_len);
  if (r < 0) {
    listener_unref(l);
    return r;
  }
  /* An abstract socket has no file, and so no group: file_fd stays -1. */
  if (listener_is_local(l) && l->address.un.sun_path[0] == '/')
    l->file_fd = open(l->address.un.sun_path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  *out = l;
  return 0;
}

int listener_share(const struct listener *l, const struct address *address,
                   struct listener **out, char *err, size_t err_len) {
  assert(!listener_is_local(l));
  int fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 0);
  if (fd < 0)
    return fail(l->text, "share the socket", -errno, err, err_len);
  struct listener *shared = listener_alloc(fd);
  if (!shared) {
    close(fd);
    snprintf(err, err_len, "out of memory");
    return -ENOMEM;
  }
  shared->address = l->address;
  shared->only_v6 = l->only_v6;
  shared->address.is_tls = address->is_tls;
  address_format(&shared->address, shared->text);
  *out = shared;
  return 0;
}

int listener_end(struct listener *l) {
  int fd = l->fd;
  l->fd = -1;
  if (fd < 0)
    return -1;
  if (l->owns_file)
    unix_remove(l);
  if (!l->may_hold_fds) {
    close(fd);
    return -1;
  }
  /* Another process may listen on a socket that was inherited. */
  if (l->owns_file)
    shutdown(fd, SHUT_RDWR);
  return fd;
}

static void listener_close(struct listener *l) {
  int fd = listener_end(l);
  if (fd >= 0)
    close(fd);
}

struct listener *listener_ref(struct listener *l) {
  atomic_fetch_add_explicit(&l->n_refs, 1, memory_order_relaxed);
  return l;
}

void listener_unref(struct listener *l) {
  if (!l || atomic_fetch_sub_explicit(&l->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  listener_close(l);
  if (l->file_fd >= 0)
    close(l->file_fd);
  if (l->dir_fd >= 0)
    close(l->dir_fd);
  tls_context_unref(l->tls);
  pthread_mutex_destroy(&l->tls_lock);
  free(l);
}

void listener_set_tls(struct listener *l, struct tls_context *context) {
  assert(listener_is_tls(l));
  tls_context_ref(context);
  pthread_mutex_lock(&l->tls_lock);
  struct tls_context *before = l->tls;
  l->tls = context;
  pthread_mutex_unlock(&l->tls_lock);
  tls_context_unref(before);
}

struct tls_context *listener_tls(struct listener *l) {
  pthread_mutex_lock(&l->tls_lock);
  struct tls_context *context = l->tls ? tls_context_ref(l->tls) : NULL;
  pthread_mutex_unlock(&l->tls_lock);
  return context;
}

bool listener_is_tls(const struct listener *l) { return l->address.is_tls; }

const struct address *listener_address(const struct listener *l) {
  return &l->address;
}

bool listener_covers(const struct listener *l, const struct address *address) {
  return address_covers(&l->address, address) &&
         !(l->only_v6 && address->generic.sa_family == AF_INET);
}

int listener_fd(const struct listener *l) { return l->fd; }

const char *listener_text(const struct listener *l) { return l->text; }

bool listener_is_local(const struct listener *l) {
  return l->address.generic.sa_family == AF_UNIX;
}

bool listener_is_here(const struct listener *l) {
  return !listener_is_tls(l) && address_is_here(&l->address);
}

bool listener_group(const struct listener *l, gid_t *out) {
  struct stat st;
  if (l->file_fd < 0 || fstat(l->file_fd, &st) < 0)
    return false;
  *out = st.st_gid;
  return true;
}
