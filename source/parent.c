#include "source/parent.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/deadline.h"
#include "cache/source.h"
#include "source/kinds.h"
#include "source/opener.h"
#include "source/parent_choice.h"
#include "source/parent_link.h"
#include "source/parent_target.h"
#include "source/reactor.h"

enum {
  /* How long the first parent that is there waits for the others, when an image
   * is opened: long enough to see that they serve the same. */
  OPEN_GRACE_MS = 500,
  /* How long one that was late is not asked; each time twice as long. */
  LATE_FIRST_MS = 1000,
  LATE_MOST_MS = 16000,
};

struct parent_source;

/* The reactor's thread only. */
struct parent {
  struct parent_link link;
  struct parent_source *source;
  uint64_t seed;
  bool is_known; /* it was UP; then `known` is what it said last */
  bool is_ours;  /* and that is the source's version, so it is asked */
  bool is_told;  /* the listener was told that it is not ours */
  struct connection_image known;
  struct parent_times times;
  int64_t late_until; /* not asked before; 0: its last answer was in time */
  int late_ms;
};

TAILQ_HEAD(attempts, attempt);

/* All but what is set apart belong to the reactor's thread. */
struct parent_source {
  struct source base;
  struct parent_target *target; /* fixed */
  struct reactor *reactor;      /* fixed */
  atomic_bool is_stale;         /* set once, by the reactor's thread; relaxed: a
                           thread that misses it asks again soon */
  atomic_int down;      /* why no parent is there; 0: one is.  Relaxed */
  pthread_mutex_t news; /* the listener's locks may be taken under it */
  struct source_listener *listener; /* guarded by news; NULL: nobody */
  uint64_t missed_from, missed_to;  /* guarded by news: what was invalidated
                                       before anybody listened; bytes */

  /* The reactor's thread only. */
  struct opener *opener;   /* NULL: nobody waits for the first connection */
  struct event grace;      /* while somebody does */
  struct event alone;      /* while those that are there have other versions */
  struct attempts waiting; /* those that no parent is asked for */
  unsigned n_attempts;
  struct task begin, raise, remark, close;

  /* P4.  Its size is that of `base`; set when the source is opened. */
  struct connection_image version;
  unsigned leader; /* before that: the one that is to lead, if it is there */

  unsigned n;
  struct parent parents[];
};

/* A read, from start() to its end. */
struct attempt {
  struct parent_source *source;
  struct source_read *asked;
  struct task task; /* has it begin */
  struct parent_read read;
  struct parent *at;  /* the one that is asked; NULL: it waits */
  uint32_t passed;    /* a bit for each parent that was passed over */
  int64_t deadline;   /* the read's, or `late` */
  int64_t late;       /* when it has taken as long as an attempt may */
  uint64_t epoch;     /* that was asked for */
  int64_t asked_at;   /* when `at` was asked */
  struct event timer; /* for when `at` is late, and for the deadline */
  TAILQ_ENTRY(attempt) waiting;
};

_Static_assert(PARENT_TARGET_MAX <= 32, "a bit for each");

static struct parent_source *parent_of(struct source *src) {
  return container_of(src, struct parent_source, base);
}

static bool is_stale(const struct parent_source *s) {
  return atomic_load_explicit(&s->is_stale, memory_order_relaxed);
}

static bool is_connected(const struct parent *p) {
  return p->link.state == PARENT_LINK_UP;
}

static bool is_up(const struct parent *p) {
  return is_connected(p) && p->is_ours;
}

static unsigned n_up(const struct parent_source *s) {
  unsigned n = 0;
  for (unsigned i = 0; i < s->n; i++)
    n += is_up(&s->parents[i]);
  return n;
}

static unsigned n_connected(const struct parent_source *s) {
  unsigned n = 0;
  for (unsigned i = 0; i < s->n; i++)
    n += is_connected(&s->parents[i]);
  return n;
}

