#include "source/nbd.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <libnbd.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/deadline.h"
#include "cache/source.h"
#include "source/kinds.h"
#include "source/nbd_dial.h"
#include "source/nbd_link.h"
#include "source/nbd_target.h"
#include "source/opener.h"
#include "source/reactor.h"
#include "source/timeouts.h"
#include "source/zero_map.h"

enum {
  MAX_LINKS = 4,
  MAX_LOST_QUESTIONS = 3,
  CUT_SHORT = -EINTR, /* a status of the links', for on_read() alone */
};

/* What a server says of an export, by which it is known again. */
struct export {
  uint64_t size;
  char *name, *description; /* NULL: it does not say */
};

struct nbd_source;

struct slot {
  struct nbd_link link; /* valid only while it is up */
  bool is_up;
  uint64_t asked_after; /* `n_forgotten` as of its last question */
  struct nbd_source *source;
};

TAILQ_HEAD(attempts, attempt);

/* All but what says so belongs to the reactor's thread. */
struct nbd_source {
  struct source base;
  struct nbd_target *target; /* fixed */
  struct reactor *reactor;   /* fixed */
  atomic_bool is_stale;      /* set once, by the reactor's thread; relaxed: a
                                thread that misses it checks again soon */
  pthread_mutex_t zeros_lock;
  struct zero_map zeros; /* guarded by zeros_lock: the server's answers */
  uint64_t n_forgotten;  /* likewise: how often `zeros` was emptied */

  struct opener *opener; /* waits for the first connection; or NULL */
  struct export export;  /* as of the first connection; then fixed */
  struct nbd_dial *dial; /* NULL: none is under way */
  int64_t dial_deadline;
  struct slot slots[MAX_LINKS];
  unsigned max_links;        /* that the server takes, as far as is known */
  unsigned n_lost_questions; /* with their connections */

  struct timeouts attempts; /* all that are under way */
  struct attempts waiting;  /* of them, those without a link, by age */

  struct task begin, close;
};

/* A read, from start() to its end. */
struct attempt {
  struct nbd_source *source;
  struct source_read *asked;
  struct task task; /* begins it */
  struct nbd_read read;
  bool is_waiting;
  struct timeout due; /* the read's deadline, or `late` */
  int64_t late;       /* when it has taken as long as an attempt may */
  TAILQ_ENTRY(attempt) waiting;
};

static struct nbd_source *nbd_of(struct source *src) {
  return container_of(src, struct nbd_source, base);
}

/* ---- Exports ------------------------------------------------------------- */

static void export_fini(struct export *e) {
  free(e->name);
  free(e->description);
}

static void export_init(struct export *e, struct nbd_handle *h, uint64_t size) {
  *e = (struct export){size, nbd_get_canonical_export_name(h),
                       nbd_get_export_description(h)};
}

static bool text_same(const char *a, const char *b) {
  return !a == !b && (!a || strcmp(a, b) == 0);
}

static bool export_same(const struct export *a, const struct export *b) {
  return a->size == b->size && text_same(a->name, b->name) &&
         text_same(a->description, b->description);
}

/* ---- The ends of reads --------------------------------------------------- */

/* Ends an attempt and frees it.  done() may close the source, but the close
 * runs as a later task of the reactor.  So the caller may use the source until
 * it returns to the loop. */
static void end_attempt(struct attempt *a, int status) {
  struct nbd_source *s = a->source;
  timeouts_remove(&s->attempts, &a->due);
  if (a->is_waiting)
    TAILQ_REMOVE(&s->waiting, a, waiting);
  struct source_read *asked = a->asked;
  free(a);
  asked->status = status;
  asked->done(asked);
}

static void on_read(struct nbd_read *r);

static void wait_for_link(struct attempt *a) {
  const struct source_read *asked = a->asked;
  a->read = (struct nbd_read){.offset = asked->offset,
                              .buf = asked->buf,
                              .len = asked->len,
                              .done = on_read};
  a->is_waiting = true;
  TAILQ_INSERT_TAIL(&a->source->waiting, a, waiting);
}

static void on_read(struct nbd_read *r) {
  struct attempt *a = container_of(r, struct attempt, read);
  int status = r->status;
  bool is_late = deadline_has_passed(a->due.deadline);
  if (status == CUT_SHORT && !is_late) {
    wait_for_link(a);
    return;
  }
  if (status == CUT_SHORT)
    status = -ETIMEDOUT;
  /* Another read was late and ended the connection, so this one is tried
   * again. */
  if (status == -ETIMEDOUT && !is_late)
    status = -ECONNRESET;
  end_attempt(a, status);
}

static void fail_waiting(struct nbd_source *s, int status) {
  struct attempt *a;
  while ((a = TAILQ_FIRST(&s->waiting)))
    end_attempt(a, status);
}

