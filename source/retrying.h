/* The retrying source: repeats reads of another source if that may help, and
 * bounds how many of them are in flight (the image option max-requests).
 *
 * It repeats a read whose attempt failed, after a pause that doubles and has
 * jitter, for at most RETRYING_ATTEMPTS attempts.  It does not repeat a read if
 * the time that is left (of RETRYING_TOTAL_MS since the first attempt, or until
 * the read's own deadline) is shorter than the last attempt took.  It does not
 * repeat a permanent failure: -ESTALE, -EACCES, -ENOENT, and unknown errors.
 * If bytes do not match their hash (source/verified.h), it repeats the read
 * without a pause, over another connection.
 *
 * A breaker (source/breaker.h) protects a source that does not answer: while it
 * is open, reads end at once with -EHOSTDOWN.  An attempt does not count for
 * the breaker if the deadline of its read ended it in less than
 * RETRYING_FAIR_MS.
 *
 * If the source below knows that a range is zeros, a read of it ends at once,
 * whatever the state of the breaker and however many reads are in progress.  It
 * is not an attempt.
 *
 * A limited number of attempts run at once, and together they read at most
 * RETRYING_MAX_BYTES, unless there is only one.  Other reads wait in their
 * order of arrival.  Their time runs meanwhile.  A read that has less than
 * RETRYING_LEAST_MS left when its turn comes ends with -ETIMEDOUT, because its
 * attempt would say nothing about the source.  The reads before it are not
 * affected.
 *
 * It counts requests, results and failures, and measures how long a read waits
 * before it is sent, and from then the time to the first and to the last byte.
 * From these it computes how many bytes a read should have (source/pace.h).
 *
 * It does not end attempts.  The source below does this, because it knows the
 * state of its connection and must not write to a buffer after it has given up.
 * That source gets the deadline of each read.
 *
 * The breaker and the counts belong to a struct retrying, which the successors
 * of a source share and which outlives them. */
#ifndef SOURCE_RETRYING_H
#define SOURCE_RETRYING_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/source.h"
#include "source/breaker.h"
#include "source/reactor.h"

#ifdef __cplusplus
extern "C" {
#endif

struct retrying;

enum {
  RETRYING_ATTEMPTS = 4,
  RETRYING_TOTAL_MS = 30000,
  RETRYING_PAUSE_MS = 100, /* before the second attempt: half of it at least */
  RETRYING_LEAST_MS = 100, /* the least time for an attempt */
  RETRYING_FAIR_MS = 5000, /* in which a reachable server would answer */
  RETRYING_SLOW_MS = 100,  /* an attempt that takes longer counts as slow */
  RETRYING_MAX_REQUESTS = 64, /* unless another number is set */
  RETRYING_MAX_BYTES = 64 << 20,
};

/* The results of the attempts of a source. */
struct retrying_counts {
  uint64_t n_requests;     /* attempts */
  uint64_t n_bytes;        /* of attempts that succeeded */
  uint64_t n_retries;      /* attempts that were not the first of their read */
  uint64_t n_slow;         /* attempts that took over RETRYING_SLOW_MS from when
                              they were sent, or, if the source does not say
                              when, from their beginning; some failed */
  uint64_t n_errors;       /* attempts that failed; among them: */
  uint64_t n_timeouts;     /*   no answer in time, */
  uint64_t n_disconnected; /*   no connection, or a lost one, */
  uint64_t n_throttled;    /*   the server asked to try later, */
  uint64_t n_refused;      /*   not permitted, or not found, */
  uint64_t n_mismatches;   /*   the bytes do not match their hash */
  uint64_t n_broken;       /* reads that an open breaker has ended */
  uint64_t n_opened;       /* times that the breaker opened */
  enum breaker_state breaker;
  /* Of recent successful attempts, in microseconds: the time from the read to
   * the moment when the attempt was sent (queues, and pauses between attempts),
   * and from there to the first and to the last byte.  The 50th and the 99th
   * percentile; 0: unknown. */
  struct retrying_percentiles {
    uint64_t p50, p99;
  } wait, first, last;
};

/* A clock and its alarms: those of a reactor, or of a test. */
struct retrying_clock {
  uint64_t (*now_ns)(void *arg);
  /* As reactor_after().  The alarm rings on a thread that may call done(). */
  void (*after)(void *arg, struct reactor_alarm *alarm, uint64_t ms);
  void *arg;
};

struct retrying_clock retrying_clock_of(struct reactor *r);

/* `turned` is called with a copy of `name` when the source stops answering, so
 * that the breaker opens, and when it answers again.  It is called on the
 * thread that ended the attempt, and must not wait.  It may be NULL.
 *
 * Returns NULL if there is no memory. */
struct retrying *retrying_new(const struct retrying_clock *clock,
                              const char *name,
                              void (*turned)(const char *name, bool answers));
struct retrying *retrying_ref(struct retrying *r); /* NULL is fine */

/* Sets how many attempts may run at once, from now on. */
void retrying_set_max_requests(struct retrying *r, unsigned n);

void retrying_unref(struct retrying *r); /* NULL is fine */

/* Makes a source over `below`, which must call back, and takes ownership of it.
 * Takes a reference of `r`. 0; or -ENOMEM, and the caller still owns `below`.
 */
int retrying_source_new(struct retrying *r, struct source *below,
                        struct source **out);

/* Copies the counts.  Any thread. */
void retrying_count(struct retrying *r, struct retrying_counts *out);

#ifdef __cplusplus
}
#endif

#endif