/* Whether one may come up. */
static bool has_hope(const struct parent_source *s) {
  for (unsigned i = 0; i < s->n; i++) {
    const struct parent *p = &s->parents[i];
    if (p->link.state != PARENT_LINK_DOWN && (!is_connected(p) || p->is_ours))
      return true;
  }
  return false;
}

/* Why no parent is up. */
static int status_of_none(const struct parent_source *s) {
  for (unsigned i = 0; i < s->n; i++)
    if (s->parents[i].link.state == PARENT_LINK_DOWN)
      return s->parents[i].link.status;
  return s->parents[0].link.status;
}

/* Whether the parents say what tells their contents apart. */
static bool has_identity(const struct parent_source *s) {
  return s->version.identity_len > 0;
}

/* ---- The choice of a parent --------------------------------------------- */

static uint32_t bit_of(const struct parent *p) {
  return UINT32_C(1) << (p - p->source->parents);
}

static bool is_late(const struct parent *p) {
  return p->late_until && !deadline_has_passed(p->late_until);
}

/* The higher the better: one that was not passed over goes before one that was,
 * and then one that is not late before one that is. */
static int rank_of(const struct parent *p, const struct attempt *a) {
  return 2 * !(a->passed & bit_of(p)) + !is_late(p);
}

/* NULL: there is none that takes it now. */
static struct parent *choose(struct parent_source *s, const struct attempt *a) {
  struct parent *best = NULL;
  uint64_t best_score = 0;
  for (unsigned i = 0; i < s->n; i++) {
    struct parent *p = &s->parents[i];
    if (!is_up(p) || !parent_link_has_room(&p->link))
      continue;
    uint64_t score = parent_choice_score(p->seed, a->read.offset);
    int better = best ? rank_of(p, a) - rank_of(best, a) : 1;
    if (better > 0 || (better == 0 && score > best_score)) {
      best = p;
      best_score = score;
    }
  }
  return best;
}

/* Whether another one may be asked in its place. */
static bool has_next(struct parent_source *s, const struct attempt *a) {
  for (unsigned i = 0; i < s->n; i++) {
    const struct parent *p = &s->parents[i];
    if (p != a->at && is_up(p) && !(a->passed & bit_of(p)) && !is_late(p))
      return true;
  }
  return false;
}

/* ---- Attempts ------------------------------------------------------------ */

/* For when the parent that is asked is late, if there is another one; else for
 * the deadline. */
static void set_timer(struct attempt *a) {
  struct parent_source *s = a->source;
  int left = deadline_left_ms(a->deadline);
  if (a->at && s->n > 1) {
    int patience = (int)parent_choice_patience(
        &a->at->times, (uint32_t)s->target->timeout_ms / 4);
    left = patience < left ? patience : left;
  }
  reactor_set_timer(&a->timer, (uint64_t)left);
}

/* The last that is done about an attempt; what the source does next is up to
 * the caller, as the source may be gone when the reactor runs its next task. */
static void end_attempt(struct attempt *a, int status) {
  struct source_read *asked = a->asked;
  if (!a->at)
    TAILQ_REMOVE(&a->source->waiting, a, waiting);
  event_del(&a->timer);
  a->source->n_attempts--;
  asked->status = is_stale(a->source) ? -ESTALE : status;
  free(a);
  asked->done(asked);
}

static void wait_again(struct attempt *a) {
  a->passed |= bit_of(a->at);
  a->at = NULL;
  TAILQ_INSERT_TAIL(&a->source->waiting, a, waiting);
}

static void become_stale(struct parent_source *s) {
  if (is_stale(s))
    return;
  atomic_store_explicit(&s->is_stale, true, memory_order_relaxed);
  pthread_mutex_lock(&s->news);
  if (s->listener)
    s->listener->changed(s->listener);
  pthread_mutex_unlock(&s->news);
}

static void tell_invalid(struct parent_source *s, uint64_t offset,
                         uint64_t len) {
  uint64_t to = offset + len;
  pthread_mutex_lock(&s->news);
  if (s->listener) {
    s->listener->invalid(s->listener, offset, len);
  } else {
    if (s->missed_to == 0 || offset < s->missed_from)
      s->missed_from = offset;
    if (to > s->missed_to)
      s->missed_to = to;
  }
  pthread_mutex_unlock(&s->news);
}

