/* Requests: loads, reads and maps that go on after a miss, and the wait for an
 * image's present epoch.
 *
 * There is one machine for all four, blocking and asynchronous.
 *
 *   READY --request_step--> WAITING --job done--> READY
 *     `----------------------> COMPLETE <---- cancelled, too late
 *
 * An attempt reads from one epoch, to which it holds a reference.  It *walks*
 * over the bytes that were asked for, as far as they are there, and asks the
 * backend for the next chunk.  Where the memory that the handle reads is of an
 * epoch that is over, an attempt asks for the image's present *epoch* instead,
 * and the next attempt walks.  A request for an epoch has nothing to walk over.
 *
 * When the image changes meanwhile the request starts over in the new epoch,
 * REQUEST_MAX_ATTEMPTS times at most: no bytes of two epochs are ever put
 * together, nor of before and after an invalidation of them.  The mirror's log
 * of invalidations tells (cache/invalidation_log.h), also a reader of a
 * daemon's memory.
 *
 * A load or a map goes without copying as long as what it walks over is
 * resident, pinned; a page that was read but could not stay makes it a private
 * copy from there on. */
#ifndef CLIENT_REQUEST_H
#define CLIENT_REQUEST_H

#include "client/handle.h"

#ifdef __cplusplus
extern "C" {
#endif

#define REQUEST_MAX_ATTEMPTS 16

enum request_kind { REQUEST_LOAD, REQUEST_MAP, REQUEST_READ, REQUEST_EPOCH };

enum request_state { REQUEST_READY, REQUEST_WAITING, REQUEST_COMPLETE };

enum attempt_phase {
  ATTEMPT_WALK,
  ATTEMPT_EPOCH, /* of the range it is not known whether it is right; no place
                    is reserved, nothing is pinned, and the job is a renewal */
};

struct cachet_request {
  cachet *c;
  enum request_kind kind;
  enum request_state state;
  bool blocking;

  /* as asked */
  uint64_t addr;
  uint64_t len; /* a load's: min_len */
  void *buf;    /* a read's */
  /* a read's: fail with CACHET_E_CHANGED in any other epoch */
  const uint64_t *only_epoch;
  int64_t deadline; /* of what it waits for */
  int64_t asked_at; /* when that was asked for; for debug_say() alone */

  /* this attempt */
  enum attempt_phase phase;
  struct epoch *epoch; /* referenced; NULL between attempts */
  unsigned n_attempts;
  uint64_t start;      /* of the bytes */
  uint64_t total;      /* how many, cut at the image's end */
  uint64_t pos;        /* how many are there */
  uint64_t mark;       /* of the epoch's mirror, from before the first look */
  uint64_t next_count; /* pages before this are in hits and misses */
  /* A job that had other pages too failed: pages before this are asked for one
   * by one, since an error belongs to its page. */
  uint64_t single_until;
  uint8_t *copy;     /* where they go; NULL: they are pinned in `slot` */
  unsigned slot;     /* NO_SLOT: none */
  unsigned job_slot; /* pins what the job brings; NO_SLOT: none */
  struct backend_job *job;

  /* the outcome */
  int place; /* reserved for the slice; -1: none */
  struct cachet_slice slice;
  struct cachet_error error;

  /* asynchronous ones only */
  cachet_load_cb load_cb;
  cachet_read_cb read_cb;
  void *arg;
  TAILQ_ENTRY(cachet_request) link;
};

/* Starts the first attempt, of a zeroed request with what is asked for filled
 * in.  What is wrong from the start is wrong now, with the message in `error`,
 * and then nothing is left to end. */
enum cachet_status request_begin(struct cachet_request *r);

/* How far a step may go. */
enum request_reach {
  REQUEST_LOOK,  /* as far as pages are resident */
  REQUEST_FETCH, /* and ask for more, which in process reads the source */
};

/* Goes on as far as it can.  The state says how far that was. */
void request_step(struct cachet_request *r, enum request_reach reach);

/* Has the daemon asked for the image's present epoch if the handle's is over;
 * waits for it. */
enum cachet_status request_renew_epoch(cachet *c);

/* Ends a request that is not complete, with an error. */
void request_fail(struct cachet_request *r, enum cachet_status code,
                  const char *why);

/* Ends it if its time is over; `now` as of deadline_now(). */
void request_expire(struct cachet_request *r, int64_t now);

/* Asserts H2 of handle.h, in programs that check much (CACHETD_DEBUG_CHECKS).
 */
void request_check(const cachet *c);

/* Runs the callback of a request that is on no list any more, and frees it. */
void request_deliver(struct cachet_request *r, enum cachet_status status);

/* Runs a blocking request to its end; its status, and the handle's error.
 * `skip` bytes of a read, of `epoch`, are in `buf` already, copied since
 * r->mark. */
enum cachet_status request_run(struct cachet_request *r,
                               const struct epoch *epoch, uint64_t skip);

/* Bounds before the first byte, in the image's present epoch; sets the handle's
 * message. */
enum cachet_status request_check_bounds(cachet *c, uint64_t addr, uint64_t len);

#ifdef __cplusplus
}
#endif

#endif
