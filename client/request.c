#include "client/request.h"

#include <assert.h>
#include <string.h>
#include <time.h>

#include "base/deadline.h"
#include "client/readahead.h"

/* The most bytes of one job.  They are enough to be worth a round trip, and few
 * enough that their memory does not matter. */
#define CHUNK_MAX_BYTES (4u << 20)

static const struct backend_ops *ops_of(const struct cachet_request *r) {
  return r->c->backend->ops;
}

static const struct debug *debug_of(const struct cachet_request *r) {
  return &r->c->backend->debug;
}

/* A load or a map: its outcome is a slice. */
static bool makes_slice(const struct cachet_request *r) {
  return r->kind == REQUEST_LOAD || r->kind == REQUEST_MAP;
}

/* The error message stays with its request until the caller asks for it. */
#define request_error(r, ...) error_set(&(r)->error, __VA_ARGS__)

static unsigned shift_of(const struct cachet_request *r) {
  return r->epoch->mirror->page_shift;
}

/* ---- States -------------------------------------------------------------- */

static struct request_list *list_of(struct cachet_request *r) {
  switch (r->state) {
  case REQUEST_READY:
    return &r->c->ready;
  case REQUEST_WAITING:
    return &r->c->waiting;
  case REQUEST_COMPLETE:
    return &r->c->completed;
  }
  __builtin_unreachable();
}

static void request_move(struct cachet_request *r, enum request_state to) {
  static const bool allowed[3][3] = {
      [REQUEST_READY] = {[REQUEST_WAITING] = true, [REQUEST_COMPLETE] = true},
      [REQUEST_WAITING] = {[REQUEST_READY] = true, [REQUEST_COMPLETE] = true},
  };
  assert(allowed[r->state][to]);
  if (!r->blocking)
    TAILQ_REMOVE(list_of(r), r, link);
  r->state = to;
  if (!r->blocking)
    TAILQ_INSERT_TAIL(list_of(r), r, link);
}

#ifdef CACHETD_DEBUG_CHECKS
/* How many are on the list of that state. */
static unsigned check_list(const cachet *c, const struct request_list *list,
                           enum request_state state) {
  const struct cachet_request *r;
  unsigned n = 0;
  TAILQ_FOREACH(r, list, link) {
    assert(r->c == c && !r->blocking && r->state == state);
    n++;
  }
  return n;
}
#endif

void request_check(const cachet *c) {
  (void)c;
#ifdef CACHETD_DEBUG_CHECKS
  unsigned n = check_list(c, &c->ready, REQUEST_READY) +
               check_list(c, &c->waiting, REQUEST_WAITING) +
               check_list(c, &c->completed, REQUEST_COMPLETE);
  assert(n == c->n_requests);
#endif
}

/* How long the present job took. */
static void request_say_waited(const struct cachet_request *r) {
  debug_say(debug_of(r), "has waited %lld ms for them",
            (long long)(deadline_now() - r->asked_at));
}

static void request_job_done(struct backend_job *j) {
  struct cachet_request *r = j->owner;
  request_say_waited(r);
  request_move(r, REQUEST_READY);
  backend_changed(r->c->backend);
}

/* ---- Attempts ------------------------------------------------------------ */

static void attempt_drop_job(struct cachet_request *r) {
  if (r->job)
    ops_of(r)->drop(r->c->backend, r->job);
  r->job = NULL;
  if (r->job_slot != NO_SLOT)
    epoch_release_slot(r->epoch, r->job_slot);
  r->job_slot = NO_SLOT;
}

/* A range slot of the attempt's epoch that is free now; NO_SLOT: none is. */
static unsigned attempt_range_slot(struct cachet_request *r, uint64_t count) {
  struct epoch *e = r->epoch;
  unsigned i = (unsigned)__builtin_ctz(~e->held_ranges);
  if (i >= PIN_N_RANGE_SLOTS || count > e->view.table->range_capacity)
    return NO_SLOT;
  e->held_ranges |= 1u << i;
  return PIN_SLOT_RANGE + i;
}

