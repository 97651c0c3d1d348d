/* What a service fetches of one image, and the requests that wait to fetch
 * more: see fetch_quota.h. */
#ifndef DAEMON_SERVE_IMAGE_QUOTA_H
#define DAEMON_SERVE_IMAGE_QUOTA_H

#include <stdint.h>
#include <sys/queue.h>

struct request;

struct image_quota {
  uint64_t fetching; /* bytes */
  struct request *first_turn, *last_turn;
  unsigned n_turns;
  uint64_t round;                /* the last in which it was gone through */
  TAILQ_ENTRY(image_quota) link; /* while it has turns */
};

#endif
