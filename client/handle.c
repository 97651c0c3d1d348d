#include "client/handle.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "client/backend_local.h"
#include "client/callback_source.h"
#include "client/remote/remote.h"
#include "client/request.h"
#include "source/file.h"

/* ---- Epochs -------------------------------------------------------------- */

static enum cachet_status epoch_new(struct backend *b, struct epoch **out,
                                    struct cachet_error *err) {
  struct epoch *e = calloc(1, sizeof *e);
  int r = e ? 0 : -ENOMEM;
  if (r == 0) {
    e->n_refs = 1;
    e->shared_mirror = b->shared_mirror;
  }
  if (r == 0 && e->shared_mirror) {
    shared_mirror_ref(e->shared_mirror);
    e->mirror = mirror_ref(e->shared_mirror->mirror);
    e->view = e->shared_mirror->view;
  } else if (r == 0) {
    e->mirror = image_mirror(b->image_cache->image);
    r = view_open(&e->view, e->mirror);
  }
  if (r == 0) {
    *out = e;
    return CACHET_OK;
  }
  if (e)
    mirror_unref(e->mirror);
  free(e);
  return error_set(err, error_from_errno(-r), -r,
                   "image \"%.100s\": open a view", b->image_cache->name);
}

void epoch_unref(struct epoch *e) {
  assert(e->n_refs > 0);
  if (--e->n_refs)
    return;
  if (e->shared_mirror)
    shared_mirror_unref(e->shared_mirror);
  else
    view_close(&e->view);
  mirror_unref(e->mirror);
  free(e);
}

const uint8_t handle_gate_shut = 0;

static void handle_set_gate(cachet *c) {
  bool is_shut =
      c->has_notices || c->view.fence || handle_is_due(c) || c->is_past;
  c->gate = is_shut ? &handle_gate_shut : c->alive;
}

/* The daemon's memory needs no notices.  But when the backend has other memory
 * by now, or none, or asks for some, then a hit there proves nothing.  And
 * while it asks for a larger table, the answer has to be taken in. */
static void handle_set_notices(cachet *c) {
  const struct shared_mirror *a = c->epoch->shared_mirror;
  c->has_notices =
      c->backend->ops->drain &&
      (!a || a->is_given_up || a->is_growing || a != c->backend->shared_mirror);
  handle_set_gate(c);
}

/* ---- Looking after the daemon -------------------------------------------- */

enum {
  /* Hits.  Who hits quickly, and then a few times a second, may take so many
   * until the handle is back to a look at the clock for each. */
  SPAN_MOST = 64,
  SPAN_RUN = 64,
  SPAN_MS = 50, /* what a span should take at most */
  LOOK_INTERVAL_MS = 500,
  FOLLOW_MS = 20,
};

#define SPAN_FOR_EVER INT64_MAX

static void set_span(cachet *c, int64_t span) {
  c->span = span;
  c->hits_then += (uint64_t)span - (uint64_t)c->hits_left;
  c->hits_left = span;
  handle_set_gate(c);
}

/* The view is another one, perhaps of another kind. */
static void handle_begin_looking(cachet *c) {
  set_span(c, c->epoch->shared_mirror ? 1 : SPAN_FOR_EVER);
}

/* Milliseconds, in steps of a few, for a few ns. */
static int64_t coarse_now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Twice as long when the clock has stood still over SPAN_RUN spans in a row; at
 * once as short as hits are slow. */
static int64_t next_span(cachet *c, int64_t took_ms) {
  c->n_quick = took_ms == 0 ? c->n_quick + 1 : 0;
  if (took_ms > SPAN_MS)
    return c->span * SPAN_MS > took_ms ? c->span * SPAN_MS / took_ms : 1;
  if (c->n_quick < SPAN_RUN || c->span >= SPAN_MOST)
    return c->span;
  c->n_quick = 0;
  return c->span * 2;
}

