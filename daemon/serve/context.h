/* What the services of all threads share.  Made by server_new(), fixed while
 * threads run, but for what says otherwise. */
#ifndef DAEMON_SERVE_CONTEXT_H
#define DAEMON_SERVE_CONTEXT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/engine/finder.h"
#include "daemon/engine/images.h"
#include "daemon/engine/looks.h"
#include "daemon/limits.h"
#include "daemon/net/closer.h"
#include "daemon/net/users.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/change_maker.h"
#include "daemon/serve/drain.h"

struct rule;
struct service;

struct server_context {
  struct limits limits;
  struct images images;
  struct finder finder;
  struct change_maker maker;
  struct pool_lane *change_lane; /* for it: one change at a time */
  struct looks looks;
  uint32_t page_size; /* of images that have none of their own */
  atomic_bool share;  /* local clients may attach to some image; relaxed */
  struct attachment_census census;
  struct service **services; /* one for each worker */
  unsigned n_services;
  struct closer *closer;
  pthread_mutex_t rule_lock; /* a leaf */
  struct rule *admin;        /* of changes; guarded by rule_lock */
  struct drain drain;
  struct users users;          /* that connections count for */
  _Atomic uint64_t n_accepted; /* relaxed: a statistic */
  atomic_uint n_rings;         /* relaxed, likewise: workers that have one */
};

#endif
