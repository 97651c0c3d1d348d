/* Fetches of requests: what they may fetch at once, and whose turn it is.
 *
 * A request holds at most one fetch.  Its bytes are charged, from before it is
 * started until it is dropped, to the request's connection, to its image's lens
 * and to the worker (W3 in worker.h), each of which has a limit.  A request
 * that would go beyond one is STARVED:
 *
 *   F1  A connection that has starved requests is in the worker's list of
 *       such, once; no other is.
 *   F2  While nothing is being fetched any one fetch may start, however large:
 *       so what is starved gets its turn when those in flight have ended.
 *
 * Worker thread only; the `done` of a fetch runs elsewhere, and only posts. */
#ifndef DAEMON_REQUEST_FETCH_H
#define DAEMON_REQUEST_FETCH_H

#include "daemon/request.h"

/* A fetch of a request, and what it was charged for. */
struct request_fetch {
  struct fetch fetch;
  struct request *request;
  struct lens *lens;     /* charged */
  struct mirror *mirror; /* what it fetches for; the fetch references it */
  uint64_t len;          /* bytes charged */
};

/* Starts to fetch what is missing.  True if the request waits now; false if it
 * can go on. */
bool request_fetch_start(struct request *r);

/* Its fetch is done: what came of it. */
void request_fetch_ended(struct request *r);

/* Gives back what was fetched, and the allowance. */
void request_fetch_drop(struct request *r);

/* A piece was lost to a new epoch.  Sets r->status when that was too often. */
void request_fetch_restart(struct request *r);

/* The connection, which is_starved, ends. */
void request_fetch_unstarve(struct conn *c);

/* Gives fetches to those who were starved, now that some have ended. */
void request_fetch_admit(struct worker *w);

#endif
