#include "daemon/engine/uring.h"

#include <assert.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/container_of.h"

enum {
  /* Reads that end in one turn.  The answers to them go out, and what they lead
   * to is read, before the next turn: so the disk has some to read while others
   * are answered, even if its interrupts come for many at once. */
  MAX_ENDED = 8,
};

/* ---- Reads --------------------------------------------------------------- */

static bool give(struct ring *ring, struct ring_read *read) {
  struct uring *u = container_of(ring, struct uring, base);
  struct io_uring_sqe *sqe = uring_ring(u) && u->n_reads < URING_MAX_READS
                                 ? io_uring_get_sqe(&u->io)
                                 : NULL;
  assert(read->len <= RING_MAX_LEN);
  if (!sqe)
    return false;
  io_uring_prep_read(sqe, read->fd, read->buf, (unsigned)read->len,
                     read->offset);
  sqe->rw_flags = read->flags;
  io_uring_sqe_set_data(sqe, read);
  u->n_reads++;
  return true;
}

bool uring_is_submitted(struct uring *u) {
  return u->n_reads == 0 || u->has_given_up || io_uring_sq_ready(&u->io) == 0;
}

/* Ends the reads that the kernel does not have, and never gets: from here on no
 * call submits any.  So the queue stays as it is meanwhile. */
static void give_up(struct uring *u) {
  const struct io_uring_sq *sq = &u->io.sq;
  unsigned head = sq->sqe_tail - io_uring_sq_ready(&u->io);
  u->has_given_up = true;
  for (; head != sq->sqe_tail; head++) {
    const struct io_uring_sqe *sqe = &sq->sqes[head % URING_MAX_READS];
    struct ring_read *read = (struct ring_read *)(uintptr_t)sqe->user_data;
    u->n_reads--;
    read->ended(read, -ECANCELED);
  }
}

/* True: the ring has given up, and reads have ended. */
static bool submit(struct uring *u) {
  if (uring_is_submitted(u))
    return false;
  u->n_failed = io_uring_submit(&u->io) > 0 ? 0 : u->n_failed + 1;
  if (u->n_failed < URING_MAX_FAILED)
    return false;
  give_up(u);
  return true;
}

struct ended {
  struct ring_read *read;
  ssize_t n;
};

/* Takes those that have ended out of the ring, before any of them is told: see
 * K3 in ring.h. */
static unsigned take_ended(struct uring *u, struct ended *out) {
  struct io_uring_cqe *cqe;
  unsigned head, n = 0;
  io_uring_for_each_cqe(&u->io, head, cqe) {
    out[n++] = (struct ended){io_uring_cqe_get_data(cqe), cqe->res};
    if (n == MAX_ENDED)
      break;
  }
  io_uring_cq_advance(&u->io, n);
  return n;
}

bool uring_turn(struct uring *u) {
  struct ended ended[MAX_ENDED];
  if (u->n_reads == 0) /* as before most sleeps */
    return false;
  if (submit(u))
    return true;
  unsigned n = take_ended(u, ended);
  u->n_reads -= n;
  u->base.checked = NULL;
  for (unsigned i = 0; i < n; i++)
    ended[i].read->ended(ended[i].read, ended[i].n);
  return n > 0;
}

/* A turn follows. */
static void on_readable(evutil_socket_t fd, short what, void *arg) {
  struct uring *u = arg;
  (void)fd;
  (void)what;
  u->loop->n_events++;
}

/* ---- Life ---------------------------------------------------------------- */

/* liburing 2.3 declares functions for what is used here, and lacks them. */
static int set_up(const struct io_uring *io, unsigned what, void *arg,
                  unsigned n) {
  long r = syscall(__NR_io_uring_register, io->ring_fd, what, arg, n);
  return r < 0 ? -errno : 0;
}

/* See G1.  No register operation is among them, so this is final. */
static int restrict_to_reads(const struct io_uring *io) {
  struct io_uring_restriction reads = {.opcode = IORING_RESTRICTION_SQE_OP,
                                       .sqe_op = IORING_OP_READ};
  int r = set_up(io, IORING_REGISTER_RESTRICTIONS, &reads, 1);
  return r < 0 ? r : set_up(io, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}

struct trial {
  struct ring_read read;
  ssize_t n;
};

static void trial_ended(struct ring_read *read, ssize_t n) {
  container_of(read, struct trial, read)->n = n;
}

/* A filter of system calls may permit a ring, and not its use. */
static int try_it(struct uring *u) {
  struct trial t = {.read = {.fd = -1, .ended = trial_ended}};
  bool given = ring_give(&u->base, &t.read);
  assert(given);
  int r = io_uring_submit_and_wait(&u->io, 1);
  if (r < 0)
    return r;
  uring_turn(u);
  return t.n == -EBADF ? 0 : -EOPNOTSUPP;
}

static int watch(struct uring *u) {
  u->event = event_new(u->loop->base, u->io.ring_fd, EV_READ | EV_PERSIST,
                       on_readable, u);
  return u->event && event_add(u->event, NULL) == 0 ? 0 : -ENOMEM;
}

int uring_init(struct uring *u, struct loop *loop) {
  /* The kernel leaves the last part of a read to its thread, which does it at
   * the end of any system call.  COOP_TASKRUN (Linux 5.19): it does not
   * interrupt the thread for that, only wakes it. */
  struct io_uring_params params = {.flags = IORING_SETUP_R_DISABLED |
                                            IORING_SETUP_COOP_TASKRUN};
  *u = (struct uring){.base = {.read = give}, .loop = loop};
  int r = io_uring_queue_init_params(URING_MAX_READS, &u->io, &params);
  if (r < 0)
    return r;
  u->is_open = true;
  r = restrict_to_reads(&u->io);
  if (r == 0)
    r = try_it(u);
  if (r == 0)
    r = watch(u);
  if (r < 0) {
    u->n_reads = 0;
    uring_fini(u);
  }
  return r;
}

void uring_fini(struct uring *u) {
  if (!u->is_open)
    return;
  assert(u->n_reads == 0);
  if (u->event)
    event_free(u->event);
  io_uring_queue_exit(&u->io);
  u->is_open = false;
}