/* ---- Connections --------------------------------------------------------- */

static unsigned n_links(const struct nbd_source *s) {
  unsigned n = 0;
  for (int i = 0; i < MAX_LINKS; i++)
    n += s->slots[i].is_up;
  return n;
}

static struct slot *free_slot(struct nbd_source *s) {
  for (int i = 0; i < MAX_LINKS; i++)
    if (!s->slots[i].is_up)
      return &s->slots[i];
  return NULL;
}

/* NULL: there is none. */
static struct slot *least_busy(struct nbd_source *s) {
  struct slot *best = NULL;
  for (int i = 0; i < MAX_LINKS; i++) {
    struct slot *slot = &s->slots[i];
    if (slot->is_up && (!best || slot->link.n_reads < best->link.n_reads))
      best = slot;
  }
  return best;
}

/* Ends a link, and counts it if a question about zeros was in progress.  Some
 * servers break over such a question, or never answer it, and then the source
 * stops asking. */
static void end_link(struct slot *slot, int status) {
  slot->is_up = false;
  if (status == -ETIMEDOUT)
    slot->source->n_lost_questions += slot->link.question.is_asked;
  nbd_link_end(&slot->link, status);
}

static void end_all_links(struct nbd_source *s, int status) {
  for (int i = 0; i < MAX_LINKS; i++)
    if (s->slots[i].is_up)
      end_link(&s->slots[i], status);
}

static void give_up_dial(struct nbd_source *s) {
  if (s->dial)
    nbd_dial_give_up(s->dial);
  s->dial = NULL;
}

/* A lost connection counts against questions about zeros as well. */
static void on_lost(struct nbd_link *l) {
  struct slot *slot = container_of(l, struct slot, link);
  slot->is_up = false;
  slot->source->n_lost_questions += l->question.is_lost;
}

static void on_told(struct nbd_link *l, uint64_t begin, uint64_t end,
                    bool is_zero) {
  const struct slot *slot = container_of(l, struct slot, link);
  struct nbd_source *s = slot->source;
  pthread_mutex_lock(&s->zeros_lock);
  if (slot->asked_after == s->n_forgotten)
    zero_map_add(&s->zeros, begin, end, is_zero);
  pthread_mutex_unlock(&s->zeros_lock);
}

static const struct nbd_link_calls link_calls = {on_lost, on_told};

static void on_dialed(void *arg, const struct nbd_dialed *end);

/* 0 or a negative errno. */
static int begin_dial(struct nbd_source *s) {
  int r = nbd_dial_start(s->reactor, s->target, s->dial_deadline, on_dialed, s,
                         &s->dial);
  if (r < 0)
    s->dial = NULL;
  return r;
}

/* ---- Reads --------------------------------------------------------------- */

/* Whether one more connection may help: each of them is busy. */
static bool wants_more_links(struct nbd_source *s, const struct slot *best) {
  unsigned n = n_links(s);
  return !s->dial && n < s->max_links && (!best || best->link.n_reads > 0);
}

/* ---- Zeros --------------------------------------------------------------- */

/* What is known about a range.  If UNKNOWN, `*at` is the first byte about which
 * nothing is known, and `*n_forgotten` says how often `zeros` was emptied
 * before. */
static enum zero_answer look_for_zeros(struct nbd_source *s, uint64_t offset,
                                       uint64_t len, uint64_t *at,
                                       uint64_t *n_forgotten) {
  pthread_mutex_lock(&s->zeros_lock);
  enum zero_answer answer = zero_map_look(&s->zeros, offset, offset + len, at);
  *n_forgotten = s->n_forgotten;
  pthread_mutex_unlock(&s->zeros_lock);
  return answer;
}

/* Empties the answers.  An answer to a question that is in progress is not
 * stored either, because `n_forgotten` has changed when it comes. */
static void forget_zeros(struct nbd_source *s) {
  pthread_mutex_lock(&s->zeros_lock);
  zero_map_fini(&s->zeros);
  s->n_forgotten++;
  pthread_mutex_unlock(&s->zeros_lock);
}

/* Whether a question about that byte is in progress whose answer will be
 * stored. */
static bool is_asked(const struct nbd_source *s, uint64_t at,
                     uint64_t n_forgotten) {
  for (int i = 0; i < MAX_LINKS; i++) {
    const struct slot *slot = &s->slots[i];
    const struct nbd_question *q = &slot->link.question;
    if (slot->is_up && slot->asked_after == n_forgotten && q->is_asked &&
        q->begin <= at && at < q->end)
      return true;
  }
  return false;
}

/* Asks which ranges are zeros, from the first byte of a read about which
 * nothing is known.  That read is in progress, and does not wait for the
 * answer; it helps the reads that follow. */
