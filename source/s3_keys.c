#include "source/s3_keys.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/deadline.h"
#include "base/latch.h"
#include "source/offload.h"
#include "source/reactor.h"
#include "source/s3_credentials.h"

enum {
  JITTER_S = 60,
};

/* A look-up in progress, on a thread of its own. */
struct look_up {
  struct s3_credentials_place place; /* ours */
  struct s3_keys *keys;              /* the reactor's thread alone */
  int64_t begun_s, deadline;
  struct offload work;

  /* The thread's, until it has ended. */
  struct s3_credentials found;
  int status;
  const char *why;
};

struct s3_keys {
  struct reactor *reactor;
  struct s3_credentials_place place; /* ours */
  struct task end;

  /* All below: the reactor's thread alone. */
  struct s3_credentials credentials;
  uint64_t mark;       /* of them */
  int64_t due_s;       /* K2, K3 */
  int64_t fruitless_s; /* when the last look-up that found nothing began */
  int status;          /* of the last look-up */
  const char *why;
  struct look_up *look_up; /* NULL: none is under way */
  LIST_HEAD(, http_pause) waiting;
};

/* ---- The place ----------------------------------------------------------- */

static void place_fini(struct s3_credentials_place *place) {
  free((char *)place->profile);
  free((char *)place->file);
  free((char *)place->region);
  free((char *)place->ca);
}

static bool copy(const char *from, const char **to) {
  *to = from ? strdup(from) : NULL;
  return !from || *to;
}

/* False: no memory.  The caller calls place_fini() in either case. */
static bool place_copy(const struct s3_credentials_place *from,
                       struct s3_credentials_place *to) {
  *to = (struct s3_credentials_place){0};
  return copy(from->profile, &to->profile) && copy(from->file, &to->file) &&
         copy(from->region, &to->region) && copy(from->ca, &to->ca);
}

/* ---- When the next look-up is due ---------------------------------------- */

static int64_t jitter_s(void) {
  uint32_t dice = 0;
  return getrandom(&dice, sizeof dice, GRND_NONBLOCK) < 0 ? 0 : dice % JITTER_S;
}

/* K2, K3 */
static void plan(struct s3_keys *k, int64_t now_s, bool was_fruitless) {
  int64_t expires_s = k->credentials.expires_s;
  int64_t ahead_s = S3_KEYS_AHEAD_S + jitter_s();
  if (!expires_s) {
    k->due_s = INT64_MAX;
    return;
  }
  k->due_s = expires_s - ahead_s;
  if (!was_fruitless && k->due_s - now_s < ahead_s)
    k->due_s = now_s + (expires_s - now_s) / 2;
  int64_t least_s = was_fruitless ? S3_KEYS_PAUSE_S : 1;
  if (k->due_s < now_s + least_s)
    k->due_s = now_s + S3_KEYS_PAUSE_S;
}

/* ---- Gets that wait ------------------------------------------------------ */

static void on_late(evutil_socket_t fd, short what, void *arg) {
  struct http_pause *pause = arg;
  (void)fd;
  (void)what;
  LIST_REMOVE(pause, link);
  pause->over(pause, false);
}

static void await(struct s3_keys *k, struct http_pause *pause, int ms) {
  LIST_INSERT_HEAD(&k->waiting, pause, link);
  evtimer_assign(&pause->timer, reactor_base(k->reactor), on_late, pause);
  if (reactor_set_timer(&pause->timer, (uint64_t)ms) < 0)
    event_active(&pause->timer, EV_TIMEOUT, 0); /* no memory */
}

static void release(struct s3_keys *k, bool again) {
  struct http_pause *pause;
  while ((pause = LIST_FIRST(&k->waiting))) {
    LIST_REMOVE(pause, link);
    event_del(&pause->timer);
    pause->over(pause, again);
  }
}

/* ---- The look-up --------------------------------------------------------- */

static struct look_up *look_up_of(struct offload *o) {
  return container_of(o, struct look_up, work);
}

static void look_up_free(struct offload *o) {
  struct look_up *l = look_up_of(o);
  s3_credentials_fini(&l->found);
  place_fini(&l->place);
  free(l);
}

static void look_up_run(struct offload *o) {
  struct look_up *l = look_up_of(o);
  l->status = s3_credentials_load(&l->place, l->deadline, &l->found, &l->why);
}

/* Takes them, if they are others. */
static bool take(struct s3_keys *k, struct look_up *l) {
  if (l->status < 0)
    return false;
  bool is_new = !s3_credentials_same(&l->found, &k->credentials);
  struct s3_credentials old = k->credentials;
  k->credentials = l->found; /* the same keys may expire at another time */
  l->found = old;
  k->mark += is_new;
  return is_new;
}

static void look_up_ended(struct offload *o) {
  struct look_up *l = look_up_of(o);
  struct s3_keys *k = l->keys;
  bool is_new = take(k, l);
  k->look_up = NULL;
  k->status = l->status;
  k->why = l->why;
  if (!is_new)
    k->fruitless_s = l->begun_s;
  plan(k, l->begun_s, !is_new);
  release(k, is_new);
}