static void attempt_unpin(struct cachet_request *r) {
  if (r->slot != NO_SLOT)
    epoch_release_slot(r->epoch, r->slot);
  r->slot = NO_SLOT;
}

static void attempt_end(struct cachet_request *r) {
  attempt_drop_job(r);
  if (r->epoch) {
    attempt_unpin(r);
    epoch_unref(r->epoch);
    r->epoch = NULL;
  }
  if (makes_slice(r))
    free(r->copy); /* the buffer of a read belongs to the caller */
  r->copy = NULL;
}

/* The bytes of a load: a page, cut at both ends of the window, of which `left`
 * bytes are at or after the address. */
static enum cachet_status attempt_set_page(struct cachet_request *r,
                                           uint64_t left) {
  const cachet *c = r->c;
  uint64_t page_size = 1ull << c->asked_shift, at = c->window.offset + r->addr;
  uint64_t in_page = at & (page_size - 1);
  if (r->len > page_size)
    return request_error(r, CACHET_E_INVAL, 0,
                         "load of %llu bytes: more than a page",
                         (unsigned long long)r->len);
  if (!left || r->len > left || r->len > page_size - in_page)
    return request_error(r, CACHET_END, 0, "past the end");
  uint64_t before = in_page < r->addr ? in_page : r->addr;
  uint64_t after = page_size - in_page < left ? page_size - in_page : left;
  r->start = at - before;
  r->total = before + after;
  return CACHET_OK;
}

/* Sets the range of bytes, in a window of `size` bytes.  Sums cannot overflow,
 * because `addr` is compared with the size first. */
static enum cachet_status attempt_set_range(struct cachet_request *r,
                                            uint64_t size) {
  cachet *c = r->c;
  uint64_t left = r->addr <= size ? size - r->addr : 0;
  r->start = c->window.offset + r->addr;
  switch (r->kind) {
  case REQUEST_LOAD:
    return attempt_set_page(r, left);
  case REQUEST_MAP:
    if (!left)
      return request_error(r, CACHET_END, 0, "past the end");
    r->total = r->len < left ? r->len : left;
    return CACHET_OK;
  case REQUEST_READ:
    if (r->addr > size || r->len > left)
      return request_error(
          r, CACHET_E_BOUNDS, 0,
          "image \"%.100s\": %llu bytes at %llu reach past the end at %llu",
          c->image_cache->name, (unsigned long long)r->len,
          (unsigned long long)r->addr, (unsigned long long)size);
    r->total = r->len;
    return CACHET_OK;
  case REQUEST_EPOCH:
    r->total = 0;
    return CACHET_OK;
  }
  __builtin_unreachable();
}

static enum cachet_status attempt_copy(struct cachet_request *r) {
  r->copy = malloc(r->total);
  if (!r->copy)
    return request_error(r, CACHET_E_NOMEM, 0, "no memory for %llu bytes",
                         (unsigned long long)r->total);
  return CACHET_OK;
}

/* Asks for a larger table when a load or a map has to copy its pages because
 * the table is too small.  The new size is a power of two, so it asks
 * rarely. */
static void attempt_grow(struct cachet_request *r, uint64_t count) {
  const struct pin_table *t = r->epoch->view.table;
  uint32_t page_slots = t->page_slots, range_capacity = t->range_capacity;
  if (!ops_of(r)->grow || r->epoch->shared != r->c->backend->shared)
    return;
  if (count == 1)
    page_slots *= 2;
  while (range_capacity < count && range_capacity < PIN_MAX_COUNT)
    range_capacity *= 2;
  if (page_slots > t->page_slots || range_capacity > t->range_capacity)
    ops_of(r)->grow(r->c->backend, page_slots, range_capacity);
}

/* Pins the whole of a load or a map, if a slot can hold it; otherwise the
 * request makes a copy from the start.  The pin comes before a look at any
 * page: a page that is found RESIDENT under a pin stays. */