static void ask_for_zeros(struct nbd_source *s, struct slot *slot,
                          const struct source_read *r) {
  uint64_t at, n_forgotten;
  if (s->n_lost_questions >= MAX_LOST_QUESTIONS ||
      !nbd_link_may_ask(&slot->link) ||
      look_for_zeros(s, r->offset, r->len, &at, &n_forgotten) != ZERO_UNKNOWN ||
      is_asked(s, at, n_forgotten))
    return;
  slot->asked_after = n_forgotten;
  nbd_link_ask(&slot->link, at);
}

/* ---- Dispatching --------------------------------------------------------- */

/* Gives reads that wait to links, and connects if there are too few links. */
static void dispatch(struct nbd_source *s) {
  struct slot *best = least_busy(s);
  if (!TAILQ_EMPTY(&s->waiting) && wants_more_links(s, best)) {
    s->dial_deadline = deadline_after(s->target->timeout_ms);
    int r = begin_dial(s);
    if (r < 0 && !best)
      fail_waiting(s, r);
  }
  struct attempt *a;
  while ((a = TAILQ_FIRST(&s->waiting)) && (best = least_busy(s))) {
    TAILQ_REMOVE(&s->waiting, a, waiting);
    a->is_waiting = false;
    a->asked->sent_ns = clock_now_ns();
    nbd_link_read(&best->link, &a->read);
    ask_for_zeros(s, best, a->asked);
  }
}

static void begin_attempt(struct task *task) {
  struct attempt *a = container_of(task, struct attempt, task);
  struct nbd_source *s = a->source;
  a->due.deadline = a->late = deadline_after(s->target->timeout_ms);
  if (a->asked->deadline_ms)
    a->due.deadline =
        deadline_earlier(a->due.deadline, (int64_t)a->asked->deadline_ms);
  timeouts_add(&s->attempts, &a->due);
  wait_for_link(a);
  if (atomic_load_explicit(&s->is_stale, memory_order_relaxed))
    end_attempt(a, -ESTALE);
  else
    dispatch(s);
}

/* Ends the reads that are late.  It also ends their links, or the dial for
 * which they wait if that is late as well.  If a read had less time than an
 * attempt may take, its end says nothing of the server: the other reads of that
 * link then wait for another link. */
static void on_timer(evutil_socket_t fd, short what, void *arg) {
  struct nbd_source *s = arg;
  struct timeout *due;
  (void)fd, (void)what;
  while ((due = timeouts_next_due(&s->attempts, NULL))) {
    struct attempt *a = container_of(due, struct attempt, due);
    if (!a->is_waiting) {
      int status = deadline_has_passed(a->late) ? -ETIMEDOUT : CUT_SHORT;
      end_link(container_of(a->read.link, struct slot, link), status);
      continue;
    }
    if (s->dial && deadline_has_passed(s->dial_deadline))
      give_up_dial(s);
    end_attempt(a, -ETIMEDOUT);
  }
  dispatch(s);
  timeouts_set_timer(&s->attempts);
}

/* Takes a new connection over.  Returns 0, or a status after it closed the
 * handle. */
static int take_link(struct nbd_source *s, struct nbd_handle *h,
                     struct source_fault *fault) {
  struct slot *slot = free_slot(s);
  struct export now;
  assert(slot);
  if (n_links(s) == 0) /* the content may have changed meanwhile */
    forget_zeros(s);
  slot->source = s;
  int r = nbd_link_init(&slot->link, reactor_base(s->reactor), h, &link_calls);
  *fault = slot->link.fault;
  if (r < 0)
    return r;
  slot->is_up = true;
  export_init(&now, h, slot->link.size);
  s->max_links = nbd_can_multi_conn(h) == 1 ? MAX_LINKS : 1;
  if (s->opener) {
    s->export = now;
    s->base.size = now.size;
    return 0;
  }
  if (!export_same(&now, &s->export))
    r = -ESTALE;
  export_fini(&now);
  return r;
}

static void on_dialed(void *arg, const struct nbd_dialed *end) {
  struct nbd_source *s = arg;
  struct source_fault fault = end->fault;
  s->dial = NULL;
  int r = end->h ? take_link(s, end->h, &fault) : end->status;
  if (s->opener) {
    opener_tell(&s->opener, r, &fault);
    return;
  }
  if (r == -ESTALE) {
    atomic_store_explicit(&s->is_stale, true, memory_order_relaxed);
    end_all_links(s, -ESTALE);
  }
  if (r < 0 && n_links(s) == 0)
    fail_waiting(s, r);
  else if (r < 0) /* it does not take one more */
    s->max_links = n_links(s);
  dispatch(s);
  timeouts_set_timer(&s->attempts);
}

/* ---- A source's calls ---------------------------------------------------- */

