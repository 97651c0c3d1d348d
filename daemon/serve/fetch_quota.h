/* Fetches of requests: what they may fetch at once, and whose turn it is.
 *
 * A request holds at most one fetch.  Its bytes are charged, from before it is
 * started until it is dropped, to the request's session, to its image and to
 * the service.  What an image may have is
 * half of the service's limit while it is alone, a third for each of two, and
 * so on: it may fetch more only as long as it has less than is free.  A request
 * that would go beyond that, or beyond what its connection may have, is
 * THROTTLED:
 *
 *   F1  A throttled request is in the queue of its session and image (in struct
 *       subscription).  The first in a queue is in the image's turns; no other
 *       is.
 *   F2  While nothing of an image is being fetched any one fetch of it may
 *       start, however large and whatever other images have; and the same for
 *       an image of a connection.  So what is throttled gets its turn when
 *       those of the same image have ended, however many other images hang.
 *
 *   F3  `fetching` of a service is the sum over its images, and over its
 *       sessions, orphaned requests included, of the bytes being fetched.
 *   F4  A fetch whose bytes are in the send batch stays until the batch is
 *       sent, within the turn, although it may have been dropped.
 *
 * The service's thread only; the `done` of a fetch runs elsewhere, and only
 * posts. */
#ifndef DAEMON_SERVE_FETCH_QUOTA_H
#define DAEMON_SERVE_FETCH_QUOTA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "cache/fetch.h"
#include "daemon/net/send_batch.h"
#include "daemon/serve/image_quota.h"

struct request;
struct session;

/* A fetch of a request, and what it was charged for. */
struct request_fetch {
  struct fetch fetch;
  struct send_batch_fetch lent; /* F4 */
  bool is_lent, is_dropped;
  struct request *request;
  struct mirror *mirror; /* what it fetches for; the fetch references it */
  uint64_t len;          /* bytes charged */
};

/* A service's. */
struct fetch_quota {
  TAILQ_HEAD(, image_quota) turning; /* images with turns */
  uint64_t round;
  uint64_t fetching; /* bytes; F3 */
};

void fetch_quota_init(struct fetch_quota *quota);

/* Starts to fetch what is missing.  True if the request waits now; false if it
 * can go on. */
bool fetch_quota_start(struct request *r);

/* Its fetch is done: what came of it. */
void fetch_quota_ended(struct request *r);

/* Gives back what was fetched, and the allowance. */
void fetch_quota_drop(struct request *r);

/* The batch has bytes of the request's fetch. */
void fetch_quota_lend(const struct request *r, struct send_batch *batch);

/* A piece was lost to a new epoch.  Sets r->status when that was too often. */
void fetch_quota_restart(struct request *r);

/* The request, which waits for its fetch, loses its connection. */
void fetch_quota_orphan(struct request *r);

/* The connection ends: none of its requests is throttled any more. */
void fetch_quota_unthrottle(struct session *s);

/* A throttled request that may fetch, now that some fetches have ended; it is
 * throttled no more, and the caller goes on with it before the next call.  A
 * `round` goes once through the images.  NULL: there is none left. */
struct request *fetch_quota_next(struct fetch_quota *quota, uint64_t round);

#endif