/* Whether the parent has another epoch of the same content: then the read is
 * made again.  A parent tells of an epoch before it refuses a read of the one
 * before.  Where it refuses one and tells nothing, nothing is known of its
 * content any more. */
static bool is_of_past_epoch(struct attempt *a, int status) {
  if (status != -ESTALE)
    return false;
  if (!has_identity(a->source) || a->at->link.image.epoch == a->epoch)
    become_stale(a->source);
  return !is_stale(a->source);
}

static void on_read(struct parent_read *r) {
  struct attempt *a = container_of(r, struct attempt, read);
  int status = r->status;
  bool again = is_of_past_epoch(a, status);
  /* Ended together with one that was late. */
  if (status == -ETIMEDOUT && !deadline_has_passed(a->deadline))
    status = -ECONNRESET;
  if (again || (status < 0 && !is_stale(a->source) && has_next(a->source, a)))
    wait_again(a);
  else
    end_attempt(a, status);
}

static void fail_waiting(struct parent_source *s, int status) {
  struct attempt *a;
  while ((a = TAILQ_FIRST(&s->waiting)))
    end_attempt(a, status);
}

static void ask(struct attempt *a, struct parent *p) {
  TAILQ_REMOVE(&a->source->waiting, a, waiting);
  a->at = p;
  a->epoch = p->link.image.epoch;
  a->asked_at = deadline_now();
  a->read = (struct parent_read){.offset = a->asked->offset,
                                 .buf = a->asked->buf,
                                 .len = a->asked->len,
                                 .done = on_read};
  set_timer(a);
  parent_link_read(&p->link, &a->read); /* it may have ended */
}

static void raise_all(struct parent_source *s) {
  for (unsigned i = 0; i < s->n; i++) {
    int r = parent_link_raise(&s->parents[i].link);
    if (r < 0)
      s->parents[i].link.status = r;
  }
}

/* Those that are there have other versions: if none of the source's comes in
 * the time of an attempt, it is over (P4). */
static void heed_loneliness(struct parent_source *s) {
  bool is_alone = !s->opener && n_up(s) == 0 && n_connected(s) > 0;
  if (!is_alone)
    event_del(&s->alone);
  else if (!event_pending(&s->alone, EV_TIMEOUT, NULL))
    reactor_set_timer(&s->alone, (uint64_t)s->target->timeout_ms);
}

/* The attempts that wait are counted, and none of them is with a parent. */
static void check_attempts(const struct parent_source *s) {
  (void)s;
#ifdef CACHETD_DEBUG_CHECKS
  const struct attempt *a;
  unsigned n = 0;
  TAILQ_FOREACH(a, &s->waiting, waiting) {
    assert(a->source == s && !a->at);
    n++;
  }
  assert(n <= s->n_attempts);
#endif
}

/* Gives reads that wait to parents; where none can come, they end. */
static void dispatch(struct parent_source *s) {
  heed_loneliness(s);
  struct attempt *a;
  struct parent *p;
  if (is_stale(s))
    fail_waiting(s, -ESTALE);
  while ((a = TAILQ_FIRST(&s->waiting)) && (p = choose(s, a)))
    ask(a, p);
  if (!has_hope(s))
    fail_waiting(s, status_of_none(s));
  check_attempts(s);
}

static void on_alone(evutil_socket_t fd, short what, void *arg) {
  struct parent_source *s = arg;
  (void)fd, (void)what;
  become_stale(s);
  dispatch(s);
}

static void on_timer(evutil_socket_t fd, short what, void *arg);

