/* The server.
 *
 * The thread that calls server_serve() runs `base`.  It accepts connections
 * (acceptor.h), looks at images, and asks for signs of life.  The events belong
 * to that thread alone.
 *
 * Other threads and signal handlers reach it by wake(), which only writes to an
 * eventfd.  They store their request before the write, and on_wake() reads the
 * eventfd before it looks at the requests.  So a request that comes while
 * on_wake() looks wakes the thread once more.
 *
 * A caller waits only for the result of a change of the listeners, in
 * server_set_listeners().  So it must be another thread, and there is one
 * change at a time.  When the server ends it takes no more changes: `is_over`
 * is set under the lock under which a change is stored, so no caller waits for
 * a thread that has left its loop. */
#include "daemon/server.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/lock.h"
#include "cache/mirror.h"
#include "daemon/acceptor.h"
#include "daemon/engine/images.h"
#include "daemon/engine/warm.h"
#include "daemon/liveness.h"
#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/rule.h"
#include "daemon/serve/context.h"
#include "daemon/serve/invalidation.h"
#include "daemon/serve/metrics_text.h"
#include "daemon/worker.h"
#include "source/retrying.h"

enum {
  /* What a worker's connections may hold in any case: some half messages. */
  MIN_WORKER_HELD = 512 << 10,
};

/* What another thread wants of the main loop, and waits for. */
struct change {
  struct listener *const *listeners; /* all that there are to be */
  unsigned n_listeners;
  struct acceptor_endpoints removed; /* for that thread to close */
  int result;
};

/* How far it has come. */
enum server_state { SERVER_STARTING, SERVER_SERVING, SERVER_STOPPING };

struct server {
  struct server_context context;
  struct worker **workers; /* context.n_services */
  struct acceptor acceptor;
  struct event_base *base; /* the serving thread's, as are the events */
  struct event wake, refresh, pulse, drain_over;
  struct server_watchdog watchdog;
  struct liveness liveness;
  uint64_t question;      /* the watchdog's last one */
  atomic_int state;       /* an enum server_state; relaxed */
  int wake_fd;            /* an eventfd: there is something of what follows, a
                             change or a question */
  atomic_bool is_started; /* the pool is there */
  atomic_bool stopped;
  atomic_bool drain_asked;    /* release, acquire: for `drain_ms` */
  atomic_int drain_ms;        /* relaxed */
  atomic_int terminate_ms;    /* see server_set_drain_timeout(); relaxed */
  atomic_bool was_terminated; /* relaxed */
  struct server_drain_watch drain_watch;

  /* A leaf. */
  pthread_mutex_t change_lock;
  pthread_cond_t change_cond;
  struct change *change; /* guarded by change_lock; NULL: there is none */
  bool is_over;          /* likewise: nobody takes changes any more */

  /* A leaf. */
  pthread_mutex_t drain_lock;
  pthread_cond_t drain_cond;
  unsigned n_undrained; /* workers; guarded by drain_lock */
};

/* ---- Images -------------------------------------------------------------- */

static void on_refresh(evutil_socket_t fd, short what, void *arg) {
  struct server *s = arg;
  (void)fd;
  (void)what;
  looks_tick(&s->context.looks);
  keeper_retry(&s->context.images.keeper);
}

/* ---- Watching ------------------------------------------------------------ */

static void on_pulse(evutil_socket_t fd, short what, void *arg) {
  struct server *s = arg;
  const char *stuck;
  unsigned next = 0, n_stuck = 0;
  (void)fd;
  (void)what;
  /* All of them: a thread that hangs may keep others from their turn. */
  while ((stuck = liveness_silent(&s->liveness, s->question, &next))) {
    log_event(LEVEL_ERROR, "stuck", LOG_TEXT("thread", stuck));
    n_stuck++;
  }
  if (!n_stuck)
    s->watchdog.alive(s->watchdog.arg);
  s->question = liveness_ask(&s->liveness);
}

uint64_t server_ask_liveness(struct server *s) {
  return liveness_ask(&s->liveness);
}

const char *server_next_silent(struct server *s, uint64_t question,
                               unsigned *next) {
  return liveness_silent(&s->liveness, question, next);
}

struct metrics_text *server_metrics_text(struct server *s) {
  return metrics_text_new(&s->context);
}