static enum cachet_status attempt_pin(struct cachet_request *r) {
  struct epoch *e = r->epoch;
  uint64_t first = r->start >> shift_of(r);
  uint64_t last = (r->start + r->total - 1) >> shift_of(r);
  if (first != last)
    r->slot = attempt_range_slot(r, last - first + 1);
  else if (slice_has_slot(e, r->place))
    r->slot = PIN_SLOT_PAGE + (unsigned)r->place;
  if (r->slot == NO_SLOT) {
    attempt_grow(r, last - first + 1);
    return attempt_copy(r);
  }
  view_pin(&e->view, r->slot, first, (uint32_t)(last - first + 1));
  return CACHET_OK;
}

/* Takes the present epoch, and sets the range of bytes in it. */
static enum cachet_status attempt_aim(struct cachet_request *r) {
  cachet *c = r->c;
  enum cachet_status status = handle_adopt_epoch(c, &r->error);
  if (status != CACHET_OK)
    return status;
  if (r->only_epoch && *r->only_epoch != c->epoch->mirror->epoch)
    return request_error(r, CACHET_E_CHANGED, 0, "image \"%.100s\" changed",
                         c->image_cache->name);
  return attempt_set_range(r, c->size);
}

/* Reserves a slot for the slice: after the bytes are there, nothing may
 * fail. */
static enum cachet_status attempt_reserve(struct cachet_request *r) {
  if (!makes_slice(r) || r->place >= 0)
    return CACHET_OK;
  r->place = slice_reserve(&r->c->slices);
  return r->place >= 0 ? CACHET_OK
                       : request_error(r, CACHET_E_BUSY, 0,
                                       "%d slices are held", N_SLICES);
}

static bool is_past_end(enum cachet_status status) {
  return status == CACHET_END || status == CACHET_E_BOUNDS;
}

/* Whether the attempt has to ask for the present epoch of the image.  If a
 * daemon does not answer, a first attempt may use cached pages of an epoch that
 * is over.  But the size of that epoch does not prove that an address is past
 * the end. */
static bool attempt_needs_epoch(const struct cachet_request *r,
                                enum cachet_status status) {
  return handle_is_behind(r->c) &&
         (r->kind == REQUEST_EPOCH || r->n_attempts > 0 || is_past_end(status));
}

static void attempt_enter(struct cachet_request *r, enum attempt_phase phase) {
  r->phase = phase;
  r->epoch = epoch_ref(r->c->epoch);
  r->mark = mirror_mark(r->epoch->mirror);
  r->pos = 0;
  r->single_until = 0;
  r->next_count = r->start >> r->c->asked_shift;
  r->error.code = CACHET_OK;
}

static enum cachet_status attempt_begin_walk(struct cachet_request *r) {
  enum cachet_status status = attempt_reserve(r);
  if (status != CACHET_OK)
    return status;
  attempt_enter(r, ATTEMPT_WALK);
  if (makes_slice(r))
    status = attempt_pin(r);
  else
    r->copy = r->buf;
  if (status != CACHET_OK)
    attempt_end(r);
  return status;
}

static enum cachet_status attempt_begin(struct cachet_request *r) {
  enum cachet_status status = attempt_aim(r);
  if (is_past_end(status) && handle_refresh(r->c))
    status = attempt_aim(r);
  if (status != CACHET_OK && !is_past_end(status))
    return status;
  if (attempt_needs_epoch(r, status)) {
    attempt_enter(r, ATTEMPT_EPOCH);
    return CACHET_OK;
  }
  /* An error of the range has precedence over an error of the handle. */
  return status == CACHET_OK ? attempt_begin_walk(r) : status;
}

enum cachet_status request_begin(struct cachet_request *r) {
  r->state = REQUEST_READY;
  r->slot = r->job_slot = NO_SLOT;
  r->place = -1;
  enum cachet_status status = attempt_begin(r);
  if (status != CACHET_OK && r->place >= 0)
    slice_unreserve(&r->c->slices, r->c->epoch, r->place);
  return status;
}

/* ---- Ends ---------------------------------------------------------------- */

static void request_complete(struct cachet_request *r) {
  request_move(r, REQUEST_COMPLETE);
  backend_changed(r->c->backend);
}

