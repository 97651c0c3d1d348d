/* The sequential readers of a handle on a socket, and what is asked for ahead
 * of them.  The state alone: what is done with it is in readahead.h. */
#ifndef CLIENT_REMOTE_READAHEAD_STATE_H
#define CLIENT_REMOTE_READAHEAD_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "client/remote/flow.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mirror;
struct remote_read;

enum {
  READAHEAD_N_READERS = 8,
  /* Bytes that a handle has under way and in store, together; cachet.h and
   * docs/limits.md tell of it. */
  READAHEAD_MOST = 64 << 20,
  READAHEAD_KEPT_MS = 2000, /* how long what nobody came for is kept */
};

TAILQ_HEAD(remote_read_list, remote_read);

/* A sequential reader; pages. */
struct readahead_reader {
  uint64_t from;    /* what he has come to last, */
  uint64_t at;      /* what he is expected to come to next, */
  uint64_t to;      /* and how far that was asked for */
  uint64_t passed;  /* bytes that he has come through */
  uint64_t most;    /* how many bytes ahead of him, as yet */
  uint64_t used_at; /* by `clock`; 0: there is none */
  bool goes_on;     /* he has come a second time, or for much */
};

struct readahead {
  struct flow flow;
  const struct mirror *mirror; /* of which all this is */
  struct readahead_reader readers[READAHEAD_N_READERS];
  uint64_t clock; /* counts uses of readers */
  uint64_t due;   /* bytes that are asked for and did not come in yet */
  struct remote_read_list store; /* A1, the oldest first */
  uint64_t store_len;            /* bytes in it */
};

#ifdef __cplusplus
}
#endif

#endif