void handle_keep_up(cachet *c) {
  struct backend *b = c->backend;
  if (!c->epoch->shared_mirror) {
    set_span(c, SPAN_FOR_EVER);
    return;
  }
  int64_t now = coarse_now_ms();
  c->is_past |= c->keeps_epoch && handle_is_behind(c);
  set_span(c, next_span(c, now - c->clock_at));
  c->clock_at = now;
  if (now - c->looked_at < (c->is_following ? 1 : LOOK_INTERVAL_MS))
    return;
  c->looked_at = now;
  bool was_following = c->is_following;
  c->is_following = b->ops->keep_up(b);
  if (c->is_following && !was_following)
    c->follow_until = clock_deadline(FOLLOW_MS);
}

void handle_follow(cachet *c) {
  struct backend *b = c->backend;
  while (c->is_following && !c->in_callback && backend_wait(b, c->follow_until))
    c->is_following = b->ops->keep_up(b);
}

/* ---- Moving on ----------------------------------------------------------- */

static void handle_read_through(cachet *c, struct epoch *e) {
  c->epoch = e;
  c->view = e->view;
  c->size = e->mirror->size;
  c->shift = e->mirror->page_shift;
  c->n_whole = c->size >> c->shift;
  c->page_mask = mirror_page_size(e->mirror) - 1;
}

/* Pages of it may be RESIDENT for a while yet: nothing hits there any more. */
static enum cachet_status epoch_is_over(cachet *c, struct cachet_error *err) {
  c->is_past = true;
  handle_set_gate(c);
  return error_set(err, CACHET_E_CHANGED, 0,
                   "image \"%.100s\" changed since it was opened",
                   c->image_cache->name);
}

enum cachet_status handle_adopt_epoch(cachet *c, struct cachet_error *err) {
  if (handle_is_present(c, c->epoch))
    return c->keeps_epoch && handle_is_behind(c) ? epoch_is_over(c, err)
                                                 : CACHET_OK;
  struct epoch *e;
  enum cachet_status status = epoch_new(c->backend, &e, err);
  if (status != CACHET_OK)
    return status;
  /* Another mirror need not be another epoch: the connection may be new. */
  if (c->keeps_epoch && e->mirror->epoch != c->epoch->mirror->epoch) {
    epoch_unref(e);
    return epoch_is_over(c, err);
  }
  handle_drop_cursor(c);
  slice_move(c, e);
  epoch_unref(c->epoch);
  handle_read_through(c, e);
  handle_set_notices(c);
  handle_begin_looking(c);
  return CACHET_OK;
}

enum cachet_status handle_fail_forked(cachet *c) {
  return handle_fail(c, CACHET_E_FORKED, 0,
                     "image \"%.100s\": a handle of the parent process",
                     c->image_cache->name);
}

/* ---- Opening ------------------------------------------------------------- */

static void watch_changed(void *arg) {
  cachet *c = arg;
  handle_set_notices(c);
  if (c->watch)
    c->watch(c->watch_arg);
}

static void watch_unpin(void *arg) { handle_drop_cursor(arg); }

static void watch_grown(void *arg) { slice_grow(arg); }

/* Takes over the backend, also on failure. */
static enum cachet_status handle_new(struct backend *b,
                                     const struct options *options,
                                     cachet **out, struct cachet_error *err) {
  cachet *c = calloc(1, sizeof *c);
  enum cachet_status status =
      c ? epoch_new(b, &c->epoch, err)
        : error_set(err, CACHET_E_NOMEM, 0, "no memory for a handle");
  if (status != CACHET_OK) {
    free(c);
    b->ops->close(b);
    return status;
  }
  c->cursor_page = NO_PAGE;
  c->ahead_from = c->ahead_to = c->ahead_mark = NO_PAGE;
  handle_read_through(c, c->epoch);
  slice_init(c);
  c->backend = b;
  c->image_cache = b->image_cache;
  c->alive = b->image_cache->alive;
  handle_set_notices(c);
  handle_begin_looking(c);
  c->clock_at = c->looked_at = coarse_now_ms();
  c->options = *options;
  c->keeps_epoch = options->flags & CACHET_ONE_EPOCH;
  TAILQ_INIT(&c->ready);
  TAILQ_INIT(&c->waiting);
  TAILQ_INIT(&c->completed);
  b->watch = (struct backend_watch){.changed = watch_changed,
                                    .unpin = watch_unpin,
                                    .grown = watch_grown,
                                    .arg = c};
  *out = c;
  return CACHET_OK;
}