/* The error message is in r->error. */
static void request_end(struct cachet_request *r) {
  if (r->error.code < 0)
    debug_say(debug_of(r), "gives up a request: %s", r->error.message);
  attempt_end(r);
  if (r->place >= 0)
    slice_unreserve(&r->c->slices, r->c->epoch, r->place);
  r->place = -1;
  request_complete(r);
}

void request_fail(struct cachet_request *r, enum cachet_status code,
                  const char *why) {
  error_set(&r->error, code, 0, "image \"%.100s\": %s", r->c->image_cache->name,
            why);
  request_end(r);
}

void request_deliver(struct cachet_request *r, enum cachet_status status) {
  cachet *c = r->c;
  if (status < 0)
    c->error = r->error;
  assert(c->n_requests > 0);
  c->n_requests--;
  c->in_callback = true;
  if (r->load_cb)
    r->load_cb(r->arg, status, status == CACHET_OK ? &r->slice : NULL);
  else
    r->read_cb(r->arg, status);
  c->in_callback = false;
  free(r);
}

static void request_succeed(struct cachet_request *r) {
  attempt_drop_job(r);
  r->error.code = CACHET_OK;
  if (makes_slice(r)) {
    if (r->copy)
      attempt_unpin(r);
    r->slice.offset = r->start;
    r->slice.length = (size_t)r->total;
    slice_fill(&r->c->slices, r->c->epoch, r->place, r->epoch, r->slot, r->copy,
               &r->slice);
    r->slice.offset -= r->c->window.offset;
  } else {
    epoch_unref(r->epoch);
  }
  r->epoch = NULL; /* taken over, like slot, copy and place */
  r->slot = NO_SLOT;
  r->copy = NULL;
  request_complete(r);
}

void request_expire(struct cachet_request *r, int64_t now) {
  if (r->deadline < 0 || now < r->deadline || r->state == REQUEST_COMPLETE)
    return;
  ops_of(r)->explain(r->c->backend, &r->error);
  request_end(r);
}

/* ---- Steps --------------------------------------------------------------- */

/* Changes a pinned range to a copy.  The pages that the walk has passed are
 * resident, so they can be copied at once. */
static enum cachet_status attempt_make_copy(struct cachet_request *r) {
  enum cachet_status status = attempt_copy(r);
  if (status == CACHET_OK)
    memcpy(r->copy, view_page(&r->epoch->view, 0, r->start), r->pos);
  return status;
}

/* Whether a page that the view shows may be used. */
static bool attempt_may_look(const struct cachet_request *r) {
  return handle_is_trusted(r->c) && !epoch_is_given_up(r->epoch);
}

/* One page, as it was found. */
struct found {
  bool is_here;
  bool is_pinned;       /* by the slot of the whole */
  const uint8_t *bytes; /* NULL: it is zeros */
};

/* Looks for a page in the mirror, and then in the job. */
static struct found attempt_find(struct cachet_request *r, uint64_t page,
                                 bool may_look) {
  const struct view *v = &r->epoch->view;
  if (may_look) {
    if (r->slot != NO_SLOT && view_is_resident(v, page)) {
      view_mark_accessed(v, page);
      return (struct found){true, true, view_page(v, shift_of(r), page)};
    }
    if (r->slot == NO_SLOT && view_pin_page(v, PIN_SLOT_CURSOR, page))
      return (struct found){true, false, view_page(v, shift_of(r), page)};
    if (view_is_zero(v, page))
      return (struct found){.is_here = true};
  }
  struct backend_job *j = r->job;
  if (!j || page < j->first || page - j->first >= j->count)
    return (struct found){0};
  const uint8_t *bytes = ops_of(r)->bytes(j, page);
  return (struct found){.is_here = bytes != NULL, .bytes = bytes};
}

/* How many of the caller's pages from byte `at` up to `end` were not counted
 * yet.  It marks them as counted. */
