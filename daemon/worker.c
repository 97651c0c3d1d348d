#include "daemon/worker.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon/engine/busy_poll.h"
#include "daemon/log.h"
#include "daemon/net/connection.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/fetch_quota.h"
#include "daemon/serve/invalidation.h"
#include "daemon/serve/session.h"

enum {
  /* Letters opened before connections get a turn. */
  MAIL_BATCH = 256,
  /* Several requests of the largest kind, or thousands of small ones. */
  RX_LEN = 256 << 10,
};

/* ---- The mailbox --------------------------------------------------------- */

static void worker_wake(struct worker *w) {
  uint64_t one = 1;
  ssize_t n = write(w->wake_fd, &one, sizeof one);
  assert(n == sizeof one); /* the counter cannot overflow: it is read first */
  (void)n;
}

/* The mail may be run, and freed, before this returns: it is not touched after
 * the lock is given back. */
void worker_post(struct worker *w, struct mail *mail) {
  bool wake = false;
  pthread_mutex_lock(&w->mail_lock);
  if (!mail->posted) {
    wake = w->mail_head == NULL;
    mail->posted = true;
    mail->next = NULL;
    *w->mail_tail = mail;
    w->mail_tail = &mail->next;
  }
  pthread_mutex_unlock(&w->mail_lock);
  if (wake)
    worker_wake(w);
}

static struct mail *worker_take_mail(struct worker *w) {
  pthread_mutex_lock(&w->mail_lock);
  struct mail *mail = w->mail_head;
  if (mail) {
    w->mail_head = mail->next;
    if (!w->mail_head)
      w->mail_tail = &w->mail_head;
    mail->posted = false;
  }
  pthread_mutex_unlock(&w->mail_lock);
  return mail;
}

static bool worker_has_mail(struct worker *w) {
  pthread_mutex_lock(&w->mail_lock);
  bool has = w->mail_head != NULL;
  pthread_mutex_unlock(&w->mail_lock);
  return has;
}

static void worker_on_wake(evutil_socket_t fd, short what, void *arg) {
  struct worker *w = arg;
  struct mail *mail;
  uint64_t count;
  (void)what;
  w->n_events++;
  ssize_t n = read(fd, &count, sizeof count);
  (void)n; /* nothing to read: woken for nothing, which does no harm */
  for (int i = 0; i < MAIL_BATCH && (mail = worker_take_mail(w)); i++)
    mail->run(w, mail);
  fetch_quota_admit(w);
  if (worker_has_mail(w))
    worker_wake(w);
  if (w->quitting && w->n_waiting == 0)
    event_base_loopbreak(w->base);
}

/* ---- Mail ---------------------------------------------------------------- */

static void changed_run(struct worker *w, struct mail *mail) {
  unsigned image = ((struct image_mail *)mail)->image; /* its first member */
  struct image_reader *l = &w->readers[image];
  if (!image_reader_is_current(l))
    image_reader_close(l); /* lest it keeps the retired mirror */
  for (struct connection *c = w->conns, *next; c; c = next) {
    next = c->next;
    if (connection_may_send(c))
      session_push_notices(c);
    connection_settle(c);
  }
}

void worker_post_changed(struct worker *w, unsigned image) {
  worker_post(w, &w->changed[image].mail);
}

void worker_check_drained(struct worker *w) {
  if (!w->stopping || w->conns || w->told_drained)
    return;
  w->told_drained = true;
  fill_dispatch_hand_over(&w->begun); /* while it takes some */
  w->drained(w->drained_arg);
}

static void stop_run(struct worker *w, struct mail *mail) {
  (void)mail;
  w->stopping = true;
  for (struct connection *c = w->conns, *next; c; c = next) {
    next = c->next;
    connection_settle(c);
  }
  worker_check_drained(w);
}

static void close_run(struct worker *w, struct mail *mail) {
  (void)mail;
  while (w->conns)
    connection_drop(w->conns);
  notices_check(w); /* nobody is left who is owed one */
}

static void quit_run(struct worker *w, struct mail *mail) {
  (void)mail;
  close_run(w, NULL); /* one that arrived since */
  w->quitting = true;
}

void worker_stop(struct worker *w, void (*drained)(void *arg), void *arg) {
  w->drained = drained; /* the mail's lock hands them over */
  w->drained_arg = arg;
  worker_post(w, &w->stop_mail);
}

void worker_close_all(struct worker *w) { worker_post(w, &w->close_mail); }

void worker_join(struct worker *w) {
  worker_post(w, &w->quit_mail);
  pthread_join(w->thread, NULL);
  w->started = false;
}

/* ---- Life ---------------------------------------------------------------- */

/* Looks for events, and for what was begun, without sleeping.  True: there was
 * something. */
