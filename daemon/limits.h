/* What a peer may ask for, and how long it may take.  One struct, one place;
 * tests set smaller ones.  None of it is an option: each number follows from
 * what the daemon promises, not from taste. */
#ifndef DAEMON_LIMITS_H
#define DAEMON_LIMITS_H

#include <stdint.h>

#include "proto/frame.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes that TCP takes of a connection's answers before it can send them, so
 * that a small answer does not wait behind megabytes in the kernel.  The socket
 * is writable for the loop when half of it is free (tcp(7)). */
enum { LIMITS_UNSENT_LEN = 512 << 10 };

/* However small a batch has to be (limits_fit_cache()). */
enum { LIMITS_MIN_BATCH_LEN = 64 << 10 };

struct limits {
  unsigned max_connections;      /* beyond: an Error, and closed; */
  unsigned max_user_connections; /* and so beyond those of one user */
  unsigned n_fill_threads;   /* that read sources and are shared by the images;
                                each image has one more of its own */
  unsigned max_found_images; /* of directories, that are open at once */
  int idle_thread_ms;        /* how long one that has nothing to read stays */
  uint32_t max_message;      /* bytes of a request's Message */
  uint32_t max_ranges;       /* in one Read or Warm */
  uint64_t max_read;         /* bytes of one Read or Warm */
  uint32_t max_requests;     /* waiting on one connection; hits do not count */
  uint32_t max_queued;       /* of those, taken in while its socket is full */
  uint32_t max_held_ranges;  /* of all requests waiting on one connection */
  uint32_t piece_len;        /* payload of one Data */
  uint32_t batch_len;        /* payload gathered for one sendmsg() */
  uint64_t max_held;         /* memory outside the cache that connections
                                hold: an equal part for each worker's */
  uint64_t turn_len;         /* sent to one peer before others get a turn */
  uint64_t max_conn_fetch;   /* bytes being fetched for one connection, */
  uint64_t max_worker_fetch; /* and for all those of a worker; of each image
                                one piece more: see fetch_quota.h */
  unsigned max_process_attachments; /* of one process, */
  unsigned max_user_attachments;    /* of all those of one user, */
  unsigned max_attachments;         /* and of all: each takes descriptors */
  unsigned max_attachments_sending; /* whose descriptors are not sent yet */
  unsigned max_conn_jobs; /* that another thread works on, of one connection */
  unsigned max_worker_invalidations; /* waiting, of all those of a worker */
  unsigned max_restarts;    /* epochs a piece may see go by before CHANGED */
  int handshake_timeout_ms; /* from accept to Hello */
  int partial_timeout_ms;   /* from the first byte of a message to its last */
  int notice_timeout_ms;    /* an Invalidated that is not taken: it holds up
                               the client that invalidated */
  int unread_timeout_ms;    /* an answer that makes no progress */
  int linger_ms;            /* after the last Error, for the peer to read it */
  int stop_timeout_ms;      /* for what is in flight at an orderly stop */
  int refresh_ms;           /* between two looks whether an image changed */
};

static inline struct limits limits_default(void) {
  struct limits l = {
      /* An idle connection costs a descriptor and about a kilobyte.  Users
       * leave an eighth of them to others. */
      .max_connections = 32768,
      .max_user_connections = 28672,
      /* One image gets half of them: enough to keep a disk busy.  They sleep in
       * pread(2) anyway. */
      .n_fill_threads = 16,
      /* As many as a configuration may have; each takes descriptors. */
      .max_found_images = 4096,
      .idle_thread_ms = 10000,
      .max_message = FRAME_MAX_MESSAGE,
      .max_ranges = 1024,
      .max_read = 64ull << 20,
      /* Well over 64, so that 64 misses at a slow source leave room. */
      .max_requests = 256,
      /* What a far client has under way: 32 MiB by pieces. */
      .max_queued = 128,
      /* 16 bytes each: 128 KiB for a connection at its worst. */
      .max_held_ranges = 8192,
      /* 64 pages of 4 KiB: one fetch, one run of punches when evicted. */
      .piece_len = 256 << 10,
      .batch_len = 1 << 20,
      .max_held = 64 << 20,
      .turn_len = 4 << 20,
      .max_conn_fetch = 8ull << 20,
      .max_worker_fetch = 64ull << 20,
      /* One a handle, with as many again whose slices outlive their epoch, and
       * those of lost connections until the process ends: room for a thousand
       * handles of one user, in one process. */
      .max_process_attachments = 2048,
      .max_user_attachments = 2048,
      .max_attachments = 4096,
      .max_attachments_sending = 64,
      .max_conn_jobs = 8,
      /* Each may drop a whole image: minutes of work for one thread. */
      .max_worker_invalidations = 64,
      .max_restarts = 16,
      .handshake_timeout_ms = 10000,
      .partial_timeout_ms = 30000,
      .notice_timeout_ms = 1000,
      .unread_timeout_ms = 30000,
      .linger_ms = 2000,
      .stop_timeout_ms = 1000,
      .refresh_ms = 1000,
  };
  return l;
}

/* Cuts down what is held beside the cache, so that it stays small against a
 * small cache: a quarter of it for what connections hold, and for what all
 * workers fetch as much, but one connection's part for each worker.  A batch is
 * an eighth of a worker's part at most: several of them make no crowd. */
static inline void limits_fit_cache(struct limits *l, uint64_t cache_size,
                                    unsigned n_workers) {
  uint64_t part = cache_size / 4, fetch = part / n_workers;
  if (l->max_held > part)
    l->max_held = part;
  if (fetch < l->max_conn_fetch)
    fetch = l->max_conn_fetch;
  if (l->max_worker_fetch > fetch)
    l->max_worker_fetch = fetch;
  uint64_t batch = l->max_held / n_workers / 8;
  if (batch < LIMITS_MIN_BATCH_LEN)
    batch = LIMITS_MIN_BATCH_LEN;
  if (l->batch_len > batch)
    l->batch_len = (uint32_t)batch;
}

#ifdef __cplusplus
}
#endif

#endif