static uint64_t attempt_uncounted(struct cachet_request *r, uint64_t at,
                                  uint64_t end) {
  uint64_t from = at >> r->c->asked_shift;
  uint64_t to = ((end - 1) >> r->c->asked_shift) + 1;
  if (from < r->next_count)
    from = r->next_count;
  if (from >= to)
    return 0;
  r->next_count = to;
  return to - from;
}

/* Copies `n` bytes at byte `at` of the image from a page that was found.  After
 * a miss of a single page the first copy from its group is made by a system
 * call: a fault would cost several times as much, for a page that many programs
 * read once. */
static void attempt_copy_page(struct cachet_request *r,
                              const struct found *found, uint64_t at,
                              uint64_t n) {
  struct epoch *e = r->epoch;
  uint64_t page_size = mirror_page_size(e->mirror),
           in_page = at & (page_size - 1);
  uint8_t *to = r->copy + r->pos;
  if (!found->bytes) {
    memset(to, 0, n);
    return;
  }
  bool is_in_mirror = found->bytes == view_page(&e->view, 0, at - in_page);
  if (!(e->shared && r->job && is_in_mirror && r->total <= page_size &&
        epoch_visits_first(e, at) && mirror_copy(e->mirror, at, to, n)))
    memcpy(to, found->bytes + in_page, n);
}

/* Continues the walk as far as the bytes are available. */
static enum cachet_status attempt_walk(struct cachet_request *r) {
  enum cachet_status status = CACHET_OK;
  uint64_t mask = mirror_page_size(r->epoch->mirror) - 1;
  bool may_look = attempt_may_look(r);
  handle_drop_cursor(r->c); /* its slot is used for copying */
  while (r->pos < r->total) {
    uint64_t at = r->start + r->pos, page = at >> shift_of(r);
    struct found found = attempt_find(r, page, may_look);
    if (!found.is_here)
      break;
    uint64_t n = mask + 1 - (at & mask);
    if (n > r->total - r->pos)
      n = r->total - r->pos;
    handle_count_hits(r->c, attempt_uncounted(r, at, at + n));
    if (!r->copy && !found.is_pinned &&
        (status = attempt_make_copy(r)) != CACHET_OK)
      break;
    if (r->copy)
      attempt_copy_page(r, &found, at, n);
    r->pos += n;
  }
  view_unpin(&r->epoch->view, PIN_SLOT_CURSOR);
  return status;
}

/* Counts the pages of a chunk that is about to be asked for. */
static void attempt_count(struct cachet_request *r, uint64_t first,
                          uint64_t count) {
  uint64_t at = r->start + r->pos;
  for (uint64_t page = first; page < first + count; page++) {
    uint64_t end = (page + 1) << shift_of(r);
    if (end > r->start + r->total)
      end = r->start + r->total;
    uint64_t n = attempt_uncounted(r, at, end);
    if (attempt_may_look(r) && view_is_known(&r->epoch->view, page))
      handle_count_hits(r->c, n);
    else
      r->c->n_misses += n;
    at = end;
  }
}

/* How many pages from `page` on the handle may pin while it asks for them:
 * those before the first STALE one.  A STALE page is sent as bytes, and cannot
 * become resident as long as any pin holds it. */
static uint64_t pinnable(const struct view *v, uint64_t page, uint64_t count) {
  uint64_t n = 0;
  while (n < count && page_state_look(&v->states[page + n]) != PAGE_STALE)
    n++;
  return n;
}

/* Ends the pin of a load or a map that has come to a STALE page.  The request
 * continues with a copy. */
static enum cachet_status attempt_unpin_stale(struct cachet_request *r,
                                              uint64_t page) {
  enum cachet_status status = CACHET_OK;
  if (r->slot == NO_SLOT || pinnable(&r->epoch->view, page, 1))
    return CACHET_OK;
  if (!r->copy)
    status = attempt_make_copy(r);
  if (status == CACHET_OK)
    attempt_unpin(r);
  return status;
}

