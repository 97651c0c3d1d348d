#include "daemon/attach.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/conn.h"
#include "daemon/log.h"
#include "daemon/worker.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* How often leases are looked at for being done. */
#define TICK_MS 250

struct attachment {
  struct worker *worker;
  struct attachment *prev, *next; /* the worker's */
  struct attachment *census_prev, *census_next;
  struct conn *sender; /* which has its descriptors yet; NULL: sent */
  struct lease *lease;
  pid_t pid;
  uid_t uid;
  int pidfd;
  struct event gone; /* the pidfd is readable: the process has ended */
};

/* ---- The census ---------------------------------------------------------- */

static int census_enter(struct host *host, struct attachment *a) {
  struct attach_census *census = &host->census;
  unsigned of_process = 0, of_user = 0;
  pthread_mutex_lock(&census->lock);
  for (struct attachment *o = census->all; o; o = o->census_next) {
    of_process += o->pid == a->pid;
    of_user += o->uid == a->uid;
  }
  bool fits = census->n < host->limits.max_attachments &&
              of_process < host->limits.max_process_attachments &&
              of_user < host->limits.max_user_attachments;
  if (fits) {
    a->census_prev = NULL;
    a->census_next = census->all;
    if (a->census_next)
      a->census_next->census_prev = a;
    census->all = a;
    census->n++;
  }
  pthread_mutex_unlock(&census->lock);
  return fits ? 0 : -EDQUOT;
}

static void census_leave(struct attachment *a) {
  struct attach_census *census = &a->worker->host->census;
  pthread_mutex_lock(&census->lock);
  *(a->census_prev ? &a->census_prev->census_next : &census->all) =
      a->census_next;
  if (a->census_next)
    a->census_next->census_prev = a->census_prev;
  census->n--;
  pthread_mutex_unlock(&census->lock);
}

unsigned attach_count(struct attach_census *census) {
  pthread_mutex_lock(&census->lock);
  unsigned n = census->n;
  pthread_mutex_unlock(&census->lock);
  return n;
}

/* ---- Life ---------------------------------------------------------------- */

static void attach_free(struct attachment *a) {
  struct worker *w = a->worker;
  *(a->prev ? &a->prev->next : &w->attachments) = a->next;
  if (a->next)
    a->next->prev = a->prev;
  if (!w->attachments)
    event_del(&w->attach_tick);
  event_del(&a->gone);
  if (a->sender)
    a->sender->sending = NULL;
  census_leave(a);
  close(a->pidfd);
  lease_free(a->lease);
  free(a);
}

void attach_sent(struct attachment *a) {
  a->sender->sending = NULL;
  a->sender = NULL;
}

void attach_cancel(struct attachment *a) { attach_free(a); }

static void on_gone(evutil_socket_t fd, short what, void *arg) {
  struct attachment *a = arg;
  (void)fd;
  (void)what;
  log_event(LEVEL_DEBUG, "attachment-gone",
            LOG_NUMBER("pid", (uint64_t)a->pid));
  attach_free(a);
}

void attach_collect(struct worker *w) {
  for (struct attachment *a = w->attachments, *next; a; a = next) {
    next = a->next;
    if (lease_is_done(a->lease))
      attach_free(a);
  }
}

static void on_tick(evutil_socket_t fd, short what, void *arg) {
  (void)fd;
  (void)what;
  attach_collect(arg);
}

void attach_free_all(struct worker *w) {
  while (w->attachments)
    attach_free(w->attachments);
}

/* A descriptor of the process at the other end, which cannot be mistaken for a
 * later one of the same number. */
static int peer_pidfd(int fd, const struct ucred *peer) {
  int pidfd;
  socklen_t len = sizeof pidfd;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
    return pidfd;
  if (errno != ENOPROTOOPT || peer->pid <= 0)
    return -EOPNOTSUPP;
  pidfd = pidfd_open(peer->pid, 0);
  return pidfd < 0 ? -EOPNOTSUPP : pidfd;
}

static int identify(struct attachment *a, int fd) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
    return -EOPNOTSUPP;
  a->pid = peer.pid;
  a->uid = peer.uid;
  a->pidfd = peer_pidfd(fd, &peer);
  return a->pidfd < 0 ? a->pidfd : 0;
}

/* Links it to its worker, whose loop looks after it from here.  0 or -ENOMEM:
 * then it is as it was. */
static int attach_start(struct attachment *a) {
  struct worker *w = a->worker;
  struct timeval tick = {.tv_usec = TICK_MS * 1000};
  event_assign(&a->gone, w->base, a->pidfd, EV_READ, on_gone, a);
  if (event_add(&a->gone, NULL) < 0)
    return -ENOMEM;
  if (!w->attachments) {
    event_assign(&w->attach_tick, w->base, -1, EV_PERSIST, on_tick, w);
    event_add(&w->attach_tick, &tick);
  }
  a->next = w->attachments;
  if (a->next)
    a->next->prev = a;
  w->attachments = a;
  return 0;
}

static int lend(struct attachment *a, struct mirror *m, int fds[ATTACH_N_FDS]) {
  struct mirror_fds mirror;
  int r = lease_new(m, &a->lease);
  if (r == 0)
    r = mirror_lend(m, &mirror);
  if (r < 0)
    return r;
  fds[0] = mirror.pages;
  fds[1] = mirror.words;
  fds[2] = mirror.touched;
  fds[3] = lease_take_fd(a->lease);
  return 0;
}

static void leave(struct attachment *a) {
  census_leave(a);
  lease_free(a->lease);
  a->lease = NULL;
}

static int enter(struct attachment *a, struct mirror *m,
                 int fds[ATTACH_N_FDS]) {
  int r = census_enter(a->worker->host, a);
  if (r == 0 && (r = lend(a, m, fds)) < 0)
    leave(a);
  return r;
}

int attach_new(struct conn *c, struct mirror *m, struct attachment **out,
               uint32_t *range_capacity, int fds[ATTACH_N_FDS]) {
  struct attachment *a = calloc(1, sizeof *a);
  if (!a)
    return -ENOMEM;
  a->worker = c->worker;
  a->sender = c;
  int r = identify(a, c->fd);
  if (r < 0) {
    free(a);
    return r;
  }
  r = enter(a, m, fds);
  if (r == -EDQUOT) { /* unless somebody is done and the tick has not come */
    attach_collect(c->worker);
    r = enter(a, m, fds);
  }
  if (r == 0 && (r = attach_start(a)) < 0) {
    leave(a);
    for (int i = 0; i < ATTACH_N_FDS; i++)
      close(fds[i]);
  }
  if (r < 0) {
    close(a->pidfd);
    free(a);
    return r;
  }
  *out = a;
  *range_capacity = lease_range_capacity(a->lease);
  return 0;
}