/* Its source has answered when it was opened, which looks at the file. */
static void list_missing(struct server *s,
                         void (*fn)(void *arg, const char *reason), void *arg) {
  struct served_image *h;
  for (unsigned i = 0; (h = images_next(&s->context.images, &i));) {
    int missing = atomic_load_explicit(&h->missing, memory_order_relaxed);
    char reason[256];
    snprintf(reason, sizeof reason, "image %s was not opened so far: %s",
             h->name, missing_reason(missing));
    if (missing)
      fn(arg, reason);
    images_unref(h);
  }
}

void server_list_unready(struct server *s,
                         void (*fn)(void *arg, const char *reason), void *arg) {
  int state = atomic_load_explicit(&s->state, memory_order_relaxed);
  if (state == SERVER_STARTING)
    fn(arg, "the daemon accepts no connections yet");
  else if (state == SERVER_STOPPING)
    fn(arg, "the daemon is stopping");
  else if (drain_is_on(&s->context.drain))
    fn(arg, "the daemon is draining");
  list_missing(s, fn, arg);
}

/* ---- Changes ------------------------------------------------------------- */

static void end_change(struct server *s) {
  pthread_mutex_lock(&s->change_lock);
  s->change = NULL;
  pthread_cond_signal(&s->change_cond);
  pthread_mutex_unlock(&s->change_lock);
}

/* Begins the drain that was asked for. */
static void take_drain(struct server *s) {
  int timeout_ms = atomic_load_explicit(&s->drain_ms, memory_order_relaxed);
  drain_begin(&s->context.drain);
  unsigned n_clients = drain_n_clients(&s->context.drain);
  log_event(LEVEL_INFO, "draining", LOG_NUMBER("clients", n_clients));
  event_del(&s->drain_over);
  if (timeout_ms >= 0)
    loop_set_timer(&s->drain_over, clock_now_ms() + (uint64_t)timeout_ms);
  if (s->drain_watch.begun)
    s->drain_watch.begun(s->drain_watch.arg, timeout_ms, n_clients);
}

static void on_wake(evutil_socket_t fd, short what, void *arg) {
  struct server *s = arg;
  uint64_t n;
  (void)what;
  ssize_t len = read(fd, &n, sizeof n);
  (void)len; /* the read only resets the eventfd */
  liveness_main_turned(&s->liveness);
  pthread_mutex_lock(&s->change_lock);
  struct change *change = s->change;
  pthread_mutex_unlock(&s->change_lock);
  if (change) {
    change->result = acceptor_set(&s->acceptor, change->listeners,
                                  change->n_listeners, &change->removed);
    end_change(s);
  }
  if (atomic_exchange_explicit(&s->drain_asked, false, memory_order_acquire))
    take_drain(s);
  if (atomic_load_explicit(&s->stopped, memory_order_relaxed))
    event_base_loopbreak(s->base);
}

/* May be called in a signal handler. */
static void wake(struct server *s) {
  eventfd_write(s->wake_fd, 1); /* if the counter is full, it wakes already */
}

int server_set_listeners(struct server *s, struct listener *const *listeners,
                         unsigned n) {
  struct change change = {
      .listeners = listeners, .n_listeners = n, .result = -ECANCELED};
  TAILQ_INIT(&change.removed);
  pthread_mutex_lock(&s->change_lock);
  assert(!s->change);
  if (!s->is_over) {
    s->change = &change;
    wake(s);
  }
  while (s->change)
    pthread_cond_wait(&s->change_cond, &s->change_lock);
  pthread_mutex_unlock(&s->change_lock);
  acceptor_close(&change.removed);
  return change.result;
}

/* ---- The end ------------------------------------------------------------- */

void server_stop(struct server *s) {
  int saved = errno; /* we may be in a signal handler */
  atomic_store_explicit(&s->stopped, true, memory_order_relaxed);
  wake(s);
  errno = saved;
}

void server_begin_drain(struct server *s, int timeout_ms) {
  int saved = errno; /* likewise */
  atomic_store_explicit(&s->drain_ms, timeout_ms, memory_order_relaxed);
  atomic_store_explicit(&s->drain_asked, true, memory_order_release);
  wake(s);
  errno = saved;
}

static void on_drain_asked(void *arg, int timeout_ms) {
  server_begin_drain(arg, timeout_ms);
}

static void on_drain_done(void *arg) { server_stop(arg); }

static void on_drain_over(evutil_socket_t fd, short what, void *arg) {
  struct server *s = arg;
  (void)fd;
  (void)what;
  log_event(LEVEL_WARN, "drain-over",
            LOG_NUMBER("clients", drain_n_clients(&s->context.drain)));
  server_stop(s);
}

