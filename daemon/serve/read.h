/* Answers: what a request gets, piece by piece.
 *
 * A piece is found resident or taken out of a fetch, pinned, and named in the
 * thread's output; what is not there is for the caller to fetch.  Of request.h,
 * R4 is kept here: each piece looks at the image's present mirror first.
 *
 * The service's thread only. */
#ifndef DAEMON_SERVE_READ_H
#define DAEMON_SERVE_READ_H

#include "daemon/serve/request.h"

enum step {
  STEP_ON,      /* a piece is done, there is more */
  STEP_DONE,    /* answered, perhaps by an Error */
  STEP_MISS,    /* missing .. missing+n_missing-1 have to be fetched */
  STEP_BLOCKED, /* its connection is, or is at its end */
};

/* Goes on with a request until it is answered, or cannot go on: not STEP_ON. */
enum step read_steps(struct request *r);

/* Answers with an Error.  STEP_DONE. */
enum step read_refuse(struct request *r, int status, const char *what);

#endif
