/* The handle: when its view may be believed, when it looks after its daemon,
 * and how it moves from one epoch to the next.
 *
 * A hit looks at one byte, the gate, before it believes the view.  Whatever
 * makes the view doubtful ends in handle_set_gate(), and the gate stays shut
 * until the slow path has dealt with it.  In a child of fork() the byte behind
 * an open gate reads as 0, so the child's first call takes the slow path too.
 *
 * A handle moves to another epoch in one order.  The counts go to the table
 * that they were counted in, and the cursor gives its pin back to the epoch
 * that it pins.  Then the slices that are out take references to the old epoch.
 * Only then does the handle give back its own, with which the old view may end.
 */
#include "client/handle.h"

#include <assert.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/deadline.h"

const uint8_t handle_gate_shut = 0;

void handle_set_gate(cachet *c) {
  bool is_shut = c->has_notices || c->view.fence || handle_is_due(c) ||
                 c->is_past || c->is_cut;
  c->gate = is_shut ? &handle_gate_shut : c->alive;
}

/* Sets whether the handle has to look for notices.  A handle that reads the
 * daemon's memory needs none.  But once the backend has other memory, or none,
 * or asks for some, a hit in this memory proves nothing.  And while the backend
 * asks for a larger table, the handle has to receive the answer. */
static void handle_set_notices(cachet *c) {
  const struct shared_view *a = c->epoch->shared;
  c->has_notices =
      c->backend->ops->drain &&
      (!a || a->is_given_up || a->is_growing || a != c->backend->shared);
  handle_set_gate(c);
}

/* ---- Looking after the daemon -------------------------------------------- */