void server_set_drain_timeout(struct server *s, int timeout_ms) {
  atomic_store_explicit(&s->terminate_ms, timeout_ms, memory_order_relaxed);
}

void server_terminate(struct server *s) {
  int timeout_ms = atomic_load_explicit(&s->terminate_ms, memory_order_relaxed);
  bool again =
      atomic_exchange_explicit(&s->was_terminated, true, memory_order_relaxed);
  if (timeout_ms == 0 || again)
    server_stop(s);
  else
    server_begin_drain(s, timeout_ms);
}

/* ---- Making -------------------------------------------------------------- */

static unsigned page_shift(uint32_t page_size) {
  return (unsigned)__builtin_ctz(page_size);
}

static struct image_add image_add_of(struct server *s,
                                     const struct server_image *from) {
  if (from->share)
    atomic_store_explicit(&s->context.share, true, memory_order_relaxed);
  return (struct image_add){
      .name = from->name,
      .path = from->path,
      .share = from->share,
      .warm = from->warm,
      .missing = from->missing,
      .allow = from->allow,
      .source = from->source,
      .retrying = from->retrying,
      .page_shift =
          page_shift(from->page_size ? from->page_size : s->context.page_size)};
}

static void warm_if_there(struct served_image *h) {
  if (!atomic_load_explicit(&h->missing, memory_order_relaxed))
    warm_begin(h); /* else a look finds it */
}

static void warm_one(struct server *s, const char *name) {
  struct served_image *h = images_find(&s->context.images, NULL, name);
  if (h)
    warm_if_there(h);
  images_unref(h);
}

/* Warms the images of the start, which were added before there was a pool. */
static void warm_all(struct server *s) {
  struct served_image *h;
  for (unsigned i = 0; (h = images_next(&s->context.images, &i));) {
    if (h->warm)
      warm_if_there(h);
    images_unref(h);
  }
}

/* Closes the source of an image that was not taken over. */
static void close_source(const struct server_image *image) {
  image->source->ops->close(image->source);
  retrying_unref(image->retrying);
}

int server_add_image(struct server *s, const struct server_image *image) {
  const struct image_add add = image_add_of(s, image);
  struct served_image *h = images_find(&s->context.images, NULL, image->name);
  int r = h && images_may_become(h, &add)
              ? images_replace(h, &add)
              : images_add(&s->context.images, &add);
  if (r == 0 && image->warm && atomic_load(&s->is_started))
    warm_one(s, image->name);
  images_unref(h);
  return r;
}

int server_replace_image(struct server *s, const struct server_image *image) {
  const struct image_add change = image_add_of(s, image);
  struct served_image *h = images_find(&s->context.images, NULL, image->name);
  int r = h ? images_replace(h, &change) : -ENOENT;
  if (!h)
    close_source(image);
  if (r == 0 && image->warm)
    warm_if_there(h);
  images_unref(h);
  return r;
}

bool server_remove_image(struct server *s, const char *name) {
  struct served_image *h = images_find(&s->context.images, NULL, name);
  bool removed = h && images_remove(h);
  images_unref(h);
  return removed;
}

unsigned server_most_found(const struct server *s) {
  return s->context.images.most_found;
}

void server_review_found(struct server *s, bool shares) {
  if (shares)
    atomic_store_explicit(&s->context.share, true, memory_order_relaxed);
  finder_review(&s->context.finder);
}

void server_set_change_maker(struct server *s,
                             const struct change_maker *maker) {
  s->context.maker = *maker;
}

/* Serves an image as one that is missing, because there can be no mirror of
 * what its source has now: its owner, or a server far away, says how long it
 * is. */
static int miss_image(struct server *s, const struct server_config *config,
                      unsigned i, int error, const char *why) {
  struct server_image missing;
  if (!config->miss)
    return -error;
  int r = config->miss(config->arg, i, error, why, &missing);
  return r < 0 ? r : server_add_image(s, &missing);
}

static int add_or_miss(struct server *s, const struct server_config *config,
                       unsigned i, char *err, size_t err_len) {
  const struct server_image *from = &config->images[i];
  uint64_t size = from->source->size;
  int r = server_add_image(s, from);
  if (r == 0)
    return 0;
  char limit[128] = "", why[256];
  if (r == -EFBIG)
    mirror_print_limit(size, limit, sizeof limit);
  snprintf(why, sizeof why, "make its mirror: %s%s%s", strerror(-r),
           *limit ? ": " : "", limit);
  r = miss_image(s, config, i, -r, why);
  if (r < 0)
    snprintf(err, err_len, "image \"%s\": %s", from->name, why);
  return r;
}