static bool worker_look_around(struct worker *w) {
  uint64_t seen = w->n_events;
  uint64_t end = host_now_ns() + SPIN_US * UINT64_C(1000);
  do {
    event_base_loop(w->base, EVLOOP_NONBLOCK);
    bool came = fill_dispatch_try(&w->begun);
    if (came || w->n_events != seen || event_base_got_break(w->base))
      return true;
    sched_yield(); /* who would send one may have no other processor */
  } while (!fill_dispatch_is_empty(&w->begun) || host_now_ns() < end);
  return false;
}

static void worker_loop(struct worker *w) {
  struct busy_poll spin = {0};
  while (!event_base_got_break(w->base)) {
    bool due = busy_poll_is_due(&spin);
    bool look = due || !fill_dispatch_is_empty(&w->begun);
    bool found = look && worker_look_around(w);
    if (due)
      busy_poll_ended(&spin, found);
    if (!found)
      event_base_loop(w->base, EVLOOP_ONCE);
  }
}

static void *worker_thread(void *arg) {
  struct worker *w = arg;
  worker_loop(w);
  for (unsigned i = 0; i < w->host->n_images; i++)
    image_reader_close(&w->readers[i]);
  return NULL;
}

static struct event_base *make_base(void) {
  struct event_config *config = event_config_new();
  if (!config)
    return NULL;
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
  struct event_base *base = event_base_new_with_config(config);
  event_config_free(config);
  return base;
}

/* What it needs for each image.  False: out of memory. */
static bool worker_init_images(struct worker *w) {
  struct host *host = w->host;
  w->readers = calloc(host->n_images, sizeof *w->readers);
  w->changed = calloc(host->n_images, sizeof *w->changed);
  w->counters = calloc(host->n_images, sizeof *w->counters);
  if (!w->readers || !w->changed || !w->counters)
    return false;
  for (unsigned i = 0; i < host->n_images; i++) {
    w->readers[i].served = &host->images[i];
    w->changed[i].mail.run = changed_run;
    w->changed[i].image = i;
  }
  return true;
}

/* A turn leaves behind a batch of answers, a piece more, and a buffer of input
 * at most. */
static void worker_limit_held(struct worker *w, uint64_t max_held) {
  const struct limits *limits = &w->host->limits;
  uint64_t piece = 1ull << image_page_shift(w->host->images[0].image);
  if (piece < limits->piece_len)
    piece = limits->piece_len;
  uint64_t turn = limits->batch_len + piece + RX_LEN;
  w->max_held = max_held;
  w->crowded_from = turn < max_held / 2 ? max_held / 2 - turn : 0;
}

static bool worker_init(struct worker *w) {
  pthread_mutex_init(&w->mail_lock, NULL);
  w->mail_tail = &w->mail_head;
  fill_dispatch_init(&w->begun);
  w->stop_mail.run = stop_run;
  w->close_mail.run = close_run;
  w->quit_mail.run = quit_run;
  w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  w->base = make_base();
  if (w->wake_fd < 0 || !w->base)
    return false;
  event_assign(&w->wake, w->base, w->wake_fd, EV_READ | EV_PERSIST,
               worker_on_wake, w);
  if (event_add(&w->wake, NULL) < 0)
    return false;
  notices_init(w);
  w->rx_cap = RX_LEN;
  w->rx = malloc(w->rx_cap);
  w->arena = frame_arena_new(FRAME_ARENA_LEN);
  w->ranges = calloc(w->host->limits.max_ranges, sizeof *w->ranges);
  return w->rx && w->arena && w->ranges && send_batch_init(&w->out) == 0 &&
         worker_init_images(w);
}

struct worker *worker_new(struct host *host, unsigned index,
                          uint64_t max_held) {
  struct worker *w = calloc(1, sizeof *w);
  if (!w)
    return NULL;
  w->host = host;
  w->index = index;
  worker_limit_held(w, max_held);
  if (!worker_init(w)) {
    worker_free(w);
    return NULL;
  }
  return w;
}

int worker_start(struct worker *w) {
  int r = pthread_create(&w->thread, NULL, worker_thread, w);
  if (r)
    return -r;
  w->started = true;
  return 0;
}

void worker_free(struct worker *w) {
  if (!w)
    return;
  assert(!w->started && !w->conns && fill_dispatch_is_empty(&w->begun));
  attachment_free_all(w);
  if (w->base) {
    if (event_initialized(&w->wake))
      event_del(&w->wake);
    event_base_free(w->base);
  }
  if (w->wake_fd >= 0)
    close(w->wake_fd);
  send_batch_fini(&w->out);
  frame_arena_free(w->arena);
  free(w->rx);
  free(w->ranges);
  free(w->readers);
  free(w->changed);
  free(w->counters);
  pthread_mutex_destroy(&w->mail_lock);
  free(w);
}
