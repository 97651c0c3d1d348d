#include "source/retrying.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/lock.h"
#include "source/latency.h"
#include "source/pace.h"

struct retrying {
  struct retrying_clock clock;
  char *name;
  void (*turned)(const char *name, bool answers);
  pthread_mutex_t lock; /* a leaf */
  /* Guarded by lock. */
  unsigned n_refs;
  uint32_t dice;
  struct breaker breaker;
  struct retrying_counts counts;
  struct latency wait, first, last;
  struct pace pace;
  unsigned max_requests;
  unsigned n_running; /* attempts under way, */
  uint64_t running;   /* and their bytes */
  STAILQ_HEAD(, attempt) waiting;
};

struct retrying_source {
  struct source base;
  struct source *below; /* ours */
  struct retrying *shared;
};

/* A read with its attempts.  From the first attempt to the last, only one
 * thread at a time uses it, so it needs no lock. */
struct attempt {
  struct source_read read; /* of the source below */
  struct source_read *asked;
  struct retrying_source *source;
  struct reactor_alarm alarm; /* for the next one */
  STAILQ_ENTRY(attempt) link; /* while it waits */
  bool is_probe;
  unsigned n;           /* attempts so far */
  uint64_t deadline_ms; /* of the read */
  uint64_t asked_ns;    /* when the read came */
  uint64_t begun_ns;    /* the present one */
};

/* ---- What is shared ------------------------------------------------------ */

static uint64_t reactor_now_ns(void *arg) {
  (void)arg;
  return clock_now_ns();
}

static void reactor_rings_after(void *arg, struct reactor_alarm *alarm,
                                uint64_t ms) {
  reactor_after(arg, alarm, ms);
}

struct retrying_clock retrying_clock_of(struct reactor *r) {
  return (struct retrying_clock){
      .now_ns = reactor_now_ns, .after = reactor_rings_after, .arg = r};
}

struct retrying *retrying_new(const struct retrying_clock *clock,
                              const char *name,
                              void (*turned)(const char *name, bool answers)) {
  struct retrying *r = calloc(1, sizeof *r);
  char *copy = strdup(name);
  if (!r || !copy) {
    free(copy);
    free(r);
    return NULL;
  }
  r->name = copy;
  r->turned = turned;
  lock_init(&r->lock);
  r->clock = *clock;
  r->n_refs = 1;
  /* Not 0, as xorshift wants; and not the same in every daemon. */
  r->dice = (uint32_t)clock_now_ns() | 1;
  r->max_requests = RETRYING_MAX_REQUESTS;
  STAILQ_INIT(&r->waiting);
  return r;
}

void retrying_set_max_requests(struct retrying *r, unsigned n) {
  pthread_mutex_lock(&r->lock);
  r->max_requests = n;
  pthread_mutex_unlock(&r->lock);
}

struct retrying *retrying_ref(struct retrying *r) {
  if (!r)
    return NULL;
  pthread_mutex_lock(&r->lock);
  r->n_refs++;
  pthread_mutex_unlock(&r->lock);
  return r;
}

void retrying_unref(struct retrying *r) {
  if (!r)
    return;
  pthread_mutex_lock(&r->lock);
  bool last = --r->n_refs == 0;
  pthread_mutex_unlock(&r->lock);
  if (!last)
    return;
  pthread_mutex_destroy(&r->lock);
  free(r->name);
  free(r);
}

static struct retrying_percentiles percentiles_of(const struct latency *l) {
  return (struct retrying_percentiles){latency_us(l, 50), latency_us(l, 99)};
}

void retrying_count(struct retrying *r, struct retrying_counts *out) {
  pthread_mutex_lock(&r->lock);
  *out = r->counts;
  out->breaker = r->breaker.state;
  out->wait = percentiles_of(&r->wait);
  out->first = percentiles_of(&r->first);
  out->last = percentiles_of(&r->last);
  pthread_mutex_unlock(&r->lock);
}

static uint64_t now_ns(const struct retrying *r) {
  return r->clock.now_ns(r->clock.arg);
}

/* As clock_now_ms() does. */
static uint64_t to_ms(uint64_t ns) { return ns / 1000000 + 1; }

/* ---- What a status says -------------------------------------------------- */

enum meaning {
  DONE,
  NO_ANSWER,
  NO_CONNECTION,
  LATER,
  REFUSED,
  FAILED,
  WRONG,
  FINAL
};

static enum meaning meaning_of(int status) {
  if (status >= 0)
    return DONE;
  switch (-status) {
  case ETIMEDOUT:
    return NO_ANSWER;
  case EAGAIN:
    return LATER;
  case EACCES:
  case ENOENT:
    return REFUSED;
  case EIO:
  case EPROTO:
  case EREMOTEIO:
    return FAILED;
  case EBADMSG:
    return WRONG;
  default:
    return source_is_cut_off(status) ? NO_CONNECTION : FINAL;
  }
}