/* Takes all sources over.  On failure it closes the remaining ones. */
static int server_add_images(struct server *s,
                             const struct server_config *config, char *err,
                             size_t err_len) {
  int r = 0;
  for (unsigned i = 0; i < config->n_images; i++)
    if (r == 0)
      r = add_or_miss(s, config, i, err, err_len);
    else
      close_source(&config->images[i]);
  return r;
}

static int server_init_loop(struct server *s,
                            const struct server_config *config) {
  int refresh_ms = s->context.limits.refresh_ms;
  struct timeval tv = {.tv_sec = refresh_ms / 1000,
                       .tv_usec = refresh_ms % 1000 * 1000};
  /* By its usual clock, which counts ticks of the kernel, libevent would wake
   * up to a tick too early for a timer, and wake once more for each millisecond
   * of it. */
  s->base = loop_make_base(EVENT_BASE_FLAG_PRECISE_TIMER);
  s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (!s->base || s->wake_fd < 0)
    return -ENOMEM;
  event_assign(&s->wake, s->base, s->wake_fd, EV_READ | EV_PERSIST, on_wake, s);
  event_assign(&s->refresh, s->base, -1, EV_PERSIST, on_refresh, s);
  event_assign(&s->pulse, s->base, -1, EV_PERSIST, on_pulse, s);
  event_assign(&s->drain_over, s->base, -1, 0, on_drain_over, s);
  if (event_add(&s->wake, NULL) < 0 || event_add(&s->refresh, &tv) < 0)
    return -ENOMEM;
  int pulse_ms = s->watchdog.interval_ms;
  struct timeval pulse = {.tv_sec = pulse_ms / 1000,
                          .tv_usec = pulse_ms % 1000 * 1000};
  if (pulse_ms && event_add(&s->pulse, &pulse) < 0)
    return -ENOMEM;
  return acceptor_start(&s->acceptor, s->base, config->listeners,
                        config->n_listeners);
}

static int server_init_workers(struct server *s, unsigned n) {
  struct server_context *context = &s->context;
  const struct limits *limits = &context->limits;
  s->workers = calloc(n, sizeof(struct worker *));
  context->services = calloc(n, sizeof(struct service *));
  if (!s->workers || !context->services)
    return -ENOMEM;
  uint64_t max_held = limits->max_held / n;
  if (max_held < MIN_WORKER_HELD)
    max_held = MIN_WORKER_HELD;
  for (; context->n_services < n; context->n_services++) {
    struct worker *w = worker_new(context, context->n_services, max_held);
    if (!w)
      return -ENOMEM;
    s->workers[context->n_services] = w;
    context->services[context->n_services] = &w->service;
  }
  return 0;
}

static void heed_change(void *arg, struct served_image *h) {
  struct server_context *context = arg;
  looks_at(&context->looks, h);
}

static void heed_doubt(void *arg, struct served_image *h, uint64_t from,
                       uint64_t to) {
  invalidation_by_source(arg, h, from, to);
}

/* The steps that can fail before the sources are taken over. */
static int server_init(struct server *s, const struct server_config *config) {
  struct pool_options pool = {.n_shared = config->limits.n_fill_threads,
                              .idle_ms = config->limits.idle_thread_ms};
  s->context.closer = closer_new();
  if (!s->context.closer)
    return -ENOMEM;
  int r = images_init(&s->context.images, config->cache_size, config->n_workers,
                      &pool);
  s->context.images.heed = (struct images_heed){
      .look = heed_change, .drop = heed_doubt, .arg = &s->context};
  if (r == 0)
    images_set_rules(&s->context.images, config->allow, NULL, 0);
  s->context.images.most_found = config->limits.max_found_images;
  s->context.share = config->shares_found;
  if (r == 0)
    r = finder_init(&s->context.finder, &s->context.images, config->place,
                    page_shift(s->context.page_size));
  s->context.change_lane =
      r == 0 ? pool_lane_new(s->context.images.pool, 1, false) : NULL;
  if (r == 0 && !s->context.change_lane)
    r = -ENOMEM;
  if (r == 0 && config->restore)
    images_restore(&s->context.images, config->restore);
  return r;
}