static void begin_attempt(struct task *task) {
  struct attempt *a = container_of(task, struct attempt, task);
  struct parent_source *s = a->source;
  a->deadline = a->late = deadline_after(s->target->timeout_ms);
  if (a->asked->deadline_ms)
    a->deadline = deadline_earlier(a->deadline, (int64_t)a->asked->deadline_ms);
  evtimer_assign(&a->timer, reactor_base(s->reactor), on_timer, a);
  s->n_attempts++;
  TAILQ_INSERT_TAIL(&s->waiting, a, waiting);
  set_timer(a);
  if (n_up(s) == 0 && !is_stale(s))
    raise_all(s);
  dispatch(s);
}

/* Whether the parent that is asked had the time that an attempt may take, or
 * what is left of it for one of several, and has said nothing. */
static bool is_silent(const struct attempt *a) {
  int64_t fair_ms = a->source->target->timeout_ms / 4;
  return a->at && deadline_has_passed(a->late) &&
         deadline_now() - a->asked_at >= fair_ms &&
         parent_link_is_silent(&a->at->link, &a->read);
}

/* Nobody waits for it any longer. */
static void give_up(struct attempt *a) {
  struct parent *p = a->at;
  bool has_to_end = is_silent(a);
  bool is_forgotten = !p || parent_link_forget(&p->link, &a->read);
  if (is_forgotten)
    end_attempt(a, -ETIMEDOUT);
  if (has_to_end || !is_forgotten)
    parent_link_end(&p->link, -ETIMEDOUT);
}

/* The one that is asked is late: other reads go past it, too, for a while. */
static void pass_over(struct attempt *a) {
  struct parent *p = a->at;
  if (parent_link_has_begun(&a->read) || !has_next(a->source, a) ||
      !parent_link_forget(&p->link, &a->read))
    return;
  p->late_ms = p->late_ms ? p->late_ms * 2 : LATE_FIRST_MS;
  p->late_ms = p->late_ms < LATE_MOST_MS ? p->late_ms : LATE_MOST_MS;
  p->late_until = deadline_after(p->late_ms);
  wait_again(a);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
  struct attempt *a = arg;
  struct parent_source *s = a->source;
  (void)fd, (void)what;
  if (deadline_has_passed(a->deadline)) {
    give_up(a);
  } else {
    reactor_set_timer(&a->timer, (uint64_t)deadline_left_ms(a->deadline));
    if (a->at)
      pass_over(a);
  }
  dispatch(s);
}

/* ---- Versions ------------------------------------------------------------ */

/* Whether a parent has the version of the source.  If the leader does not say
 * what its content is, only the sizes can be compared. */
static bool is_same_content(const struct connection_image *its,
                            const struct connection_image *version) {
  return its->size == version->size &&
         (version->identity_len == 0 ||
          (its->identity_len == version->identity_len &&
           memcmp(its->identity, version->identity, sizeof its->identity) ==
               0));
}

/* False: nobody listens. */
static bool say_remark(struct parent_source *s, const char *text) {
  pthread_mutex_lock(&s->news);
  bool is_heard = s->listener && s->listener->remark;
  if (is_heard)
    s->listener->remark(s->listener, text);
  pthread_mutex_unlock(&s->news);
  return is_heard;
}

/* Whether a parent is asked, if that is news. */
static void remark(struct parent *p) {
  struct parent_source *s = p->source;
  char place[300], text[400];
  if (p->is_told == !p->is_ours || s->n == 1 || is_stale(s))
    return;
  uri_print_place(&s->target->uris[p - s->parents], place, sizeof place);
  snprintf(text, sizeof text,
           p->is_ours ? "the parent %s has the same version as the others again"
                      : "the parent %s has another version, and is not asked "
                        "until it has the same as the others",
           place);
  if (say_remark(s, text))
    p->is_told = !p->is_ours;
}

static void remark_others(struct task *task) {
  struct parent_source *s = container_of(task, struct parent_source, remark);
  for (unsigned i = 0; i < s->n; i++)
    if (is_connected(&s->parents[i]))
      remark(&s->parents[i]);
}

