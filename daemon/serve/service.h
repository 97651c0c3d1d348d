/* A service: what the sessions of one thread share.
 *
 *   V1  n_waiting counts the requests that another thread will post back; the
 *       thread does not end before they have come.
 *   V2  `fetching` is the sum over its sessions, orphaned requests included, of
 *       the bytes being fetched, and over its readers as well.
 *
 * Its thread only, but for the counters, which others read. */
#ifndef DAEMON_SERVE_SERVICE_H
#define DAEMON_SERVE_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/engine/fill_dispatch.h"
#include "daemon/engine/image_reader.h"
#include "daemon/engine/loop.h"
#include "daemon/net/net_thread.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/context.h"
#include "daemon/stats.h"

struct notice;

/* Offset and length of a range of a Read or Warm, out of protobuf. */
struct range {
  uint64_t offset, length;
};

struct service {
  struct server_context *context;
  struct loop *loop;
  struct fill_dispatch *dispatch;
  struct net_thread net; /* its connections are sessions */
  unsigned n_turns;      /* of all readers: requests that may not fetch yet */
  struct image_reader *readers; /* one for each image */
  struct counters *counters;    /* likewise */
  struct range *ranges;         /* of the request being looked at: max_ranges */
  struct attachment_list attachments;
  struct event attach_tick; /* while there are some */
  uint64_t attach_collected_ms;
  uint64_t fetching;
  unsigned n_waiting;
  unsigned n_invalidations; /* under way, orphans' included */

  /* Notices of invalidations that connections are owed yet, oldest first. */
  struct notice *owed_head, **owed_tail;
  uint64_t n_notices;      /* serial numbers */
  struct event owed_timer; /* when the first has waited long enough */
  struct task owed_task;   /* some may have got away */
};

/* For a thread of this loop; its members before `n_turns` are set, as
 * net_thread_init() wants them, and the others are zero.  0 or -ENOMEM; either
 * way service_fini() is due. */
int service_init(struct service *service, uint64_t max_held);

/* The thread has ended, or never began, and its loop is still there. */
void service_fini(struct service *service);

/* Has no reader keep a mirror alive.  Nothing is read any more. */
void service_close_readers(struct service *service);

/* The image has a new epoch: the sessions that opened it hear of it. */
void service_image_changed(struct service *service, unsigned image);

/* Drops all connections; no session is owed a notice then. */
void service_close_all(struct service *service);

#endif