/* Pins the pages that a read is about to wait for, and returns how many to ask
 * for.  It pins only in a daemon's memory, and as many pages as a slot holds.
 * These pages are resident when the answer comes, so each answer advances the
 * read.  The pages behind them mostly are, too.  Elsewhere the bytes come with
 * the answer, and a pin would only keep a page out of the cache that is
 * invalidated meanwhile.
 *
 * If maps and other reads hold all range slots, a blocking read uses the slot
 * of the cursor until it ends.  An asynchronous one makes no pin, and asks
 * again for pages that were evicted before its answer came. */
static uint64_t attempt_pin_job(struct cachet_request *r, uint64_t page,
                                uint64_t count) {
  struct epoch *e = r->epoch;
  uint64_t n = e->view.table->range_capacity;
  n = pinnable(&e->view, page, n < count ? n : count);
  if (n == 0)
    return count;
  r->job_slot = attempt_range_slot(r, n);
  if (r->job_slot == NO_SLOT && r->blocking) {
    handle_drop_cursor(r->c);
    r->job_slot = PIN_SLOT_CURSOR; /* H1 */
    count = n = 1;
  }
  if (r->job_slot != NO_SLOT)
    view_pin(&e->view, r->job_slot, page, (uint32_t)n);
  return count;
}

/* The page after the last one that the request is about. */
static uint64_t attempt_end_page(const struct cachet_request *r) {
  return r->total ? ((r->start + r->total - 1) >> shift_of(r)) + 1 : 0;
}

/* The page after the last one that may be asked for together with `page`. */
static uint64_t attempt_until(const struct cachet_request *r, uint64_t page) {
  return page < r->single_until ? page + 1 : attempt_end_page(r);
}

/* How many pages, from `page` on, the next job has. */
static uint64_t attempt_chunk(const struct cachet_request *r, uint64_t page) {
  uint64_t count = attempt_end_page(r) - page;
  uint64_t most = CHUNK_MAX_BYTES >> shift_of(r);
  if (most > FETCH_MAX_PAGES)
    most = FETCH_MAX_PAGES;
  if (page < r->single_until)
    most = 1;
  return count < most ? count : most;
}

static enum cachet_status attempt_no_memory(struct cachet_request *r) {
  return request_error(r, CACHET_E_NOMEM, 0, "no memory for a read");
}

/* Asks for the present epoch of the image.  It ends all pins first, because
 * they would count against the share of the new lease. */
static enum cachet_status attempt_ask_for_epoch(struct cachet_request *r) {
  debug_say(debug_of(r), "misses the image's present epoch");
  r->job =
      ops_of(r)->renew(r->c->backend, r->epoch->mirror, request_job_done, r);
  return r->job ? CACHET_OK : attempt_no_memory(r);
}

/* Takes what was read ahead of the page that the walk has come to.  False: it
 * was not. */
static bool attempt_take(struct cachet_request *r, uint64_t page) {
  struct backend *b = r->c->backend;
  if (!b->ops->take || r->epoch->shared)
    return false;
  attempt_drop_job(r);
  r->job = b->ops->take(b, r->epoch->mirror, page, attempt_until(r, page), r);
  return r->job;
}

/* Asks for the chunk that the walk has come to, of which `page` is the first.
 */
static enum cachet_status attempt_fetch(struct cachet_request *r,
                                        uint64_t page) {
  uint64_t count = attempt_chunk(r, page);
  attempt_drop_job(r);
  enum cachet_status status = attempt_unpin_stale(r, page);
  if (status != CACHET_OK)
    return status;
  if (r->slot == NO_SLOT && r->epoch->shared)
    count = attempt_pin_job(r, page, count);
  attempt_count(r, page, count);
  debug_say(debug_of(r), "misses pages %llu to %llu", (unsigned long long)page,
            (unsigned long long)(page + count - 1));
  r->job =
      ops_of(r)->fetch(r->c->backend, r->epoch->mirror, page, (uint32_t)count,
                       attempt_until(r, page), request_job_done, r);
  if (!r->job)
    return attempt_no_memory(r);
  readahead_missed(r->c, r->epoch->mirror, page, count);
  return CACHET_OK;
}