/* A parent of the source's version has said something else than before. */
static void heed_version(struct parent *p, const struct connection_image *now,
                         bool is_news) {
  struct parent_source *s = p->source;
  const struct connection_image *before = &p->known;
  bool is_same_epoch = before->epoch == now->epoch;
  if (!has_identity(s)) {
    if (!connection_image_goes_on(before, now))
      become_stale(s);
  } else if (!p->is_ours) {
    if (p == &s->parents[s->leader])
      become_stale(s);
  } else if (is_news ||
             (is_same_epoch && !connection_image_goes_on(before, now))) {
    tell_invalid(s, 0, s->base.size);
  }
}

/* Takes in what the parent says; `is_news`: on a connection that was UP. */
static void take_image(struct parent *p, bool is_news) {
  struct parent_source *s = p->source;
  bool was_ours = p->is_ours;
  p->is_known = true;
  if (!s->opener) {
    p->is_ours = is_same_content(&p->link.image, &s->version);
    if (was_ours)
      heed_version(p, &p->link.image, is_news);
    remark(p);
  }
  p->known = p->link.image;
}

/* The one that is to lead, or else the first that is there. */
static struct parent *find_leader(struct parent_source *s) {
  if (is_connected(&s->parents[s->leader]))
    return &s->parents[s->leader];
  for (unsigned i = 0; i < s->n; i++)
    if (is_connected(&s->parents[i]))
      return &s->parents[i];
  return NULL;
}

static void note_down(struct parent_source *s) {
  int down = n_up(s) ? 0 : status_of_none(s);
  atomic_store_explicit(&s->down, down, memory_order_relaxed);
}

/* The leader's version is the source's. */
static void follow(struct parent_source *s, const struct parent *leader) {
  s->leader = (unsigned)(leader - s->parents);
  s->version = leader->known;
  s->base.size = s->version.size;
  for (unsigned i = 0; i < s->n; i++) {
    struct parent *p = &s->parents[i];
    p->is_ours = p->is_known && is_same_content(&p->known, &s->version);
  }
  note_down(s);
}

/* Without identities, those that are there must at least be of one size. */
static bool may_follow(const struct parent_source *s,
                       const struct parent *leader) {
  for (unsigned i = 0; i < s->n; i++)
    if (leader->known.identity_len == 0 && is_connected(&s->parents[i]) &&
        s->parents[i].known.size != leader->known.size)
      return false;
  return true;
}

/* ---- Opening ------------------------------------------------------------- */

static void tell_opener(struct parent_source *s, int status,
                        const struct source_fault *fault) {
  event_del(&s->grace);
  opener_tell(&s->opener, status, fault);
}

static void refuse_other(struct parent_source *s) {
  struct source_fault fault = {"the parents serve images of different sizes"};
  tell_opener(s, -EPROTO, &fault);
}

/* Opens it with those that are there; without any, if none can come. */
static void check_opening(struct parent_source *s, bool waits) {
  unsigned n_settled = 0;
  const struct source_fault none = {""};
  const struct parent *leader = find_leader(s);
  if (!s->opener)
    return;
  for (unsigned i = 0; i < s->n; i++)
    n_settled += is_connected(&s->parents[i]) ||
                 s->parents[i].link.state == PARENT_LINK_DOWN;
  if (n_settled < s->n && (waits || !leader))
    return;
  if (!leader) {
    tell_opener(s, s->parents[0].link.status, &s->parents[0].link.fault);
  } else if (!may_follow(s, leader)) {
    refuse_other(s);
  } else {
    follow(s, leader);
    tell_opener(s, 0, &none);
  }
}

static void on_grace(evutil_socket_t fd, short what, void *arg) {
  (void)fd, (void)what;
  check_opening(arg, false);
}

/* ---- What links tell ----------------------------------------------------- */

static struct parent *parent_of_link(struct parent_link *l) {
  return container_of(l, struct parent, link);
}

static void on_up(struct parent_link *l) {
  struct parent *p = parent_of_link(l);
  struct parent_source *s = p->source;
  if (s->opener && n_connected(s) == 1)
    reactor_set_timer(&s->grace, OPEN_GRACE_MS);
  p->late_until = 0;
  take_image(p, false);
}

