#include "daemon/request_fetch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "daemon/conn.h"

/* On whatever thread ended the last fill. */
static void fetch_done(struct fetch *fetch) {
  struct request_fetch *f = (struct request_fetch *)fetch; /* first member */
  worker_post(f->request->worker, &f->request->mail);
}

/* Whether `len` more bytes may be fetched.  (F2) */
static bool request_has_allowance(const struct request *r, uint64_t len) {
  const struct limits *limits = &r->worker->host->limits;
  uint64_t all = limits->max_worker_fetch;
  uint64_t of_image = request_lens(r)->fetching;
  uint64_t of_conn = r->conn->fetching;
  return (!of_conn || of_conn + len <= limits->max_conn_fetch) &&
         (!of_image || of_image + len <= all / 2) &&
         (!r->worker->fetching || r->worker->fetching + len <= all);
}

static void request_charge(struct request_fetch *f) {
  f->lens->fetching += f->len;
  f->request->worker->fetching += f->len;
  f->request->conn->fetching += f->len;
}

void request_fetch_drop(struct request *r) {
  struct request_fetch *f = r->fetch;
  if (!f)
    return;
  assert(r->state != REQUEST_WAITING);
  r->fetch = NULL;
  f->lens->fetching -= f->len;
  r->worker->fetching -= f->len;
  if (r->conn)
    r->conn->fetching -= f->len;
  fetch_fini(&f->fetch);
  free(f);
}

/* Puts a connection that has starved requests at the end of the worker's list,
 * unless it is in there. */
static void starved_push(struct conn *c) {
  struct worker *w = c->worker;
  if (c->is_starved)
    return;
  c->is_starved = true;
  c->next_starved = NULL;
  *w->starved_tail = c;
  w->starved_tail = &c->next_starved;
  w->n_starved++;
}

static struct conn *starved_unlink(struct worker *w, struct conn **link) {
  struct conn *c = *link;
  *link = c->next_starved;
  if (!*link)
    w->starved_tail = link;
  c->is_starved = false;
  w->n_starved--;
  return c;
}

static struct conn *starved_pop(struct worker *w) {
  return starved_unlink(w, &w->starved_head);
}

void request_fetch_unstarve(struct conn *c) {
  struct conn **link = &c->worker->starved_head;
  while (*link != c)
    link = &(*link)->next_starved;
  starved_unlink(c->worker, link);
}

static void request_starve(struct request *r) {
  r->state = REQUEST_STARVED;
  request_queue_push(&r->conn->starved, r);
  starved_push(r->conn);
}

void request_fetch_restart(struct request *r) {
  request_fetch_drop(r);
  if (++r->n_restarts > r->worker->host->limits.max_restarts)
    r->status = -ESTALE;
}

/* Whether the fetch failed for a later page than its first.  Then what is good
 * before that page is sent, and a fetch that begins with it tells its error. */
static bool has_good_pages_first(const struct request *r) {
  uint64_t bad = fetch_first_bad(&r->fetch->fetch);
  return bad > r->missing && bad < r->missing + r->n_missing;
}

void request_fetch_ended(struct request *r) {
  const struct fetch *f = &r->fetch->fetch;
  r->state = REQUEST_ACTIVE;
  r->worker->n_waiting--;
  request_count(r, STAT_MISSES, f->n_missed);
  request_count(r, STAT_JOINS, f->n_joined);
  if (f->status == -ESTALE)
    request_fetch_restart(r);
  else if (!has_good_pages_first(r))
    r->status = f->status;
}

bool request_fetch_start(struct request *r) {
  struct lens *l = request_lens(r);
  uint64_t len = (uint64_t)r->n_missing << l->mirror->page_shift;
  assert(!r->fetch);
  if (!request_has_allowance(r, len)) {
    request_starve(r);
    return true;
  }
  struct request_fetch *f = calloc(1, sizeof *f);
  if (!f) {
    r->status = -ENOMEM;
    return false;
  }
  f->fetch.done = fetch_done;
  f->request = r;
  f->lens = l;
  f->mirror = l->mirror;
  f->len = len;
  r->fetch = f;
  request_charge(f);
  r->state = REQUEST_WAITING;
  r->worker->n_waiting++;
  if (fetch_start(&f->fetch, l->mirror, r->missing, r->n_missing) == FETCH_WAIT)
    return true;
  /* The pool was faster than us, or it failed at once. */
  request_fetch_ended(r);
  return false;
}

/* Connections with starved requests are served one request each, in turn,
 * until each of those that are left was refused: then somebody's fetch is in
 * flight, and its end brings us back here. */
void request_fetch_admit(struct worker *w) {
  unsigned n_refused = 0;
  while (n_refused < w->n_starved) {
    struct conn *c = starved_pop(w);
    request_go_on(request_queue_pop(&c->starved));
    n_refused = c->is_starved ? n_refused + 1 : 0;
    if (c->starved.head)
      starved_push(c);
    conn_settle(c);
  }
}
