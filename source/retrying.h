/* The retrying source: another one, asked again where that may help.
 *
 * A read whose attempt failed is tried again, after a pause that doubles and
 * has jitter, at most RETRYING_ATTEMPTS times in all.  It is not if there is no
 * time left, of RETRYING_TOTAL_MS from the first attempt on or to the read's
 * own deadline, for an attempt that takes as long as the last one did.  Nor is
 * what failed for good: -ESTALE, -EACCES, -ENOENT and what nobody knows.  What
 * does not match its hash (source/verified.h) is tried again without a pause,
 * by another connection.
 *
 * A source that does not answer has a breaker (source/breaker.h): under an open
 * one reads end at once, with -EHOSTDOWN.  It does not count an attempt that
 * the deadline of its read ended in less than RETRYING_FAIR_MS.
 *
 * A read of what the source below knows to be zeros ends at once, whatever the
 * breaker says and however many others are under way.  It is no attempt.
 *
 * No more than a number of attempts are under way at once, nor, but for one
 * alone, more than RETRYING_MAX_BYTES.  Others wait in the order in which they
 * came; their time goes on meanwhile, and one that has less than
 * RETRYING_LEAST_MS left when its turn comes ends with -ETIMEDOUT, as nobody
 * could tell what its attempt says of the source.  Those before it end by their
 * own.
 *
 * It counts what was asked for, what came, what did not, and how long the first
 * and the last byte took; and it knows from that what a read is worth
 * (source/pace.h).
 *
 * It does not end an attempt: that is the business of the source below, which
 * knows what its connection is doing, and must not write to a buffer after it
 * has given up.  It tells it the read's deadline.
 *
 * Breaker and counts are of a struct retrying, which the successors of a source
 * have from it, and which outlives them. */
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
  RETRYING_LEAST_MS = 100, /* that an attempt has */
  RETRYING_FAIR_MS = 5000, /* in which a reachable server would answer */
  RETRYING_MAX_REQUESTS = 64, /* unless another number is set */
  RETRYING_MAX_BYTES = 64 << 20,
};

/* What became of what was asked of a source, attempt by attempt. */
struct retrying_counts {
  uint64_t n_requests;     /* attempts */
  uint64_t n_bytes;        /* that came whole */
  uint64_t n_retries;      /* attempts that were not the first of their read */
  uint64_t n_errors;       /* attempts that failed; of these are */
  uint64_t n_timeouts;     /*   without an answer in time, */
  uint64_t n_disconnected; /*   without a connection, or with a lost one, */
  uint64_t n_throttled;    /*   told to come later, */
  uint64_t n_refused;      /*   not allowed, or not there, */
  uint64_t n_mismatches;   /*   with bytes that do not match their hash */
  uint64_t n_broken;       /* reads that an open breaker has ended */
  uint64_t n_opened;       /* times that the breaker opened */
  enum breaker_state breaker;
  /* How long the attempts of late took that succeeded, in microseconds: 50 and
   * 99 percent of them.  0: there were none, or nobody knows. */
  struct retrying_percentiles {
    uint64_t p50, p99;
  } first, last;
};

/* A clock and its alarms: a reactor's, or a test's. */
struct retrying_clock {
  uint64_t (*now_ns)(void *arg);
  /* As reactor_after().  The alarm rings on a thread that may call done(). */
  void (*after)(void *arg, struct reactor_alarm *alarm, uint64_t ms);
  void *arg;
};

struct retrying_clock retrying_clock_of(struct reactor *r);

/* `turned` is told, by a copy of `name`, when the source does not answer any
 * more, so that the breaker opens, and when it answers again.  It is called by
 * whose attempt that was, and must not wait.  It may be NULL.
 *
 * NULL: out of memory. */
struct retrying *retrying_new(const struct retrying_clock *clock,
                              const char *name,
                              void (*turned)(const char *name, bool answers));
struct retrying *retrying_ref(struct retrying *r); /* NULL is fine */

/* How many attempts may be under way, from now on. */
void retrying_set_max_requests(struct retrying *r, unsigned n);

void retrying_unref(struct retrying *r); /* NULL is fine */

/* A source over `below`, one that calls back, which it owns from here; of `r`
 * it takes a reference.  0; or -ENOMEM, and `below` is still the caller's. */
int retrying_source_new(struct retrying *r, struct source *below,
                        struct source **out);

/* Any thread. */
void retrying_count(struct retrying *r, struct retrying_counts *out);

#ifdef __cplusplus
}
#endif

#endif
