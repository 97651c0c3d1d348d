/* Steps: what becomes of a Read, Warm or Attach, piece by piece.
 *
 * A step looks at a request, at its plan and through the image's reader, and
 * says what the peer is to be told and what is due then.  It changes those
 * three alone, and takes buffers of the batch.  It sends nothing and waits for
 * nothing: request.c puts the answer into the batch, sends, announces epochs
 * and starts fetches, and calls the next step.  So a step is tested without a
 * socket.
 *
 * A piece is found resident and pinned, or taken out of the request's fetch,
 * and named in the answer.  Of request.h, R4 is kept here: each step looks at
 * the image's present mirror first.
 *
 * The service's thread only. */
#ifndef DAEMON_SERVE_READ_H
#define DAEMON_SERVE_READ_H

#include "daemon/serve/reply.h"
#include "daemon/serve/request.h"

enum step {
  STEP_MORE, /* a piece is done, and there is more */
  STEP_DONE, /* the request ends with this answer */

  /* There is no answer yet.  Before the next step */
  STEP_MISS,      /* missing .. missing+n_missing-1 have to be fetched; */
  STEP_FULL,      /* the batch, which is not empty, has to be sent: the next
                     piece has no room, or pins are in the way; */
  STEP_NEW_EPOCH, /* the peer has to be told of the reader's mirror, and a fetch
                     of another one has to be dropped. */
};

enum read_answer_kind {
  READ_NOTHING, /* is said: a piece of a Warm */
  READ_DATA,
  READ_FINISHED, /* Done, for a request that is no Read */
  READ_LEASE,    /* of the mirror: attach_lend() makes and sends it */
  READ_REFUSED,  /* Error */
};

/* What a peer is told after STEP_MORE and STEP_DONE. */
struct read_answer {
  enum read_answer_kind kind;
  uint64_t cost;   /* what the step is worth, in bytes sent, beside the bytes
                      that are */
  bool ends_fetch; /* once the answer is sent nothing more is needed of the
                      request's fetch */

  struct reply_data data; /* READ_DATA, and the epoch for READ_FINISHED */
  /* Its payload.  It lies in the request's fetch if there is one, in pages that
   * the reader has pinned, and in buffers of the batch. */
  struct iovec segments[FETCH_MAX_PAGES];
  unsigned n_segments;

  int status; /* READ_REFUSED: of the wire, */
  int sys_errno;
  char text[256];
};

/* The next step of a request that is ACTIVE and for an image.  `most`: bytes of
 * payload that the next frame may have; not 0 if any are left. */
enum step read_step(struct request *r, size_t most, struct read_answer *a);

#endif