/* A handle over a source of this process, which is owned from here on. */
static enum cachet_status handle_new_local(const char *name, struct source *src,
                                           const struct options *options,
                                           cachet **out,
                                           struct cachet_error *err) {
  struct image_cache *s;
  struct backend *b;
  enum cachet_status status =
      image_cache_new_local(name, src, options, &s, err);
  if (status != CACHET_OK)
    return status;
  status = backend_local_new(s, &b, err);
  if (status != CACHET_OK) {
    image_cache_unref(s);
    return status;
  }
  return handle_new(b, options, out, err);
}

static enum cachet_status open_file(const char *path,
                                    const struct options *options, cachet **out,
                                    struct cachet_error *err) {
  struct source *src;
  int r = file_source_open(path, FILE_CACHED, &src);
  if (r < 0)
    return error_set(err, error_from_errno(-r), -r, "image \"%.180s\": open",
                     path);
  return handle_new_local(path, src, options, out, err);
}

enum cachet_status handle_open(const struct uri *u,
                               const struct options *options, cachet **out,
                               struct cachet_error *err) {
  if (u->kind == URI_FILE)
    return open_file(u->path, options, out, err);
  struct backend *b;
  enum cachet_status status = remote_open(u, options, &b, err);
  if (status != CACHET_OK)
    return status;
  return handle_new(b, options, out, err);
}

enum cachet_status cachet_open(const char *uri,
                               const struct cachet_options *options,
                               cachet **out, struct cachet_error *err) {
  struct options o;
  struct uri u;
  if (!out)
    return error_set(err, CACHET_E_INVAL, 0, "open: nowhere to put a handle");
  enum cachet_status status = options_read(options, &o, err);
  if (status == CACHET_OK)
    status = uri_parse(uri, &u, err);
  if (status != CACHET_OK)
    return status;
  status = handle_open(&u, &o, out, err);
  uri_fini(&u);
  return status;
}

enum cachet_status cachet_make(const struct cachet_source *source,
                               const struct cachet_options *options,
                               cachet **out, struct cachet_error *err) {
  struct options o;
  struct cachet_source given;
  struct source *src;
  if (!out)
    return error_set(err, CACHET_E_INVAL, 0, "make: nowhere to put a handle");
  enum cachet_status status = options_read(options, &o, err);
  if (status == CACHET_OK)
    status = options_read_source(source, &given, err);
  if (status != CACHET_OK)
    return status;
  if (callback_source_new(&given, o.page_shift, &src) < 0)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a source");
  cachet *c;
  status = handle_new_local("made", src, &o, &c, err);
  if (status != CACHET_OK)
    return status;
  callback_source_arm(src);
  *out = c;
  return CACHET_OK;
}

enum cachet_status cachet_copy(cachet *c, cachet **out,
                               struct cachet_error *err) {
  struct backend *b;
  if (*c->alive == 0) {
    enum cachet_status forked = handle_fail_forked(c);
    return error_set(err, forked, 0, "%s", c->error.message);
  }
  if (c->in_callback && c->backend->ops->copy_waits)
    return error_set(err, CACHET_E_INVAL, 0,
                     "a call that would wait, in a callback");
  cachet *copy;
  enum cachet_status status = c->backend->ops->copy(c->backend, &b, err);
  if (status == CACHET_OK)
    status = handle_new(b, &c->options, &copy, err);
  if (status != CACHET_OK)
    return status;
  if (c->keeps_epoch && copy->epoch->mirror->epoch != c->epoch->mirror->epoch) {
    cachet_close(copy);
    return epoch_is_over(c, err);
  }
  *out = copy;
  return CACHET_OK;
}

