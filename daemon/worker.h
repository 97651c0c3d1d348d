/* A worker: one thread, one event loop, and the connections that it was given,
 * from the first byte to the last.
 *
 * It contains the part of each level for one thread: the loop, the ring, the
 * begun fills, and the service with its network.  These parts do not know the
 * worker.  Its thread owns all of it, except the loop's mailbox, through which
 * other threads reach it, and what service.h excepts. */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "daemon/engine/fill_dispatch.h"
#include "daemon/engine/uring.h"
#include "daemon/serve/service.h"

struct worker {
  pthread_t thread;
  char name[16]; /* of the thread */
  bool started;  /* the server's */
  struct loop loop;
  struct uring uring; /* made before the thread, freed after it */
  struct fill_dispatch dispatch;
  struct service service;
  /* The steps of an orderly stop; the server posts them. */
  struct task stop_task, close_task, quit_task;
  struct task pulse_task;
  /* For liveness.h: the last question that was asked, and the last that was
   * answered.  Relaxed. */
  _Atomic uint64_t asked, answered;
  void (*drained)(void *arg); /* runs once, on this thread: no connection */
  void *drained_arg;          /* is left after a stop */
  bool told_drained;
  bool quitting; /* ends when nothing waits any more */
};

/* Makes the worker of that number. */
struct worker *worker_new(struct server_context *context, unsigned number,
                          uint64_t max_held);

/* 0 or a negative errno. */
int worker_start(struct worker *w);

/* Asks whether the loop turns; questions have numbers, which only grow.  Any
 * thread, one at a time. */
void worker_ask(struct worker *w, uint64_t question);

/* Whether it has answered that question.  Any thread. */
bool worker_has_answered(struct worker *w, uint64_t question);

/* The three steps of a stop, each from any thread: take no new requests, and
 * call `drained` when all connections are gone; close the connections that are
 * left; end the thread when no request waits any more, and join it. */
void worker_stop(struct worker *w, void (*drained)(void *arg), void *arg);
void worker_close_all(struct worker *w);
void worker_join(struct worker *w);

/* The thread has ended, or never began.  NULL is fine. */
void worker_free(struct worker *w);

#endif