/* When it was sent, as far as the source says. */
static uint64_t sent_ns(const struct attempt *a) {
  return a->read.sent_ns ? a->read.sent_ns : a->begun_ns;
}

static void count_locked(struct retrying *r, const struct attempt *a,
                         enum meaning meaning, uint64_t now) {
  lock_assert_held(&r->lock);
  struct retrying_counts *c = &r->counts;
  c->n_requests++;
  c->n_slow += now - sent_ns(a) > RETRYING_SLOW_MS * UINT64_C(1000000);
  c->n_retries += a->n > 1;
  c->n_errors += meaning != DONE;
  c->n_bytes += a->read.status == 0 ? a->asked->len : 0; /* not of zeros */
  c->n_timeouts += meaning == NO_ANSWER;
  c->n_disconnected += meaning == NO_CONNECTION;
  c->n_throttled += meaning == LATER;
  c->n_refused += meaning == REFUSED;
  c->n_mismatches += meaning == WRONG;
}

/* Counts how long an attempt took that brought all its bytes.  The time that
 * the read waited here, or for a connection in the source below, is counted
 * apart, because the server is not the cause of it. */
static void time_locked(struct retrying *r, const struct attempt *a,
                        uint64_t now) {
  lock_assert_held(&r->lock);
  const struct source_read *read = &a->read;
  uint64_t sent = sent_ns(a);
  latency_add(&r->wait, sent - a->asked_ns);
  latency_add(&r->last, now - sent);
  pace_add(&r->pace, read->len, now - sent);
  if (!read->first_ns)
    return;
  latency_add(&r->first, read->first_ns - sent);
  pace_add(&r->pace, 0, read->first_ns - sent);
}

/* The pause before the next attempt: it doubles with each, and a random part of
 * up to a half is taken off (xorshift).  So attempts that failed together are
 * not made again together. */
static uint64_t pause_locked(struct retrying *r, unsigned n_attempts) {
  lock_assert_held(&r->lock);
  uint64_t whole = (uint64_t)RETRYING_PAUSE_MS << (n_attempts - 1);
  r->dice ^= r->dice << 13;
  r->dice ^= r->dice >> 17;
  r->dice ^= r->dice << 5;
  return whole / 2 + r->dice % (whole / 2 + 1);
}

/* ---- Attempts ------------------------------------------------------------ */

/* Whether to make one more attempt, and after which pause. */
static bool is_worth_locked(struct retrying *r, const struct attempt *a,
                            enum meaning meaning, uint64_t now,
                            uint64_t *pause) {
  lock_assert_held(&r->lock);
  bool may_help = meaning == NO_ANSWER || meaning == NO_CONNECTION ||
                  meaning == LATER || meaning == FAILED || meaning == WRONG;
  if (!may_help || a->n == RETRYING_ATTEMPTS ||
      r->breaker.state != BREAKER_CLOSED)
    return false;
  *pause = meaning == WRONG ? 0 : pause_locked(r, a->n);
  uint64_t took_ms = (now - a->begun_ns) / 1000000;
  return to_ms(now) + *pause + took_ms <= a->deadline_ms;
}

/* Whether the deadline of the read ended the attempt so early that it says
 * nothing of the server.  A probe always counts, because the breaker waits for
 * its result. */
static bool is_cut_short(const struct attempt *a, enum meaning meaning,
                         uint64_t now) {
  return meaning == NO_ANSWER && !a->is_probe && to_ms(now) >= a->deadline_ms &&
         now - a->begun_ns < (uint64_t)RETRYING_FAIR_MS * 1000000;
}

/* Tells the breaker how an attempt ended.  An attempt that ended at once with
 * zeros tells it nothing, because the source has asked no server. */
static void tell_breaker_locked(struct retrying *r, const struct attempt *a,
                                enum meaning meaning, bool at_once,
                                uint64_t now) {
  lock_assert_held(&r->lock);
  if (at_once && a->read.status == SOURCE_ZEROS) {
    breaker_left(&r->breaker, a->is_probe);
    return;
  }
  if (is_cut_short(a, meaning, now))
    return;
  bool answered = meaning != NO_ANSWER && meaning != NO_CONNECTION;
  r->counts.n_opened +=
      breaker_ended(&r->breaker, a->is_probe, answered, to_ms(now));
}

/* The number in progress may exceed the present limit, because the limit may
 * have been higher when they began. */
static void check_locked(const struct retrying *r) {
  lock_assert_held(&r->lock);
#ifdef CACHETD_DEBUG_CHECKS
  breaker_check(&r->breaker);
  assert(r->n_running <= 1 || r->running <= RETRYING_MAX_BYTES);
  assert(r->n_running > 0 || r->running == 0);
#endif
}