/* ---- Closing ------------------------------------------------------------- */

/* Runs the callback of each request on a list: what was not delivered yet is
 * CANCELED, however it went. */
static void cancel_all(struct call_list *list) {
  struct cachet_request *r;
  while ((r = TAILQ_FIRST(list))) {
    TAILQ_REMOVE(list, r, link);
    error_set(&r->error, CACHET_E_CANCELED, 0, "the handle was closed");
    request_deliver(r, CACHET_E_CANCELED);
  }
}

static void cancel_waiting(cachet *c) {
  struct call_list *lists[] = {&c->ready, &c->waiting};
  for (int i = 0; i < 2; i++)
    while (!TAILQ_EMPTY(lists[i]))
      request_fail(TAILQ_FIRST(lists[i]), CACHET_E_CANCELED,
                   "the handle was closed");
}

/* What a child process may do: free what is its own.  The cache's locks may be
 * held for ever, by threads that are not here. */
static void close_forked(cachet *c) {
  cancel_all(&c->ready);
  cancel_all(&c->waiting);
  cancel_all(&c->completed);
  c->backend->ops->close(c->backend);
  free(c);
}

void cachet_close(cachet *c) {
  if (!c)
    return;
  assert(!c->in_callback);
  c->closing = true;
  c->watch = NULL;
  if (*c->alive == 0) {
    close_forked(c);
    return;
  }
  cancel_waiting(c);
  cancel_all(&c->completed);
  handle_drop_cursor(c);
  slice_release_all(c);
  epoch_unref(c->epoch);
  c->backend->ops->close(c->backend);
  free(c);
}

/* ---- Asking -------------------------------------------------------------- */

/* What a handle says of its image is of the image's present epoch, as far as
 * it is known here. */
static const struct mirror *mirror_of(const cachet *c) {
  cachet *handle = (cachet *)(uintptr_t)c;
  struct cachet_error unused;
  if (*c->alive)
    handle_adopt_epoch(handle, &unused); /* failed: the old one still stands */
  return c->epoch->mirror;
}

/* The pages that overlap a range, cut at the end. */
static uint64_t pages_of(const struct mirror *m, uint64_t addr, uint64_t len,
                         uint64_t *first) {
  if (addr >= m->size || len == 0)
    return 0;
  if (len > m->size - addr)
    len = m->size - addr;
  *first = addr >> m->page_shift;
  return ((addr + len - 1) >> m->page_shift) - *first + 1;
}

const char *cachet_errmsg(const cachet *c) { return c->error.message; }

uint64_t cachet_size(const cachet *c) { return mirror_of(c)->size; }

size_t cachet_page_size(const cachet *c) {
  return mirror_page_size(c->epoch->mirror);
}

uint64_t cachet_epoch(const cachet *c) { return mirror_of(c)->epoch; }

bool cachet_is_shared(const cachet *c) {
  return c->epoch->shared_mirror != NULL;
}

uint64_t cachet_hits(const cachet *c) {
  return c->hits_then - (uint64_t)c->hits_left;
}

uint64_t cachet_misses(const cachet *c) { return c->n_misses; }

bool cachet_is_cached(const cachet *c, uint64_t addr) {
  const struct mirror *m = mirror_of(c);
  return *c->alive && addr < m->size && handle_is_trusted(c) &&
         view_is_resident(&c->epoch->view, addr >> m->page_shift);
}

uint64_t cachet_pages(const cachet *c, uint64_t addr, uint64_t len) {
  uint64_t first;
  return pages_of(mirror_of(c), addr, len, &first);
}

/* ---- Reading ahead ------------------------------------------------------- */

/* Two of the longest windows, that is what a reader is in and the next, keep a
 * disk busy.  More misses than AHEAD_PATIENCE within them, and what was asked
 * for is lost rather than on its way. */
