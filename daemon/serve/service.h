/* A service: what the sessions of one thread share.
 *
 * It is put together here of what each module of this folder needs for a
 * thread, and each looks into its own part.
 *
 *   V1  n_waiting counts the requests that will be posted back; the
 *       thread does not end before they have come.
 *
 * Its thread only. */
#ifndef DAEMON_SERVE_SERVICE_H
#define DAEMON_SERVE_SERVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "base/loop.h"
#include "daemon/engine/fill_dispatch.h"
#include "daemon/net/net_thread.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/context.h"
#include "daemon/serve/fetch_quota.h"
#include "daemon/serve/notices.h"
#include "daemon/serve/read_plan.h"
#include "daemon/serve/service_images.h"

struct service {
  struct server_context *context;
  struct loop *loop;
  struct net_thread net; /* its connections are sessions */
  struct service_images images;
  struct range
      *ranges; /* out of protobuf, of the request being looked at: max_ranges */
  struct fetch_quota quota;
  struct attachments attachments;
  struct notices notices;
  unsigned n_invalidations;    /* under way, orphans' included */
  unsigned n_waiting;          /* V1 */
  TAILQ_HEAD(, session) ended; /* with ENDED requests: R5 in request.h */
};

/* For a thread of this loop; its members down to `images` are set, those two as
 * net_thread_init() and service_images_init() want them, but for `changed`, and
 * the others are zero.  0 or -ENOMEM; either
 * way service_fini() is due. */
int service_init(struct service *service, uint64_t max_held);

/* The thread has ended, or never began, and its loop is still there. */
void service_fini(struct service *service);

/* Has no reader keep a mirror alive.  Nothing is read any more. */
void service_close_readers(struct service *service);

/* Drops all connections; no session is owed a notice then. */
void service_close_all(struct service *service);

#endif