/* False: there is no memory, or no thread. */
static bool begin(struct s3_keys *k, int64_t now_s) {
  struct look_up *l = calloc(1, sizeof *l);
  assert(!k->look_up);
  if (!l)
    return false;
  l->keys = k;
  l->begun_s = now_s;
  l->deadline = deadline_after(S3_KEYS_PATIENCE_MS);
  l->work = (struct offload){.name = "s3-keys",
                             .run = look_up_run,
                             .ended = look_up_ended,
                             .free_it = look_up_free};
  if (!place_copy(&k->place, &l->place) ||
      offload_begin(&l->work, k->reactor) < 0) {
    look_up_free(&l->work);
    return false;
  }
  k->look_up = l;
  return true;
}

/* ---- Use ----------------------------------------------------------------- */

const struct s3_credentials *s3_keys_use(struct s3_keys *k, int64_t now_s,
                                         uint64_t *mark) {
  if (now_s >= k->due_s && !k->look_up && !begin(k, now_s))
    k->due_s = now_s + S3_KEYS_PAUSE_S;
  *mark = k->mark;
  return &k->credentials;
}

/* K4; 0: there is no time. */
static int patience_ms(uint64_t deadline_ms) {
  uint64_t now = clock_now_ms();
  if (deadline_ms && deadline_ms <= now)
    return 0;
  return !deadline_ms || deadline_ms - now > S3_KEYS_PATIENCE_MS
             ? S3_KEYS_PATIENCE_MS
             : (int)(deadline_ms - now);
}

enum http_advice s3_keys_refused(struct s3_keys *k, int64_t now_s,
                                 uint64_t mark, uint64_t deadline_ms,
                                 struct http_pause *pause) {
  int ms = patience_ms(deadline_ms);
  if (mark != k->mark)
    return HTTP_ASK_AGAIN; /* the keys have changed since the request */
  if (k->look_up ? deadline_has_passed(k->look_up->deadline)
                 : now_s == k->fruitless_s || !begin(k, now_s))
    return HTTP_GIVE_UP;
  if (ms == 0)
    return HTTP_GIVE_UP;
  await(k, pause, ms);
  return HTTP_PAUSE;
}

/* ---- Opening ------------------------------------------------------------- */

/* A thread waits for the first look-up. */
struct opening {
  struct task begin;
  struct http_pause pause;
  struct s3_keys *keys;
  int64_t now_s;
  int left_ms;
  int status;
  const char *why;
  struct latch ended;
};

static void opening_over(struct http_pause *pause, bool is_there) {
  struct opening *o = container_of(pause, struct opening, pause);
  o->status = is_there ? 0 : o->keys->status;
  o->why = o->keys->why;
  if (!is_there && !o->status) {
    o->status = -ETIMEDOUT;
    o->why = "the credentials do not come in time";
  }
  latch_open(&o->ended);
}

static void opening_begin(struct task *task) {
  struct opening *o = container_of(task, struct opening, begin);
  struct s3_keys *k = o->keys;
  if (begin(k, o->now_s)) {
    await(k, &o->pause, o->left_ms);
    return;
  }
  k->status = -ENOMEM;
  k->why = "there is no memory, or no thread, to look credentials up";
  opening_over(&o->pause, false);
}

static void keys_free(struct s3_keys *k) {
  s3_credentials_fini(&k->credentials);
  place_fini(&k->place);
  free(k);
}

static void keys_end(struct task *task) {
  struct s3_keys *k = container_of(task, struct s3_keys, end);
  assert(LIST_EMPTY(&k->waiting));
  if (k->look_up)
    offload_give_up(&k->look_up->work);
  keys_free(k);
}

void s3_keys_free(struct s3_keys *k) {
  if (k)
    reactor_post(k->reactor, &k->end);
}

/* From now until `deadline`, and S3_KEYS_PATIENCE_MS at most. */
static int left_ms(const struct timespec *deadline) {
  int64_t then = (int64_t)deadline->tv_sec * 1000 + deadline->tv_nsec / 1000000;
  int left = deadline_left_ms(then);
  return left < S3_KEYS_PATIENCE_MS ? left : S3_KEYS_PATIENCE_MS;
}

int s3_keys_open(struct reactor *r, const struct s3_credentials_place *place,
                 int64_t now_s, const struct timespec *deadline,
                 struct s3_keys **out, const char **why) {
  struct s3_keys *k = calloc(1, sizeof *k);
  *why = strerror(ENOMEM);
  if (!k)
    return -ENOMEM;
  k->reactor = r;
  k->end.run = keys_end;
  k->fruitless_s = INT64_MIN;
  LIST_INIT(&k->waiting);
  if (!place_copy(place, &k->place)) {
    keys_free(k);
    return -ENOMEM;
  }
  struct opening o = {.begin = {.run = opening_begin},
                      .pause = {.over = opening_over},
                      .keys = k,
                      .now_s = now_s,
                      .left_ms = left_ms(deadline),
                      .ended = LATCH_INITIALIZER};
  reactor_post(r, &o.begin);
  latch_wait(&o.ended);
  *why = o.why;
  if (o.status < 0)
    s3_keys_free(k);
  else
    *out = k;
  return o.status;
}
