/* The handle: what all public calls work on.
 *
 * A handle is {the current epoch, a backend to ask for pages, the slices it
 * has handed out, the requests it has taken on}.  It belongs to one thread at
 * a time; nothing in it is locked.
 *
 *   H1  `cursor_page` is either NO_PAGE or the page that slot PIN_SLOT_CURSOR
 *       of the current epoch pins.  Nothing but handle_look() and
 *       handle_look_plain() store a page there, and nothing but
 *       handle_drop_cursor() takes one away.  A request that uses the slot
 *       drops the cursor first, and leaves the slot 0 before any other call can
 *       use it: at the end of its step, or, for a blocking one, of its wait.
 *       So an asynchronous request never waits with it.
 *   H2  An asynchronous request is on exactly one of the three lists, the one
 *       its state names, until it is taken off for its callback. */
#ifndef CLIENT_HANDLE_H
#define CLIENT_HANDLE_H

#include <stdlib.h>
#include <sys/queue.h>

#include <cachet/cachet.h>

#include "base/window.h"
#include "cache/image.h"
#include "cache/view.h"
#include "client/error.h"
#include "client/image_cache.h"
#include "client/options.h"
#include "client/slice.h"

#ifdef __cplusplus
extern "C" {
#endif

#define NO_PAGE UINT64_MAX

TAILQ_HEAD(request_list, cachet_request);

struct cachet {
  /* what a hit reads: of the epoch, down to `shift` */
  struct view view;
  uint64_t size;    /* of the window, in this epoch */
  uint64_t n_whole; /* pages, without one that the image's end cuts short */
  uint64_t page_size, page_mask; /* and the size - 1 */
  unsigned shift;
  struct epoch *epoch;
  uint64_t cursor_page;
  int64_t hits_left;  /* until a look at the daemon is due */
  uint64_t hits_then; /* how many there will have been by then, in all */
  uint64_t n_misses;
  /* The image cache's `alive` while there is nothing else to ask before a look
   * at the view: no notices to take in, no fence of our own, no look that is
   * due, no other epoch, and what is asked for are pages of the mirror by their
   * addresses there.  Else a byte that is 0. */
  const uint8_t *gate;
  const uint8_t *alive; /* the image cache's */
  bool has_notices;  /* to take in before each look at the view; or another view
                       is to be taken */
  bool keeps_epoch;  /* CACHET_ONE_EPOCH: handle_adopt_epoch() takes no other */
  bool is_past;      /* and there is another: no page may be looked at */
  bool is_following; /* a connection to the daemon's successor is being made */
  bool is_cut; /* a window, or pages smaller than the mirror's: never plain */
  unsigned asked_shift; /* of the pages that the caller sees; at most `shift` */
  /* Fixed.  What a caller says is an address in it; pages, pins and fills are
   * the whole image's.  So the offset is added where a call turns into pages,
   * and taken off again where a slice goes out. */
  struct window window;

  /* Reading ahead (readahead_missed()): where a sequential reader is
   * and how far was asked for; the last window's length; the page at which the
   * next is asked for, or NO_PAGE; and what he missed since it was. */
  uint64_t ahead_from, ahead_to, ahead_len, ahead_mark;
  unsigned n_ahead_misses;

  struct slices slices;

  /* From here on what no hit looks at. */
  struct backend *backend;

  /* Looking after the daemon (handle_keep_up()): how many hits there are
   * between two looks at the clock, and how many such spans in a row took no
   * time; when those looks, and those at the connection, were; until when a
   * call may wait for the successor. */
  int64_t span;
  unsigned n_quick;
  int64_t clock_at, looked_at, follow_until;

  /* Of the hits and misses those that handle_tell_counts() has told, or need
   * not tell. */
  uint64_t hits_told, misses_told;

  struct image_cache *image_cache; /* the backend's */
  struct options options;

  struct request_list ready;     /* may go on */
  struct request_list waiting;   /* for a job */
  struct request_list completed; /* for their callback */
  unsigned n_requests; /* asynchronous ones whose callback has not begun */
  bool in_callback;
  bool closing;

  cachet_watch_cb watch;
  void *watch_arg;
  struct cachet_error error;
};

/* A handle on a backend, which it takes over, also on failure. */
enum cachet_status handle_new(struct backend *b, const struct window *window,
                              const struct options *options, cachet **out,
                              struct cachet_error *err);

/* In the process that made it; no request is left. */
void handle_free(cachet *c);

/* Asserts H1, and S1 and S2 of slice.h, where no call is under way; in programs
 * that check much (CACHETD_DEBUG_CHECKS). */
void handle_check(const cachet *c);

/* Sets the error message and returns the status. */
#define handle_fail(c, ...) error_set(&(c)->error, __VA_ARGS__)

enum cachet_status handle_fail_forked(cachet *c);

/* The pages of mirror `m`, in sizes of 1 << shift, that overlap a range of the
 * window, cut at its end: how many, and the first. */
uint64_t handle_pages(const cachet *c, const struct mirror *m, unsigned shift,
                      uint64_t addr, uint64_t len, uint64_t *first);

/* Whether no newer epoch of the image than `e` is known here. */
static inline bool handle_is_present(const cachet *c, const struct epoch *e) {
  return e->shared == c->backend->shared &&
         (e->shared || image_is_current(c->image_cache->image, e->mirror));
}

/* Whether the daemon has to be asked for the image's present epoch. */
static inline bool handle_is_behind(const cachet *c) {
  return c->epoch->shared && mirror_is_retired(c->epoch->mirror);
}

/* Before it is said that an address is past the end: looks whether the image
 * has changed.  True: the handle's epoch is over. */
static inline bool handle_refresh(cachet *c) {
  if (!c->backend->ops->refresh)
    return false;
  c->backend->ops->refresh(c->backend);
  return !handle_is_present(c, c->epoch);
}

/* Takes the image's present epoch if the handle's is over.  CACHET_E_CHANGED:
 * the handle keeps to the one that it has. */
enum cachet_status handle_adopt_epoch(cachet *c, struct cachet_error *err);

/* The handle keeps to an epoch that is over.  Pages of it may be RESIDENT for a
 * while yet: nothing hits there any more.  CACHET_E_CHANGED. */
enum cachet_status handle_end_epoch(cachet *c, struct cachet_error *err);

/* Whether bytes of pages `first` to `last` that were looked up in `e` since
 * `mark`, of its mirror, are perhaps not of one time: they are of several
 * pages, and there was a change meanwhile. */
static inline bool handle_is_torn(const struct epoch *e, uint64_t mark,
                                  uint64_t first, uint64_t last) {
  return first != last &&
         (mirror_is_retired(e->mirror) ||
          mirror_dropped_since(e->mirror, mark, first, last - first + 1));
}

/* A handle that only hits in a daemon's memory sends nothing and receives
 * nothing, so that it would not see that the daemon has gone and another one
 * serves the image.  So about twice a second of use it looks at its connection,
 * and where that has ended it connects again and attaches to the new memory.
 * While nobody answers it reads on in the old one.
 *
 * A hit costs less than a look at the clock: hits are counted down, and the
 * clock is asked after a few, more of them the quicker they come. */
void handle_keep_up(cachet *c);

/* Waits, a moment and once, for the connection that is being made. */
void handle_follow(cachet *c);

static inline uint64_t handle_hits(const cachet *c) {
  return c->hits_then - (uint64_t)c->hits_left;
}

static inline bool handle_is_due(const cachet *c) { return c->hits_left <= 0; }

extern const uint8_t handle_gate_shut;

/* After a change of what the gate stands for. */
void handle_set_gate(cachet *c);

/* No call: with one a hit would save registers. */
static inline void handle_count_hit(cachet *c) {
  if (__builtin_expect(--c->hits_left == 0, 0))
    c->gate = &handle_gate_shut;
}

static inline void handle_count_hits(cachet *c, uint64_t n) {
  c->hits_left -= (int64_t)n;
  if (handle_is_due(c))
    c->gate = &handle_gate_shut;
}

/* Whether a call that reads data may look at the view right away, by the
 * shortest way.  The hot paths ask this alone; all else is handle_enter()'s. */
static inline bool handle_is_plain(const cachet *c) {
  return __builtin_expect(*c->gate, 1);
}

/* Opens every call that reads data: takes in notices that are here.  False:
 * the handle is the parent process's. */
static inline bool handle_enter(cachet *c) {
  if (__builtin_expect(*c->alive == 0, 0))
    return false;
  if (c->has_notices)
    c->backend->ops->drain(c->backend);
  else if (__builtin_expect(handle_is_due(c), 0))
    handle_keep_up(c);
  return true;
}

/* The same for a call that may wait. */
static inline bool handle_enter_to_wait(cachet *c) {
  if (!handle_enter(c))
    return false;
  if (__builtin_expect(c->is_following, 0))
    handle_follow(c);
  return true;
}

/* Whether the view may be believed. */
static inline bool handle_is_trusted(const cachet *c) {
  if (c->is_past)
    return false;
  return !c->has_notices || (!epoch_is_given_up(c->epoch) &&
                             c->epoch->shared == c->backend->shared &&
                             c->backend->ops->is_trusted(c->backend));
}

static inline void handle_drop_cursor(cachet *c) {
  if (c->cursor_page != NO_PAGE) {
    view_unpin(&c->view, PIN_SLOT_CURSOR);
    c->cursor_page = NO_PAGE;
  }
}

/* view_pin_page() of a handle that is plain. */
static inline bool handle_pin_plain(const cachet *c, uint64_t *slot,
                                    uint64_t page) {
  __atomic_store_n(slot, pin_word(page, 1), __ATOMIC_RELEASE);
  __atomic_signal_fence(__ATOMIC_SEQ_CST); /* see view_pin() */
  if (!view_is_resident(&c->view, page))
    return false;
  view_mark_accessed(&c->view, page);
  return true;
}

/* The address of a page that is resident, pinned by the cursor; else NULL, and
 * so it is at the mark, for which readahead_look_for_mark() comes first.
 * The page of the last access is pinned already, but its word is looked at all
 * the same: it may have been invalidated.  The view is to be believed. */
static inline const uint8_t *handle_look(cachet *c, uint64_t page) {
  const struct view *v = &c->view;
  if (page == c->cursor_page) {
    if (!view_is_resident(v, page))
      return NULL;
  } else {
    if (page == c->ahead_mark)
      return NULL;
    c->cursor_page = page;
    if (!view_pin_page(v, PIN_SLOT_CURSOR, page))
      return NULL;
  }
  handle_count_hit(c);
  return view_page(v, c->shift, page);
}

/* The same for byte `addr`, of that page, and a handle that is plain: whether
 * the page is resident, and now pinned by the cursor.  The byte is prefetched
 * for the reason that load_hit() has. */
static inline bool handle_look_plain(cachet *c, uint64_t page, uint64_t addr) {
  const struct view *v = &c->view;
  if (page == c->cursor_page) {
    if (!view_is_resident(v, page))
      return false;
  } else {
    __builtin_prefetch((const void *)((uintptr_t)v->base + addr));
    if (page == c->ahead_mark)
      return false;
    c->cursor_page = page;
    if (!handle_pin_plain(c, &v->slots[PIN_SLOT_CURSOR], page))
      return false;
  }
  handle_count_hit(c);
  return true;
}

#ifdef __cplusplus
}
#endif

#endif
