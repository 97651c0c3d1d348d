/* A worker: one thread, one event loop, and the connections that were given to
 * it, from first byte to last.
 *
 * It is put together here of what each level needs for a thread: the loop, the
 * fills that are begun, and the service, with the network in it.  Those know
 * nothing of the worker.  Everything belongs to its thread, but for the loop's
 * mailbox, through which other threads reach it, and what service.h says. */
#ifndef DAEMON_WORKER_H
#define DAEMON_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "daemon/engine/fill_dispatch.h"
#include "daemon/serve/service.h"

struct worker {
  pthread_t thread;
  char name[16]; /* of the thread */
  bool started;  /* the server's */
  struct loop loop;
  struct fill_dispatch dispatch;
  struct service service;
  /* How far an orderly stop has come; posted by the server. */
  struct task stop_task, close_task, quit_task;
  struct task pulse_task;
  /* Of signs of life: the last question that was asked, and that it answered.
   * Relaxed. */
  _Atomic uint64_t asked, answered;
  void (*drained)(void *arg); /* runs once, on this thread: no connection */
  void *drained_arg;          /* is left after a stop */
  bool told_drained;
  bool quitting; /* ends when nothing waits any more */
};

/* The worker whose service is the `number`th. */
struct worker *worker_new(struct server_context *context, unsigned number,
                          uint64_t max_held);

/* 0 or a negative errno. */
int worker_start(struct worker *w);

/* Asks for a sign of life; questions have numbers, which only grow.  Any
 * thread, one at a time. */
void worker_ask(struct worker *w, uint64_t question);

/* Whether it gave one since.  Any thread. */
bool worker_has_answered(struct worker *w, uint64_t question);

/* The three steps of a stop, each from any thread: take no new requests, and
 * call `drained` when all connections are gone; close those that are left; end
 * the thread once nothing waits, and join it. */
void worker_stop(struct worker *w, void (*drained)(void *arg), void *arg);
void worker_close_all(struct worker *w);
void worker_join(struct worker *w);

/* The thread has ended, or never began.  NULL is fine. */
void worker_free(struct worker *w);

#endif