/* Sets the time limit of a wait, if the job is not done yet.  The limit applies
 * to each wait anew, however many chunks there are.  A hit does not look at the
 * clock. */
static void request_be_patient(struct cachet_request *r) {
  if (r->job->is_done) {
    if (r->c->backend->ops->blocks)
      request_say_waited(r);
    return;
  }
  r->deadline = deadline_after(r->c->options.request_timeout_ms);
  debug_say(debug_of(r), "waits for them, with a time-out of %d ms",
            r->c->options.request_timeout_ms);
}

/* Has the backend bring what the attempt misses. */
static enum cachet_status request_ask(struct cachet_request *r) {
  bool is_walk = r->phase == ATTEMPT_WALK;
  if (debug_of(r)->id)
    r->asked_at = deadline_now();
  uint64_t page = (r->start + r->pos) >> shift_of(r);
  enum cachet_status status = CACHET_OK;
  if (!is_walk || !attempt_take(r, page)) {
    if (r->blocking && r->c->in_callback)
      return request_error(r, CACHET_E_INVAL, 0,
                           "a call that would wait, in a callback");
    status = is_walk ? attempt_fetch(r, page) : attempt_ask_for_epoch(r);
  }
  if (status == CACHET_OK)
    request_be_patient(r);
  return status;
}

/* Sleeps before another attempt: while an invalidation of another thread is in
 * progress, attempts fail.  Each sleep is longer, and all take some 20 ms. */
static void give_way(unsigned n_attempts) {
  struct timespec t = {.tv_nsec =
                           n_attempts < 8 ? 20000L << n_attempts : 2000000L};
  if (n_attempts > 1)
    nanosleep(&t, NULL);
}

/* Begins another attempt.  The image has another epoch, or will have one soon;
 * or the pages of this attempt were read before and after an invalidation.  A
 * retired mirror is not tried again, because the attempt would end in the same
 * way. */
static enum cachet_status request_restart(struct cachet_request *r) {
  attempt_end(r);
  if (++r->n_attempts == REQUEST_MAX_ATTEMPTS)
    return request_error(r, CACHET_E_CHANGED, 0,
                         "image \"%.100s\" changed %d times during a read",
                         r->c->image_cache->name, REQUEST_MAX_ATTEMPTS);
  give_way(r->n_attempts);
  return attempt_begin(r);
}

/* Whether the bytes of the walk must not be returned, because a page of the
 * range was invalidated since the attempt began.  Pins do not prevent that:
 * they keep the pages that were resident, but the others are read later, and
 * may be of another content. */
static bool attempt_is_stale(const struct cachet_request *r) {
  if (r->pos < r->total)
    return handle_is_behind(r->c) || !handle_is_present(r->c, r->epoch);
  uint64_t last = (r->start + r->total - 1) >> shift_of(r);
  return r->total &&
         handle_is_torn(r->epoch, r->mark, r->start >> shift_of(r), last);
}

/* The status of the job for the page that the walk has come to.  If the job has
 * several pages, or was joined, its error may concern another page.  Then the
 * good pages are taken, and the missing ones are asked for one by one. */
static enum cachet_status attempt_job_status(struct cachet_request *r) {
  const struct backend_job *j = r->job;
  if (!j || !backend_job_failed_by_page(j))
    return j ? j->error.code : CACHET_OK;
  if (j->count == 1 && j->first == (r->start + r->pos) >> shift_of(r))
    return j->error.code;
  if (r->single_until < j->first + j->count)
    r->single_until = j->first + j->count;
  return CACHET_OK;
}

/* What a look at an attempt finds. */
enum attempt_outcome {
  ATTEMPT_DONE,   /* all of its bytes are there */
  ATTEMPT_MISS,   /* something is not here, and was not asked for */
  ATTEMPT_STALE,  /* another attempt is to begin */
  ATTEMPT_FAILED, /* the error message is in the request */
};

static enum attempt_outcome attempt_fail_by_job(struct cachet_request *r) {
  r->error = r->job->error;
  return ATTEMPT_FAILED;
}