enum {
  AHEAD_FIRST = 4,
  AHEAD_MOST = 8 * FETCH_MAX_PAGES,
  AHEAD_PATIENCE = 16,
};

/* Pages.  Two of them must fit the tenth of a cache that holds what was not
 * used yet (cache/s3fifo.h), or they push each other out.  Of its own cache the
 * daemon says how many that is. */
static uint64_t longest_window(const cachet *c, const struct mirror *m) {
  const struct shared_mirror *a = c->epoch->shared_mirror;
  uint64_t most =
      a ? a->read_ahead : (c->options.cache_size / 32) >> m->page_shift;
  return most < AHEAD_MOST ? most : AHEAD_MOST;
}

/* Asks for the next window of a reader who is at page `at`. */
static void ask_ahead(cachet *c, struct mirror *m, uint64_t at) {
  uint64_t from = c->ahead_to, most = longest_window(c, m);
  uint64_t len = c->ahead_len ? 2 * c->ahead_len : AHEAD_FIRST;
  c->ahead_from = at;
  c->ahead_mark = NO_PAGE;
  c->n_ahead_misses = 0;
  if (len > most)
    len = most;
  if (from >= m->n_pages || !most)
    return;
  if (len > m->n_pages - from)
    len = m->n_pages - from;
  uint64_t taken =
      c->backend->ops->prefetch(c->backend, m, from, (uint32_t)len);
  c->ahead_len = len; /* what was not taken is the next window's */
  c->ahead_to += taken;
  if (taken)
    c->ahead_mark = from;
}

void handle_pass_mark(cachet *c) {
  /* Who only hits does not look at the socket, and the answers to what was
   * asked for ahead count as under way until they are taken in. */
  if (c->epoch->shared_mirror)
    c->backend->ops->drain(c->backend);
  ask_ahead(c, c->epoch->mirror, c->ahead_mark);
}

void handle_read_ahead(cachet *c, struct mirror *m, uint64_t first,
                       uint64_t count) {
  if (c->options.flags & CACHET_NO_READAHEAD || count == 0)
    return;
  bool is_within = first >= c->ahead_from && first < c->ahead_to;
  if (is_within && ++c->n_ahead_misses <= AHEAD_PATIENCE)
    return; /* on its way */
  bool goes_on = is_within || first == c->ahead_to;
  c->ahead_to = first + count;
  if (goes_on) {
    ask_ahead(c, m, first + count);
  } else {
    c->ahead_from = c->ahead_to;
    c->ahead_len = 0;
    c->ahead_mark = NO_PAGE;
  }
}

/* ---- Steering ------------------------------------------------------------ */

enum cachet_status cachet_adopt_epoch(cachet *c) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  c->keeps_epoch = false;
  enum cachet_status status = request_renew_epoch(c);
  c->keeps_epoch = c->options.flags & CACHET_ONE_EPOCH;
  if (status == CACHET_OK)
    c->is_past = false;
  handle_set_gate(c);
  return status;
}

enum cachet_status cachet_prefetch(cachet *c, uint64_t addr, uint64_t len) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  struct mirror *m = (struct mirror *)(uintptr_t)mirror_of(c);
  uint64_t first = 0, count = pages_of(m, addr, len, &first);
  uint64_t most = 2 * longest_window(c, m); /* as for reading ahead */
  if (count > most)
    count = most;
  if (count)
    c->backend->ops->prefetch(c->backend, m, first, (uint32_t)count);
  return CACHET_OK;
}

enum cachet_status cachet_invalidate(cachet *c, uint64_t addr, uint64_t len) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  if (c->in_callback && c->backend->ops->invalidate_waits)
    return handle_fail(c, CACHET_E_INVAL, 0,
                       "a call that would wait, in a callback");
  uint64_t first, count = pages_of(mirror_of(c), addr, len, &first);
  if (!count)
    return CACHET_OK;
  handle_drop_cursor(c);
  return c->backend->ops->invalidate(c->backend, first, count, &c->error);
}
