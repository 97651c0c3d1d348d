#include "daemon/serve/notices.h"

#include "base/clock.h"
#include "base/container_of.h"
#include "daemon/log.h"
#include "daemon/serve/reply.h"
#include "daemon/serve/session.h"
#include "daemon/serve/subscription.h"

/* ---- Of one session ------------------------------------------------------ */

void notices_announce(struct subscription *sub) {
  const struct image_reader *l = &sub->image->reader;
  if (subscription_knows(sub, l->mirror->epoch))
    return;
  sub->epoch = l->mirror->epoch;
  reply_changed(&sub->session->conn, sub->number, l->served, l->mirror);
}

/* Whether the subscriber gets notices.  An attached client does not: it sees
 * invalidations in the mirror. */
static bool may_hear(struct subscription *sub) {
  return !sub->attached && !sub->ended && subscription_is_allowed(sub);
}

static void tell_stale(struct session *s, struct subscription *sub) {
  uint64_t serial = sub->stale;
  if (!serial)
    return;
  sub->stale = 0;
  const struct reply_invalidation what = {.from = sub->stale_from,
                                          .to = sub->stale_to,
                                          .epoch = sub->stale_of.epoch,
                                          .n_of_epoch = sub->stale_of.n};
  reply_invalidated(&s->conn, sub->number, &what);
  /* After the notice was put into the output: to make room for it may have sent
   * everything before it. */
  if (!s->unsent_notice || serial < s->unsent_notice)
    s->unsent_notice = serial;
}

void notices_push(struct session *s) {
  struct connection *c = &s->conn;
  struct subscription *sub;
  LIST_FOREACH(sub, &s->subscriptions, of_session) {
    struct image_reader *l = &sub->image->reader;
    if (!connection_may_send(c))
      return;
    if (!may_hear(sub))
      continue;
    tell_stale(s, sub);
    if (!image_reader_is_current(l)) {
      connection_flush(c); /* the output holds pins of the reader */
      if (!connection_may_send(c) || image_reader_open(l) < 0)
        continue;
    }
    notices_announce(sub);
  }
}

/* Tells the peer, now or when its connection is no longer blocked. */
static void tell_invalidated(struct subscription *sub,
                             const struct notice *notice) {
  uint64_t from = notice->from, to = notice->to;
  if (!may_hear(sub))
    return;
  sub->stale_from =
      sub->stale && sub->stale_from < from ? sub->stale_from : from;
  sub->stale_to = sub->stale && sub->stale_to > to ? sub->stale_to : to;
  sub->stale_of.epoch = notice->epoch;
  sub->stale_of.n = notice->n_of_epoch;
  if (!sub->stale)
    sub->stale = notice->serial;
  if (connection_may_send(&sub->session->conn))
    notices_push(sub->session);
}

/* The oldest notice that is not wholly in the socket; 0: none. */
static uint64_t oldest_owed(const struct session *s) {
  uint64_t oldest = s->unsent_notice;
  if (s->conn.lingering)
    return 0;
  const struct subscription *sub;
  LIST_FOREACH(sub, &s->subscriptions, of_session)
    if (sub->stale && (!oldest || sub->stale < oldest))
      oldest = sub->stale;
  return oldest;
}

/* Sets the oldest undelivered notice of a session, and lists the session if
 * there is one (N4). */
static void set_owed(struct session *s, uint64_t oldest) {
  struct notices *notices = &s->service->notices;
  if (oldest == s->oldest_owed)
    return;
  if (s->oldest_owed)
    notices_recheck(notices);
  else
    LIST_INSERT_HEAD(&notices->owing, s, owing);
  if (!oldest)
    LIST_REMOVE(s, owing);
  s->oldest_owed = oldest;
}

void notices_turn_ended(struct session *s) { set_owed(s, oldest_owed(s)); }

void notices_session_closed(struct session *s) { set_owed(s, 0); }

/* ---- Of all sessions ----------------------------------------------------- */

static void set_timer(struct notices *notices) {
  if (notices->head)
    loop_set_timer(&notices->timer, notices->head->deadline_ms);
  else
    event_del(&notices->timer);
}

void notices_check(struct notices *notices) {
  uint64_t oldest = UINT64_MAX;
  if (!notices->head)
    return;
  const struct session *s;
  LIST_FOREACH(s, &notices->owing, owing)
    if (s->oldest_owed < oldest)
      oldest = s->oldest_owed;
  while (notices->head && notices->head->serial < oldest) {
    struct notice *notice = notices->head;
    notices->head = notice->next;
    if (!notices->head)
      notices->tail = &notices->head;
    notice->ended(notice);
  }
  set_timer(notices);
}

void notices_recheck(struct notices *notices) {
  if (notices->head)
    loop_post(notices->net->loop, &notices->recheck);
}

static void recheck_run(struct task *task) {
  notices_check(container_of(task, struct notices, recheck));
}

/* Closes the connections that did not take a notice in time.  The end of a
 * connection serves as a notice, because a client drops its cache then.  So no
 * invalidation waits for ever. */
static void on_timer(evutil_socket_t fd, short what, void *arg) {
  struct notices *notices = arg;
  uint64_t now = clock_now_ms(), expired = 0;
  (void)fd;
  (void)what;
  for (const struct notice *n = notices->head; n && n->deadline_ms <= now;
       n = n->next)
    expired = n->serial;
  for (struct session *s = LIST_FIRST(&notices->owing), *next; s; s = next) {
    next = LIST_NEXT(s, owing);
    if (s->oldest_owed > expired)
      continue;
    log_peer_event(LEVEL_WARN, "conn-closed",
                   LOG_NUMBER("conn", s->conn.serial),
                   LOG_TEXT("reason", "it does not take its notices"));
    connection_drop(&s->conn);
  }
  notices_check(notices);
}

static void tell_all(const struct notice *notice, struct service_image *si) {
  struct subscription *sub;
  LIST_FOREACH(sub, &si->subscribers, of_image) {
    tell_invalidated(sub, notice);
    /* The thread has one output, so it must be empty for the next session. */
    connection_flush(&sub->session->conn);
  }
  subscription_settle_all(&si->subscribers);
}

static void notice_run(struct task *task) {
  struct notice *notice = (struct notice *)task; /* its first member */
  struct notices *notices = notice->notices;
  notice->serial = ++notices->n;
  notice->deadline_ms =
      clock_now_ms() + (uint64_t)notices->net->limits->notice_timeout_ms;
  struct service_image *si = service_images_find(
      &container_of(notices, struct service, notices)->images, notice->image);
  if (si)
    tell_all(notice, si);
  notice->next = NULL;
  *notices->tail = notice;
  notices->tail = &notice->next;
  notices_check(notices);
}

void notices_post(struct notice *notice) {
  notice->task.run = notice_run;
  loop_post(notice->notices->net->loop, &notice->task);
}

void notices_fini(struct notices *notices) {
  struct notice *next;
  for (struct notice *n = notices->head; n; n = next) {
    next = n->next;
    n->ended(n);
  }
}

void notices_init(struct notices *notices, struct net_thread *net) {
  *notices = (struct notices){.net = net, .recheck = {.run = recheck_run}};
  notices->tail = &notices->head;
  LIST_INIT(&notices->owing);
  event_assign(&notices->timer, net->loop->base, -1, 0, on_timer, notices);
}