static enum attempt_outcome attempt_look_for_epoch(struct cachet_request *r) {
  if (r->job && r->job->error.code != CACHET_OK)
    return attempt_fail_by_job(r);
  if (r->job || !handle_is_present(r->c, r->epoch))
    return ATTEMPT_STALE;
  return ATTEMPT_MISS;
}

static enum attempt_outcome attempt_look_for_bytes(struct cachet_request *r) {
  enum cachet_status status = attempt_job_status(r);
  if (status == CACHET_E_CHANGED)
    return ATTEMPT_STALE;
  if (status != CACHET_OK)
    return attempt_fail_by_job(r);
  if (attempt_walk(r) != CACHET_OK)
    return ATTEMPT_FAILED;
  if (attempt_is_stale(r))
    return ATTEMPT_STALE;
  return r->pos == r->total ? ATTEMPT_DONE : ATTEMPT_MISS;
}

static enum attempt_outcome attempt_look(struct cachet_request *r) {
  return r->phase == ATTEMPT_EPOCH ? attempt_look_for_epoch(r)
                                   : attempt_look_for_bytes(r);
}

/* One move of the machine.  False: nothing more can be done now. */
static bool request_advance(struct cachet_request *r,
                            enum request_reach reach) {
  enum cachet_status status = CACHET_OK;
  switch (attempt_look(r)) {
  case ATTEMPT_DONE:
    request_succeed(r);
    return false;
  case ATTEMPT_FAILED:
    request_end(r);
    return false;
  case ATTEMPT_STALE:
    status = request_restart(r);
    break;
  case ATTEMPT_MISS:
    if (reach == REQUEST_LOOK)
      return false;
    status = request_ask(r);
    break;
  }
  if (status != CACHET_OK) {
    request_end(r);
    return false;
  }
  if (!r->job || r->job->is_done)
    return true;
  request_move(r, REQUEST_WAITING);
  return false;
}

void request_step(struct cachet_request *r, enum request_reach reach) {
  assert(r->state == REQUEST_READY);
  while (request_advance(r, reach))
    ;
}

enum cachet_status request_run(struct cachet_request *r,
                               const struct epoch *epoch, uint64_t skip) {
  cachet *c = r->c;
  uint64_t mark = r->mark;
  r->blocking = true;
  enum cachet_status status = request_begin(r);
  if (status == CACHET_OK) {
    if (skip && r->epoch == epoch) {
      r->pos = skip;
      r->mark = mark;
      r->next_count = (r->start + skip) >> c->asked_shift;
    }
    request_step(r, REQUEST_FETCH);
    while (r->state != REQUEST_COMPLETE) {
      if (r->state == REQUEST_READY)
        request_step(r, REQUEST_FETCH);
      else if (!backend_wait(c->backend, r->deadline))
        request_expire(r, deadline_now());
    }
    status = r->error.code;
  }
  if (status < 0)
    c->error = r->error;
  return status;
}

enum cachet_status request_renew_epoch(cachet *c) {
  enum cachet_status status = handle_adopt_epoch(c, &c->error);
  if (status != CACHET_OK || !handle_is_behind(c))
    return status;
  struct cachet_request r = {.c = c, .kind = REQUEST_EPOCH};
  return request_run(&r, NULL, 0);
}

static bool is_within(const cachet *c, uint64_t addr, uint64_t len) {
  return addr <= c->size && len <= c->size - addr;
}

enum cachet_status request_check_bounds(cachet *c, uint64_t addr,
                                        uint64_t len) {
  enum cachet_status status = request_renew_epoch(c);
  if (status == CACHET_OK && !is_within(c, addr, len) && handle_refresh(c))
    status = handle_adopt_epoch(c, &c->error);
  if (status == CACHET_OK && !is_within(c, addr, len))
    status = handle_fail(
        c, CACHET_E_BOUNDS, 0,
        "image \"%.100s\": %llu bytes at %llu reach past the end at %llu",
        c->image_cache->name, (unsigned long long)len, (unsigned long long)addr,
        (unsigned long long)c->size);
  return status;
}