enum {
  /* Hits.  A reader that hits quickly, and then a few times a second, may take
   * so many until the handle is back to a look at the clock for each. */
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

/* Begins anew, because the view has changed, perhaps to one of another kind. */
static void handle_begin_looking(cachet *c) {
  set_span(c, c->epoch->shared ? 1 : SPAN_FOR_EVER);
}

/* A clock in milliseconds that costs only a few ns, and moves in steps of a few
 * ms. */
static int64_t coarse_now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* How many hits the next span has.  A span gets twice as long after SPAN_RUN
 * spans in which the clock stood still.  It gets shorter at once when hits are
 * slow. */
static int64_t next_span(cachet *c, int64_t took_ms) {
  c->n_quick = took_ms == 0 ? c->n_quick + 1 : 0;
  if (took_ms > SPAN_MS)
    return c->span * SPAN_MS > took_ms ? c->span * SPAN_MS / took_ms : 1;
  if (c->n_quick < SPAN_RUN || c->span >= SPAN_MOST)
    return c->span;
  c->n_quick = 0;
  return c->span * 2;
}

/* Tells the owner of the memory how often the handle hit and missed in it. */
static void handle_tell_counts(cachet *c) {
  struct shared_view *a = c->epoch->shared;
  uint64_t hits = handle_hits(c);
  if (a && *c->alive) /* in a forked child the table is the parent's */
    pin_count_more(a->counts, hits - c->hits_told,
                   c->n_misses - c->misses_told);
  c->hits_told = hits;
  c->misses_told = c->n_misses;
}

void handle_keep_up(cachet *c) {
  struct backend *b = c->backend;
  handle_tell_counts(c);
  if (!c->epoch->shared) {
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
    c->follow_until = deadline_after(FOLLOW_MS);
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
  c->size = window_size(&c->window, e->mirror->size);
  c->shift = e->mirror->page_shift;
  c->n_whole = e->mirror->size >> c->shift;
  c->page_size = mirror_page_size(e->mirror);
  c->page_mask = c->page_size - 1;
}

enum cachet_status handle_end_epoch(cachet *c, struct cachet_error *err) {
  c->is_past = true;
  handle_set_gate(c);
  return error_set(err, CACHET_E_CHANGED, 0,
                   "image \"%.100s\" changed since it was opened",
                   c->image_cache->name);
}

void handle_check(const cachet *c) {
  (void)c;
#ifdef CACHETD_DEBUG_CHECKS
  uint64_t pin = c->view.slots[PIN_SLOT_CURSOR];
  assert(c->cursor_page == NO_PAGE || pin == pin_word(c->cursor_page, 1));
  slice_check(&c->slices, c->epoch);
#endif
}

enum cachet_status handle_adopt_epoch(cachet *c, struct cachet_error *err) {
  if (handle_is_present(c, c->epoch))
    return c->keeps_epoch && handle_is_behind(c) ? handle_end_epoch(c, err)
                                                 : CACHET_OK;
  CLEANUP(epoch_unrefp) struct epoch *e = NULL;
  enum cachet_status status = epoch_new(c->backend, &e, err);
  if (status != CACHET_OK)
    return status;
  /* Another mirror need not be another epoch: the connection may be new. */
  if (c->keeps_epoch && e->mirror->epoch != c->epoch->mirror->epoch)
    return handle_end_epoch(c, err);
  handle_tell_counts(c);
  handle_drop_cursor(c);
  slice_move(&c->slices, c->epoch, e);
  epoch_unref(c->epoch);
  handle_read_through(c, STEAL(e));
  handle_check(c);
  handle_set_notices(c);
  handle_begin_looking(c);
  debug_say(&c->backend->debug, "moves on to epoch %#llx",
            (unsigned long long)c->epoch->mirror->epoch);
  return CACHET_OK;
}

uint64_t handle_pages(const cachet *c, const struct mirror *m, unsigned shift,
                      uint64_t addr, uint64_t len, uint64_t *first) {
  uint64_t size = window_size(&c->window, m->size);
  if (addr >= size || len == 0)
    return 0;
  if (len > size - addr)
    len = size - addr;
  uint64_t at = c->window.offset + addr;
  *first = at >> shift;
  return ((at + len - 1) >> shift) - *first + 1;
}

enum cachet_status handle_fail_forked(cachet *c) {
  return handle_fail(c, CACHET_E_FORKED, 0,
                     "image \"%.100s\": a handle of the parent process",
                     c->image_cache->name);
}

/* ---- A handle's life ----------------------------------------------------- */

static void watch_changed(void *arg) {
  cachet *c = arg;
  handle_set_notices(c);
  if (c->watch)
    c->watch(c->watch_arg);
}

/* Tells the counts before the last pin ends: the daemon may then free the
 * table, with its counts. */
static void watch_unpin(void *arg) {
  handle_tell_counts(arg);
  handle_drop_cursor(arg);
}

static void watch_grown(void *arg) {
  cachet *c = arg;
  slice_grow(&c->slices, c->epoch);
}

enum cachet_status handle_new(struct backend *b, const struct window *window,
                              const struct options *options, cachet **out,
                              struct cachet_error *err) {
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
  c->window = *window;
  handle_read_through(c, c->epoch);
  c->asked_shift =
      options->asked_shift < c->shift ? options->asked_shift : c->shift;
  c->is_cut = !window_is_whole(window) || c->asked_shift < c->shift;
  slice_init(&c->slices, c->epoch);
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
  debug_say(&b->debug, "is open: %llu bytes in pages of %zu, epoch %#llx, %s",
            (unsigned long long)c->size, mirror_page_size(c->epoch->mirror),
            (unsigned long long)c->epoch->mirror->epoch,
            c->epoch->shared ? "in the daemon's memory" : "cached here");
  *out = c;
  return CACHET_OK;
}

void handle_free(cachet *c) {
  handle_check(c);
  debug_say(&c->backend->debug, "closes, after %llu hits and %llu misses",
            (unsigned long long)handle_hits(c),
            (unsigned long long)c->n_misses);
  handle_tell_counts(c);
  handle_drop_cursor(c);
  slice_release_all(&c->slices, c->epoch);
  epoch_unref(c->epoch);
  c->backend->ops->close(c->backend);
  free(c);
}
