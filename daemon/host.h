/* What the daemon's threads share: the images, the page cache behind them, the
 * pool and the workers.  Made by server_new(), fixed while threads run, but
 * for what says otherwise. */
#ifndef DAEMON_HOST_H
#define DAEMON_HOST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cache/image.h"
#include "cache/page_cache.h"
#include "daemon/engine/looks.h"
#include "daemon/engine/pool.h"
#include "daemon/limits.h"
#include "daemon/net/closer.h"
#include "daemon/net/users.h"
#include "daemon/serve/attachment.h"

struct service;

/* An image that is served. */
struct served_image {
  struct host *host;
  unsigned index; /* in host.images, and its lane of the pool */
  char *name;
  struct image *image;
  bool share;                /* local clients may attach */
  bool looking;              /* is being looked at; under host.looks.lock */
  bool lost;                 /* the last look failed; the job that looks */
  atomic_int missing;        /* an errno: it could not be opened so far; 0: it
                                is there, for good.  Relaxed: it orders
                                nothing, and may be seen late */
  char *path;                /* while it is missing, for messages; or NULL */
  _Atomic uint64_t n_epochs; /* relaxed: a statistic */
};

struct host {
  struct limits limits;
  bool share; /* local clients may attach to some image */
  struct attachment_census census;
  struct page_cache *cache;
  struct served_image *images;
  unsigned n_images;
  struct pool *pool; /* a lane for each image, and two more: see below */
  struct looks looks;
  struct service **services; /* one a worker */
  unsigned n_services;
  struct closer *closer;
  struct users users;          /* for whom the connections are */
  _Atomic uint64_t n_accepted; /* relaxed: a statistic */
};

/* The pool's lane for invalidations: they read no source, and so must not queue
 * behind fills; and they take much of a processor, and so have one thread. */
static inline unsigned host_lane(const struct host *host) {
  return host->n_images;
}

/* And for looks at the images: one that hangs takes no thread that reads. */
static inline unsigned host_look_lane(const struct host *host) {
  return host->n_images + 1;
}

#endif