static bool nbd_knows_zeros(struct source *src, uint64_t offset, uint64_t len) {
  struct nbd_source *s = nbd_of(src);
  uint64_t at, n_forgotten;
  return !atomic_load_explicit(&s->is_stale, memory_order_relaxed) &&
         look_for_zeros(s, offset, len, &at, &n_forgotten) == ZERO_ALL;
}

static enum source_outcome nbd_start(struct source *src,
                                     struct source_read *r) {
  struct nbd_source *s = nbd_of(src);
  if (nbd_knows_zeros(src, r->offset, r->len)) {
    r->status = SOURCE_ZEROS;
    return SOURCE_DONE;
  }
  struct attempt *a = calloc(1, sizeof *a);
  if (!a) {
    r->status = -ENOMEM;
    return SOURCE_DONE;
  }
  a->source = s;
  a->asked = r;
  a->task.run = begin_attempt;
  /* The last step: the read may end, and the source be closed, at once. */
  reactor_post(s->reactor, &a->task);
  return SOURCE_PENDING;
}

static void nbd_forget(struct source *src) { forget_zeros(nbd_of(src)); }

static void source_free(struct nbd_source *s) {
  export_fini(&s->export);
  zero_map_fini(&s->zeros);
  pthread_mutex_destroy(&s->zeros_lock);
  nbd_target_free(s->target);
  free(s);
}

static void close_on_reactor(struct task *task) {
  struct nbd_source *s = container_of(task, struct nbd_source, close);
  give_up_dial(s);
  end_all_links(s, -ECANCELED);
  timeouts_fini(&s->attempts);
  source_free(s);
}

/* Posts the end of the source.  No call follows a close, so no other task of
 * the source is posted after this one. */
static void nbd_source_close(struct source *src) {
  struct nbd_source *s = nbd_of(src);
  reactor_post(s->reactor, &s->close);
}

/* ---- Opening ------------------------------------------------------------- */

static void begin_opening(struct task *task) {
  struct nbd_source *s = container_of(task, struct nbd_source, begin);
  struct source_fault fault = {"a thread for the connection cannot be made"};
  timeouts_init(&s->attempts, reactor_base(s->reactor), on_timer, s);
  int r = begin_dial(s);
  if (r < 0)
    opener_tell(&s->opener, r, &fault);
}

static const struct source_ops nbd_ops;

/* Takes over `target`, also on failure. */
static int open_target(struct reactor *reactor, struct nbd_target *target,
                       const struct timespec *deadline, struct source **out,
                       struct source_fault *fault) {
  struct opener o;
  struct nbd_source *s = calloc(1, sizeof *s);
  if (!s) {
    nbd_target_free(target);
    return -ENOMEM;
  }
  s->base.ops = &nbd_ops;
  s->target = target;
  s->reactor = reactor;
  opener_init(&o, &s->opener);
  s->dial_deadline =
      (int64_t)deadline->tv_sec * 1000 + deadline->tv_nsec / 1000000;
  s->max_links = 1;
  s->begin.run = begin_opening;
  s->close.run = close_on_reactor;
  atomic_init(&s->is_stale, false);
  pthread_mutex_init(&s->zeros_lock, NULL);
  TAILQ_INIT(&s->waiting);
  reactor_run(reactor, &s->begin);
  int r = opener_await(&o, reactor, deadline,
                       "the server was not found, or did not answer, in time",
                       fault);
  if (r < 0)
    nbd_source_close(&s->base);
  else
    *out = &s->base;
  return r;
}

static int nbd_reopen(struct source *src, struct source **out) {
  struct nbd_source *s = nbd_of(src);
  struct source_fault fault;
  *out = NULL;
  if (!atomic_load_explicit(&s->is_stale, memory_order_relaxed))
    return 0;
  struct nbd_target *target = nbd_target_copy(s->target);
  if (!target)
    return -ENOMEM;
  struct timespec deadline = clock_after_ms(target->timeout_ms);
  return open_target(s->reactor, target, &deadline, out, &fault);
}

static const struct source_ops nbd_ops = {
    .kind = "nbd",
    .start = nbd_start,
    .knows_zeros = nbd_knows_zeros,
    .reopen = nbd_reopen,
    .forget = nbd_forget,
    .close = nbd_source_close,
};

static int nbd_check(const struct source_uri *uri, struct source_fault *fault) {
  struct nbd_target *target;
  int r = nbd_target_new(uri, &target, fault);
  if (r == 0)
    nbd_target_free(target);
  return r;
}

static int nbd_open(struct reactor *r, const struct source_uri *uri,
                    const struct timespec *deadline, struct source **out,
                    struct source_fault *fault) {
  struct nbd_target *target;
  int failed = nbd_target_new(uri, &target, fault);
  return failed < 0 ? failed : open_target(r, target, deadline, out, fault);
}

const struct source_kind nbd_source_kind = {
    NBD_KIND,
    .check = nbd_check,
    .open = nbd_open,
};