/* Whether one more may be under way. */
static bool has_room_locked(const struct retrying *r, const struct attempt *a) {
  lock_assert_held(&r->lock);
  return r->n_running == 0 ||
         (r->n_running < r->max_requests &&
          r->running + a->asked->len <= RETRYING_MAX_BYTES);
}

static void take_room_locked(struct retrying *r, const struct attempt *a) {
  lock_assert_held(&r->lock);
  r->n_running++;
  r->running += a->asked->len;
  check_locked(r);
}

static void give_room_locked(struct retrying *r, const struct attempt *a) {
  lock_assert_held(&r->lock);
  assert(r->n_running > 0 && r->running >= a->asked->len);
  r->n_running--;
  r->running -= a->asked->len;
  check_locked(r);
}

static void give_room(struct retrying *r, const struct attempt *a) {
  pthread_mutex_lock(&r->lock);
  give_room_locked(r, a);
  pthread_mutex_unlock(&r->lock);
}

/* An attempt has ended; `at_once`: as soon as it began.  True: one more is to
 * be made after `*pause`.  Then pump() is due. */
static bool attempt_ended(struct attempt *a, bool at_once, uint64_t *pause) {
  struct retrying *r = a->source->shared;
  enum meaning meaning = meaning_of(a->read.status);
  uint64_t now = now_ns(r);
  pthread_mutex_lock(&r->lock);
  give_room_locked(r, a);
  bool was_closed = r->breaker.state == BREAKER_CLOSED;
  count_locked(r, a, meaning, now);
  if (meaning == DONE && a->read.status == 0)
    time_locked(r, a, now);
  tell_breaker_locked(r, a, meaning, at_once, now);
  bool is_closed = r->breaker.state == BREAKER_CLOSED;
  bool again = is_worth_locked(r, a, meaning, now, pause);
  pthread_mutex_unlock(&r->lock);
  if (was_closed != is_closed && r->turned)
    r->turned(r->name, is_closed);
  return again;
}

/* Whether it may be made, now that it has room: there is time enough, and the
 * breaker lets it. */
static bool attempt_may(struct attempt *a) {
  struct retrying *r = a->source->shared;
  uint64_t now = now_ns(r);
  a->begun_ns = now;
  if (to_ms(now) + RETRYING_LEAST_MS > a->deadline_ms) {
    a->read.status = -ETIMEDOUT;
    return false;
  }
  pthread_mutex_lock(&r->lock);
  enum breaker_permit permit = breaker_ask(&r->breaker, to_ms(now));
  r->counts.n_broken += permit == BREAKER_REFUSE;
  pthread_mutex_unlock(&r->lock);
  a->is_probe = permit == BREAKER_PROBE;
  a->read.status = -EHOSTDOWN;
  return permit != BREAKER_REFUSE;
}

static void attempt_done(struct source_read *read);
static void attempt_again(struct reactor_alarm *alarm);

/* Makes an attempt that has room.  True: the read has ended, `a` is still
 * there, and so may be others that wait for the room. */
static bool attempt_run(struct attempt *a) {
  struct retrying *r = a->source->shared;
  /* What the attempt before brought did not match. */
  bool is_anew = a->asked->anew || a->read.status == -EBADMSG;
  uint64_t pause;
  if (!attempt_may(a)) {
    give_room(r, a);
    return true;
  }
  a->n++;
  a->read = (struct source_read){.offset = a->asked->offset,
                                 .buf = a->asked->buf,
                                 .len = a->asked->len,
                                 .done = attempt_done,
                                 .deadline_ms = a->deadline_ms,
                                 .anew = is_anew};
  enum source_outcome outcome = source_start(a->source->below, &a->read);
  if (outcome == SOURCE_PENDING)
    return false; /* `a` may be gone */
  assert(outcome == SOURCE_DONE);
  if (!attempt_ended(a, true, &pause))
    return true;
  r->clock.after(r->clock.arg, &a->alarm, pause);
  return false;
}

/* Makes an attempt, or has it wait for its turn.  As attempt_run(). */
static bool attempt_make(struct attempt *a) {
  struct retrying *r = a->source->shared;
  pthread_mutex_lock(&r->lock);
  bool runs = STAILQ_EMPTY(&r->waiting) && has_room_locked(r, a);
  if (runs)
    take_room_locked(r, a);
  else
    STAILQ_INSERT_TAIL(&r->waiting, a, link);
  pthread_mutex_unlock(&r->lock);
  return runs && attempt_run(a);
}

static void attempt_finish(struct attempt *a) {
  struct source_read *asked = a->asked;
  asked->status = a->read.status;
  free(a);
  asked->done(asked); /* the source may be gone */
}