/* Restores the tables of the clients of the process before, for each worker in
 * turn.  The threads of the workers have not begun, so no lock is needed. */
static void server_restore_tables(struct server *s) {
  struct server_context *context = &s->context;
  struct restored_table table;
  for (unsigned n = 0; restore_next_table(context->images.restore, &table); n++)
    attachment_adopt(&context->services[n % context->n_services]->attachments,
                     &context->images, &table);
}

static struct server *server_alloc(const struct server_config *config) {
  struct server *s = calloc(1, sizeof *s);
  if (!s)
    return NULL;
  pthread_condattr_t attr;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&s->drain_cond, &attr);
  pthread_condattr_destroy(&attr);
  pthread_mutex_init(&s->drain_lock, NULL);
  pthread_mutex_init(&s->change_lock, NULL);
  pthread_cond_init(&s->change_cond, NULL);
  atomic_init(&s->stopped, false);
  s->context.limits = config->limits;
  looks_init(&s->context.looks, &s->context.images);
  s->context.page_size = config->page_size;
  s->watchdog = config->watchdog;
  s->context.admin = rule_ref(config->admin);
  pthread_mutex_init(&s->context.rule_lock, NULL);
  limits_fit_cache(&s->context.limits, config->cache_size, config->n_workers);
  lock_init(&s->context.census.lock);
  s->context.census.keeper = &s->context.images.keeper;
  users_init(&s->context.users);
  s->wake_fd = -1;
  s->context.drain =
      (struct drain){.asked = on_drain_asked, .done = on_drain_done, .arg = s};
  s->drain_watch = config->drain_watch;
  acceptor_init(&s->acceptor, &s->context);
  return s;
}

static void close_sources(const struct server_config *config) {
  for (unsigned i = 0; i < config->n_images; i++)
    close_source(&config->images[i]);
}

/* Logs the messages of libevent, which it would write to standard error. */
static void on_libevent_log(int severity, const char *message) {
  if (severity >= EVENT_LOG_WARN)
    log_peer_event(LEVEL_WARN, "libevent", LOG_TEXT("message", message));
}

/* The steps after the images were added.  Tables of clients are restored here,
 * because each is served by a worker. */
static int server_init_threads(struct server *s,
                               const struct server_config *config) {
  int r = server_init_workers(s, config->n_workers);
  if (r == 0)
    server_restore_tables(s);
  if (r == 0)
    r = server_init_loop(s, config);
  liveness_init(&s->liveness, s->wake_fd, s->workers, s->context.n_services,
                s->context.images.cache, &config->reactor);
  return r;
}

CLEANUP_FUNCTION(struct server *, server_free)

int server_new(const struct server_config *config, struct server **out,
               char *err, size_t err_len) {
  event_set_log_callback(on_libevent_log);
  assert(config->n_workers > 0);
  CLEANUP(server_freep) struct server *s = server_alloc(config);
  int r = s ? server_init(s, config) : -ENOMEM;
  if (r < 0) {
    snprintf(err, err_len, "make the page cache: %s", strerror(-r));
    close_sources(config);
    return r;
  }
  r = server_add_images(s, config, err, err_len);
  if (r < 0)
    return r;
  finder_restore(&s->context.finder, &config->restore_until);
  images_restored(&s->context.images);
  r = server_init_threads(s, config);
  if (r < 0) {
    snprintf(err, err_len, "make workers and loops: %s", strerror(-r));
    return r;
  }
  *out = STEAL(s);
  return 0;
}

/* ---- Running ------------------------------------------------------------- */

int server_start(struct server *s) {
  int r = pool_start(s->context.images.pool);
  for (unsigned i = 0; i < s->context.n_services && r == 0; i++)
    r = worker_start(s->workers[i]);
  atomic_store(&s->is_started, true);
  if (r == 0)
    warm_all(s);
  return r;
}

void server_serve(struct server *s) {
  atomic_store_explicit(&s->state, SERVER_SERVING, memory_order_relaxed);
  event_base_loop(s->base, 0);
  atomic_store_explicit(&s->state, SERVER_STOPPING, memory_order_relaxed);
}

int server_set_cache_size(struct server *s, uint64_t size) {
  return page_cache_set_budget(s->context.images.cache, size);
}

void server_set_rules(struct server *s, struct rule *all,
                      const struct image_rule *list, size_t n) {
  images_set_rules(&s->context.images, all, list, n);
}