/* What it was told until the end counts, when it comes back. */
static void on_down(struct parent_link *l) {
  parent_of_link(l)->known = l->image;
}

static void on_changed(struct parent_link *l) {
  take_image(parent_of_link(l), true);
}

static void on_invalid(struct parent_link *l, uint64_t offset, uint64_t len) {
  struct parent *p = parent_of_link(l);
  if (p->is_ours || p->source->opener) /* it may become ours */
    tell_invalid(p->source, offset, len);
}

static void on_answered(struct parent_link *l, uint64_t took_ms) {
  struct parent *p = parent_of_link(l);
  parent_choice_took(&p->times, took_ms);
  p->late_until = 0;
  p->late_ms = 0;
}

static void on_turned(struct parent_link *l) {
  struct parent_source *s = parent_of_link(l)->source;
  note_down(s);
  check_opening(s, true);
  dispatch(s);
}

static const struct parent_link_calls link_calls = {
    .up = on_up,
    .down = on_down,
    .changed = on_changed,
    .invalid = on_invalid,
    .answered = on_answered,
    .turned = on_turned,
};

/* ---- A source's calls ---------------------------------------------------- */

static enum source_outcome parent_start(struct source *src,
                                        struct source_read *r) {
  struct parent_source *s = parent_of(src);
  struct attempt *a = calloc(1, sizeof *a);
  if (!a) {
    r->status = -ENOMEM;
    return SOURCE_DONE;
  }
  a->source = s;
  a->asked = r;
  a->task.run = begin_attempt;
  a->read.offset = r->offset;
  reactor_post(s->reactor, &a->task); /* then all of it may be over */
  return SOURCE_PENDING;
}

static void close_on_reactor(struct task *task) {
  struct parent_source *s = container_of(task, struct parent_source, close);
  assert(s->n_attempts == 0);
  for (unsigned i = 0; i < s->n; i++)
    parent_link_fini(&s->parents[i].link);
  event_del(&s->grace);
  event_del(&s->alone);
  parent_target_unref(s->target);
  pthread_mutex_destroy(&s->news);
  free(s);
}

/* Of all connections: nothing that is posted comes behind this. */
static void parent_close(struct source *src) {
  struct parent_source *s = parent_of(src);
  reactor_post(s->reactor, &s->close);
}

static void begin_opening(struct task *task) {
  struct parent_source *s = container_of(task, struct parent_source, begin);
  char place[300];
  evtimer_assign(&s->grace, reactor_base(s->reactor), on_grace, s);
  evtimer_assign(&s->alone, reactor_base(s->reactor), on_alone, s);
  for (unsigned i = 0; i < s->n; i++) {
    struct parent *p = &s->parents[i];
    const struct uri *u = &s->target->uris[i];
    uri_print_place(u, place, sizeof place);
    p->source = s;
    p->seed = parent_choice_seed(place, u->image);
    parent_link_init(&p->link, s->reactor, s->target, i, &link_calls);
  }
  raise_all(s);
  check_opening(s, true); /* there may be no threads */
}

static void raise_those_down(struct task *task) {
  raise_all(container_of(task, struct parent_source, raise));
}

static const struct source_ops parent_ops;

/* NULL: no memory. */
static struct parent_source *source_new(struct reactor *reactor,
                                        struct parent_target *target) {
  struct parent_source *s =
      calloc(1, sizeof *s + target->n * sizeof s->parents[0]);
  if (!s)
    return NULL;
  s->base.ops = &parent_ops;
  s->target = parent_target_ref(target);
  s->reactor = reactor;
  s->n = target->n;
  s->begin.run = begin_opening;
  s->raise.run = raise_those_down;
  s->remark.run = remark_others;
  s->close.run = close_on_reactor;
  atomic_init(&s->is_stale, false);
  atomic_init(&s->down, 0);
  pthread_mutex_init(&s->news, NULL);
  TAILQ_INIT(&s->waiting);
  return s;
}