/* The first that waits, if there is room for it. */
static struct attempt *next_waiting(struct retrying *r) {
  pthread_mutex_lock(&r->lock);
  struct attempt *a = STAILQ_FIRST(&r->waiting);
  if (a && has_room_locked(r, a)) {
    STAILQ_REMOVE_HEAD(&r->waiting, link);
    take_room_locked(r, a);
  } else {
    a = NULL;
  }
  pthread_mutex_unlock(&r->lock);
  return a;
}

/* Room has become free.  The caller has a reference. */
static void pump(struct retrying *r) {
  struct attempt *a;
  while ((a = next_waiting(r)))
    if (attempt_run(a))
      attempt_finish(a);
}

static void attempt_done(struct source_read *read) {
  struct attempt *a = container_of(read, struct attempt, read);
  struct retrying *r = retrying_ref(a->source->shared);
  uint64_t pause;
  if (attempt_ended(a, false, &pause))
    r->clock.after(r->clock.arg, &a->alarm, pause);
  else
    attempt_finish(a);
  pump(r);
  retrying_unref(r);
}

static void attempt_again(struct reactor_alarm *alarm) {
  struct attempt *a = container_of(alarm, struct attempt, alarm);
  struct retrying *r = retrying_ref(a->source->shared);
  if (attempt_make(a))
    attempt_finish(a);
  pump(r);
  retrying_unref(r);
}

/* ---- The source ---------------------------------------------------------- */

static struct retrying_source *retrying_of(struct source *src) {
  return container_of(src, struct retrying_source, base);
}

static enum source_outcome retrying_start(struct source *src,
                                          struct source_read *read) {
  struct retrying_source *s = retrying_of(src);
  struct retrying *r = s->shared;
  if (source_knows_zeros(s->below, read->offset, read->len)) {
    read->status = SOURCE_ZEROS;
    return SOURCE_DONE;
  }
  struct attempt *a = calloc(1, sizeof *a);
  if (!a) {
    read->status = -ENOMEM;
    return SOURCE_DONE;
  }
  a->asked = read;
  a->source = s;
  a->alarm.ring = attempt_again;
  a->asked_ns = now_ns(r);
  a->deadline_ms = to_ms(a->asked_ns) + RETRYING_TOTAL_MS;
  if (read->deadline_ms && read->deadline_ms < a->deadline_ms)
    a->deadline_ms = read->deadline_ms;
  bool has_ended = attempt_make(a);
  if (has_ended) {
    read->status = a->read.status;
    free(a);
  }
  pump(r);
  return has_ended ? SOURCE_DONE : SOURCE_PENDING;
}

static int retrying_reopen(struct source *src, struct source **out) {
  struct retrying_source *s = retrying_of(src);
  struct source *below;
  *out = NULL;
  int r = source_reopen(s->below, &below);
  if (!below)
    return r;
  r = retrying_source_new(s->shared, below, out);
  if (r < 0)
    below->ops->close(below);
  return r;
}

static void retrying_identify(struct source *src, struct source_identity *out) {
  source_identify(retrying_of(src)->below, out);
}

static bool retrying_resume(struct source *src,
                            const struct source_identity *id) {
  return source_resume(retrying_of(src)->below, id);
}

static uint64_t retrying_worth(struct source *src) {
  struct retrying *r = retrying_of(src)->shared;
  pthread_mutex_lock(&r->lock);
  uint64_t worth = pace_worth(&r->pace);
  pthread_mutex_unlock(&r->lock);
  return worth;
}

static void retrying_advise(struct source *src, uint64_t offset, uint64_t len) {
  source_advise(retrying_of(src)->below, offset, len);
}

static void retrying_forget(struct source *src) {
  source_forget(retrying_of(src)->below);
}

static void retrying_listen(struct source *src, struct source_listener *l) {
  source_listen(retrying_of(src)->below, l);
}

static void retrying_close(struct source *src) {
  struct retrying_source *s = retrying_of(src);
  s->below->ops->close(s->below);
  retrying_unref(s->shared);
  free(s);
}

static const struct source_ops retrying_ops = {
    .kind = "retrying",
    .start = retrying_start,
    .reopen = retrying_reopen,
    .identify = retrying_identify,
    .resume = retrying_resume,
    .worth = retrying_worth,
    .advise = retrying_advise,
    .forget = retrying_forget,
    .listen = retrying_listen,
    .close = retrying_close,
};

int retrying_source_new(struct retrying *r, struct source *below,
                        struct source **out) {
  struct retrying_source *s = calloc(1, sizeof *s);
  if (!s)
    return -ENOMEM;
  s->base.ops = &retrying_ops;
  s->base.size = below->size;
  s->base.fetch_size = below->fetch_size;
  s->below = below;
  s->shared = retrying_ref(r);
  *out = &s->base;
  return 0;
}