void server_set_admin(struct server *s, struct rule *rule) {
  struct server_context *context = &s->context;
  pthread_mutex_lock(&context->rule_lock);
  struct rule *old = context->admin;
  context->admin = rule_ref(rule);
  pthread_mutex_unlock(&context->rule_lock);
  rule_unref(old);
}

static void on_drained(void *arg) {
  struct server *s = arg;
  pthread_mutex_lock(&s->drain_lock);
  s->n_undrained--;
  pthread_cond_signal(&s->drain_cond);
  pthread_mutex_unlock(&s->drain_lock);
}

/* Lets the workers answer the requests in flight, and waits for that. */
static void server_drain(struct server *s) {
  struct timespec until = clock_after_ms(s->context.limits.stop_timeout_ms);
  pthread_mutex_lock(&s->drain_lock);
  s->n_undrained = s->context.n_services;
  pthread_mutex_unlock(&s->drain_lock);
  for (unsigned i = 0; i < s->context.n_services; i++)
    worker_stop(s->workers[i], on_drained, s);
  pthread_mutex_lock(&s->drain_lock);
  int r = 0;
  while (s->n_undrained && r != ETIMEDOUT)
    r = pthread_cond_timedwait(&s->drain_cond, &s->drain_lock, &until);
  if (s->n_undrained)
    log_event(LEVEL_WARN, "stop-forced",
              LOG_NUMBER("connections", users_count(&s->context.users)));
  pthread_mutex_unlock(&s->drain_lock);
}

static bool server_is_running(const struct server *s) {
  for (unsigned i = 0; i < s->context.n_services; i++)
    if (!s->workers[i]->started)
      return false;
  return true;
}

/* Waits until no worker has a connection: then none submits anything. */
static void server_await_drained(struct server *s) {
  pthread_mutex_lock(&s->drain_lock);
  while (s->n_undrained)
    pthread_cond_wait(&s->drain_cond, &s->drain_lock);
  pthread_mutex_unlock(&s->drain_lock);
}

/* Sessions that wait for a change are told that there will be none. */
static void server_end_changes(struct server *s) {
  pthread_mutex_lock(&s->change_lock);
  s->is_over = true;
  pthread_mutex_unlock(&s->change_lock);
  end_change(s);
}

/* What reads sources ends before the workers, so that whatever a worker waits
 * for has been posted, and after their connections, so that nothing new is
 * read: see V1 in service.h. */
void server_shutdown(struct server *s) {
  server_end_changes(s);
  acceptor_end(&s->acceptor);
  if (server_is_running(s)) {
    server_drain(s);
    for (unsigned i = 0; i < s->context.n_services; i++)
      worker_close_all(s->workers[i]);
    server_await_drained(s);
  }
  looks_stop(&s->context.looks);
  images_stop(&s->context.images);
  for (unsigned i = 0; i < s->context.n_services; i++)
    if (s->workers[i]->started)
      worker_join(s->workers[i]);
}

static void server_free_loop(struct server *s) {
  acceptor_fini(&s->acceptor);
  if (event_initialized(&s->wake)) {
    event_del(&s->wake);
    event_del(&s->refresh);
    event_del(&s->pulse);
    event_del(&s->drain_over);
  }
  if (s->base)
    event_base_free(s->base);
  if (s->wake_fd >= 0)
    close(s->wake_fd);
}

void server_free(struct server *s) {
  if (!s)
    return;
  server_free_loop(s);
  liveness_fini(&s->liveness);
  /* Clients that are attached keep what is resident: nothing is evicted or
   * punched from here on, when nobody honours their pins any more. */
  images_stop_evicting(&s->context.images);
  for (unsigned i = 0; i < s->context.n_services; i++)
    worker_free(s->workers[i]);
  free(s->workers);
  free(s->context.services);
  finder_fini(&s->context.finder);
  pool_lane_free(s->context.change_lane);
  images_fini(&s->context.images);
  looks_fini(&s->context.looks);
  closer_free(s->context.closer);
  users_fini(&s->context.users);
  rule_unref(s->context.admin);
  pthread_mutex_destroy(&s->context.rule_lock);
  pthread_mutex_destroy(&s->context.census.lock);
  pthread_cond_destroy(&s->change_cond);
  pthread_mutex_destroy(&s->change_lock);
  pthread_cond_destroy(&s->drain_cond);
  pthread_mutex_destroy(&s->drain_lock);
  free(s);
}