/* `leader` is the number of the parent that is to lead, if it is there. */
static int open_target(struct reactor *reactor, struct parent_target *target,
                       unsigned leader, const struct timespec *deadline,
                       struct source **out, struct source_fault *fault) {
  struct opener o;
  struct parent_source *s = source_new(reactor, target);
  if (!s) {
    snprintf(fault->text, sizeof fault->text, "out of memory");
    return -ENOMEM;
  }
  s->leader = leader;
  opener_init(&o, &s->opener);
  reactor_run(reactor, &s->begin);
  int r = opener_await(&o, reactor, deadline,
                       "the daemon was not found, or did not answer, in time",
                       fault);
  if (r < 0)
    parent_close(&s->base);
  else
    *out = &s->base;
  return r;
}

static int open_successor(struct parent_source *s, struct source **out) {
  struct source_fault fault;
  struct timespec deadline = clock_after_ms(s->target->timeout_ms);
  return open_target(s->reactor, s->target, s->leader, &deadline, out, &fault);
}

/* Has those that are down come back, and does not wait for that.  Without a
 * successor nothing of what is known to be stale is read on. */
static int parent_reopen(struct source *src, struct source **out) {
  struct parent_source *s = parent_of(src);
  *out = NULL;
  if (is_stale(s)) {
    int r = open_successor(s, out);
    if (r < 0)
      tell_invalid(s, 0, s->base.size);
    return r;
  }
  reactor_post(s->reactor, &s->raise);
  return atomic_load_explicit(&s->down, memory_order_relaxed);
}

static void parent_listen(struct source *src, struct source_listener *l) {
  struct parent_source *s = parent_of(src);
  pthread_mutex_lock(&s->news);
  s->listener = l;
  if (l && is_stale(s))
    l->changed(l);
  if (l && s->missed_to > s->missed_from)
    l->invalid(l, s->missed_from, s->missed_to - s->missed_from);
  s->missed_from = s->missed_to = 0;
  pthread_mutex_unlock(&s->news);
  if (l)
    reactor_post(s->reactor, &s->remark);
}

/* On the word of the parents.  What was read of those that say nothing is not
 * to be kept.  The epoch, and the number of its invalidations, tell a later
 * process whether it has missed one. */
static void parent_identify(struct source *src, struct source_identity *out) {
  const struct connection_image *version = &parent_of(src)->version;
  static const char word[] = "cachet";
  if (version->identity_len == 0)
    return;
  source_identity_add(out, word, sizeof word);
  source_identity_add(out, &version->epoch, sizeof version->epoch);
  source_identity_add(out, &version->invalidations,
                      sizeof version->invalidations);
  source_identity_add(out, version->identity, version->identity_len);
  out->content_len = version->identity_len;
}

/* Of several parents only the leader's numbers are known here. */
static bool parent_resume(struct source *src,
                          const struct source_identity *id) {
  const struct parent_source *s = parent_of(src);
  return s->n == 1 && s->version.invalidations > 0 &&
         source_is_identity(src, id);
}

static const struct source_ops parent_ops = {
    .kind = "cachet",
    .start = parent_start,
    .reopen = parent_reopen,
    .identify = parent_identify,
    .resume = parent_resume,
    .listen = parent_listen,
    .close = parent_close,
};

/* ---- The kind ------------------------------------------------------------ */

static int parent_check(const struct source_uri *uri,
                        struct source_fault *fault) {
  struct parent_target *target;
  int r = parent_target_new(uri, &target, fault);
  if (r == 0)
    parent_target_unref(target);
  return r;
}

static int parent_open(struct reactor *r, const struct source_uri *uri,
                       const struct timespec *deadline, struct source **out,
                       struct source_fault *fault) {
  struct parent_target *target;
  int failed = parent_target_new(uri, &target, fault);
  if (failed < 0)
    return failed;
  failed = open_target(r, target, 0, deadline, out, fault);
  parent_target_unref(target);
  return failed;
}

const struct source_kind parent_source_kind = {
    CACHET_KIND,
    .check = parent_check,
    .open = parent_open,
};
