#include "cache/fill.h"

#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/lock.h"
#include "cache/budget.h"
#include "cache/fetch.h"
#include "cache/fill_table.h"
#include "cache/internal.h"
#include "cache/room.h"
#include "cache/source.h"
#include "cache/states.h"
#include "cache/view.h"

/* The time limit of all reads of a fill together, for sources that have a
 * deadline.  A fetch may have set an earlier one. */
enum { PATIENCE_MS = 30000 };

static void read_done(struct source_read *r);

/* How many bytes are in `n` of its pages, from page `i` on: the image's last
 * page may be short. */
static size_t pages_len(const struct fill *fill, uint32_t i, uint32_t n) {
  const struct mirror *m = fill->mirror;
  return ((size_t)(n - 1) << m->page_shift) +
         mirror_page_len(m, fill->first + i + n - 1);
}

static uint64_t deadline_of(const struct fill *fill) {
  uint64_t latest = clock_now_ms() + PATIENCE_MS;
  return fill->deadline_ms && fill->deadline_ms < latest ? fill->deadline_ms
                                                         : latest;
}

/* Gets a buffer, and sets the read of all pages.  False: no memory. */
static bool prepare_read(struct fill *fill) {
  struct mirror *m = fill->mirror;
  fill->bytes = fill_buffers_get(&m->cache->buffers,
                                 (size_t)fill->count << m->page_shift);
  fill->read = (struct source_read){.offset = fill->first << m->page_shift,
                                    .buf = fill->bytes,
                                    .len = pages_len(fill, 0, fill->count),
                                    .deadline_ms = deadline_of(fill),
                                    .done = read_done};
  return fill->bytes != NULL;
}

/* Takes the status of a read of `n` pages from page `i` on.  A source that says
 * that they are zeros may have left the buffer as it was.  Nothing clears it,
 * because that takes long: the fetches that wait get fetch_zeros().  Returns 0
 * or a negative errno. */
static int take_pages(struct fill *fill, uint32_t i, uint32_t n, int status) {
  if (status != SOURCE_ZEROS)
    return status;
  fill_mark_zero(fill, i, n);
  return 0;
}

/* Reads `n` of its pages, from page `i` on, into their place in the buffer.
 * Returns the status of the read, which may block. */
static int read_pages(struct fill *fill, uint32_t i, uint32_t n) {
  struct mirror *m = fill->mirror;
  return source_read_until(m->source, (fill->first + i) << m->page_shift,
                           fill->bytes + ((size_t)i << m->page_shift),
                           pages_len(fill, i, n), fill->read.deadline_ms);
}

static bool read_halves(struct fill *fill, uint32_t i, uint32_t n);

/* Reads again `n` pages, from page `i` on, of a run that could not be read.
 * False: neither these pages nor those behind them can be read. */
static bool read_part(struct fill *fill, uint32_t i, uint32_t n) {
  int r = take_pages(fill, i, n, read_pages(fill, i, n));
  if (r == 0)
    return true;
  bool is_all = source_is_whole(r);
  if (n > 1 && !is_all)
    return read_halves(fill, i, n);
  if (fill->status != -ESTALE) /* which must stay: it asks for a new epoch */
    fill->status = r;
  fill_mark_bad(fill, i, is_all ? fill->count - i : n);
  return !is_all;
}

/* One bad sector among many pages is an error for its page alone. */
static bool read_halves(struct fill *fill, uint32_t i, uint32_t n) {
  uint32_t half = n / 2;
  return read_part(fill, i, half) && read_part(fill, i + half, n - half);
}

/* The pages of a fill that a fetch waits for: from page `i` on, `n` of them. */
struct asked {
  uint32_t i, n;
};
enum { MAX_ASKED = 4 };

/* Stores what the fetches of a fill wait for, as far as there is room.  Returns
 * how many there are. */
static uint32_t find_asked(const struct fill *fill,
                           struct asked asked[MAX_ASKED]) {
  struct page_cache *pc = fill->mirror->cache;
  const uint64_t begin = fill->first, end = begin + fill->count;
  uint32_t n = 0;
  pthread_mutex_lock(&pc->lock);
  for (const struct fetch_link *l = fill->links; l && n < MAX_ASKED;
       l = l->next) {
    uint64_t from = l->fetch->first, to = from + l->fetch->count;
    from = from > begin ? from : begin;
    to = to < end ? to : end;
    asked[n++] =
        (struct asked){(uint32_t)(from - begin), (uint32_t)(to - from)};
  }
  pthread_mutex_unlock(&pc->lock);
  return n;
}

/* Of a block for which the server answered an error, reads once more what was
 * asked for: the error may be about the other pages.  `r` is that error.
 * False: nothing was read, for the block is what was asked for. */
static bool read_asked(struct fill *fill, int r) {
  struct asked asked[MAX_ASKED];
  uint32_t n = find_asked(fill, asked);
  bool is_good[FILL_MAX_PAGES] = {false};
  if (!fill->bytes || n == 0 || asked[0].n == fill->count)
    return false;
  fill->status = r;
  for (uint32_t k = 0; k < n && fill->status == r; k++) {
    uint32_t i = asked[k].i;
    int again = read_pages(fill, i, asked[k].n);
    for (uint32_t end = i + asked[k].n; again >= 0 && i < end; i++) {
      if (!is_good[i])
        take_pages(fill, i, 1, again);
      is_good[i] = true;
    }
    if (again < 0) /* unless it is the same, no more is read */
      fill->status = again;
  }
  for (uint32_t i = 0; i < fill->count; i++)
    if (!is_good[i])
      fill_mark_bad(fill, i, 1);
  return true;
}

static bool are_zeros(const uint8_t *bytes, size_t len) {
  return bytes[0] == 0 && memcmp(bytes, bytes + 1, len - 1) == 0;
}

/* Finds pages of zeros in a run that was read, if the source has said that the
 * image has zeros.  A page of data mostly costs the look at its first byte.
 * The run of an image with the longest pages is mostly one page. */
static void find_zeros(struct fill *fill) {
  struct mirror *m = fill->mirror;
  if (fill->count == 1 && m->page_shift < PAGE_SHIFT_MAX)
    return;
  if (fill_is_all_zero(fill) || !fill->is_sparse)
    return;
  for (uint32_t i = 0; i < fill->count; i++)
    if (!fill_is_bad(fill, i) && !fill_is_zero(fill, i) &&
        are_zeros(fill->bytes + ((size_t)i << m->page_shift),
                  mirror_page_len(m, fill->first + i)))
      fill_mark_zero(fill, i, 1);
}

/* Writes the good pages into their holes, neighbours by one call.  It leaves
 * out pages of zeros, because a hole reads as zeros already. */
static int write_pages(struct fill *fill) {
  struct mirror *m = fill->mirror;
  for (uint32_t i = 0; i < fill->count;) {
    uint32_t n = 0;
    while (i + n < fill->count && !fill_is_bad(fill, i + n) &&
           !fill_is_zero(fill, i + n))
      n++;
    if (n > 0) {
      int r = mirror_write(m, fill->first + i,
                           fill->bytes + ((size_t)i << m->page_shift),
                           pages_len(fill, i, n));
      if (r < 0)
        return r;
    }
    i += n ? n : 1;
  }
  return 0;
}

/* The good pages become RESIDENT or ZERO, the bad ones ABSENT.  Returns how
 * many are RESIDENT. */
static uint32_t install_locked(struct page_cache *pc, struct fill *fill) {
  lock_assert_held(&pc->lock);
  struct mirror *m = fill->mirror;
  uint32_t n = 0;
  for (uint32_t i = 0; i < fill->count; i++) {
    uint64_t page = fill->first + i;
    if (fill_is_bad(fill, i)) { /* nothing was written there */
      states_move_locked(m, page, PAGE_FILLING, PAGE_EVICTING);
      states_move_locked(m, page, PAGE_EVICTING, PAGE_ABSENT);
      continue;
    }
    if (fill_is_zero(fill, i)) {
      states_move_locked(m, page, PAGE_FILLING, PAGE_ZERO);
      continue;
    }
    /* The byte may be left from when the page was cached before. */
    __atomic_store_n(&m->accessed[page], ACCESSED_FRESH, __ATOMIC_RELAXED);
    s3fifo_insert(&pc->policy, s3fifo_key(m->id, page));
    states_move_locked(m, page, PAGE_FILLING, PAGE_RESIDENT);
    n++;
  }
  m->charged_pages += (uint64_t)n << m->page_shift;
  pc->stats.n_filled_pages += n;
  return n;
}

static void move_all_locked(struct fill *fill, enum page_state from,
                            enum page_state to) {
  lock_assert_held(&fill->mirror->cache->lock);
  for (uint32_t i = 0; i < fill->count; i++)
    states_move_locked(fill->mirror, fill->first + i, from, to);
}

/* The pages of a fill that installs nothing become absent again; what was
 * written is punched, by the way without the lock. */
static void drop_locked(struct page_cache *pc, struct fill *fill) {
  lock_assert_held(&pc->lock);
  struct mirror *m = fill->mirror;
  move_all_locked(fill, PAGE_FILLING, PAGE_EVICTING);
  if (fill->reserved > 0) {
    pthread_mutex_unlock(&pc->lock);
    mirror_punch(m, fill->first, fill->count);
    pthread_mutex_lock(&pc->lock);
  }
  move_all_locked(fill, PAGE_EVICTING, PAGE_ABSENT);
  pc->used -= fill->reserved;
}

void fill_finish(struct fill *fill) {
  struct mirror *m = fill->mirror;
  struct page_cache *pc = m->cache;
  uint64_t reserved = fill->reserved;
  pthread_mutex_lock(&pc->lock);
  bool has_room = reserved > 0 && s3fifo_has_room(&pc->policy, fill->count);
  bool keep = fill->installs && !fill->stale && !mirror_is_retired(m) &&
              (has_room || fill_is_all_zero(fill));
  if (keep) {
    uint64_t n = install_locked(pc, fill);
    pc->used -= reserved - (n << m->page_shift);
  } else if (fill->installs) {
    drop_locked(pc, fill);
  }
  if (!keep && fill_has_good(fill))
    pc->stats.n_uncached_pages += fill->count;
  pc->stats.n_fill_errors += fill->n_bad > 0;
  fill_table_leave_locked(pc, fill);
  struct waiter *woken = fetch_notify_locked(fill);
  struct waiter *outcomes = waiter_take_locked(pc);
  bool last = fill_table_unref(fill);
  pthread_mutex_unlock(&pc->lock);
  if (last)
    fill_table_free(fill);
  waiter_wake(woken);
  waiter_wake(outcomes);
}

/* ---- On a thread that must not wait -------------------------------------- */

/* Nothing was read: gives back what fill_start() has taken. */
static void undo_start(struct fill *fill) {
  struct page_cache *pc = fill->mirror->cache;
  fill_buffers_put(&pc->buffers, fill->bytes);
  fill->bytes = NULL;
  budget_release(pc, fill->reserved);
  fill->reserved = 0;
}

static void read_done(struct source_read *r) {
  struct fill *fill = container_of(r, struct fill, read);
  fill->was_read = r->status != SOURCE_UNREAD;
  if (!fill->was_read)
    undo_start(fill);
  fill->runner->arrived(fill->runner, fill);
}

static uint64_t room_len(const struct fill *fill) {
  return fill->installs ? (uint64_t)fill->count << fill->mirror->page_shift : 0;
}

/* Whether the write of the bytes takes too long for a thread that also serves
 * other requests. */
static bool is_long(const struct fill *fill) {
  return room_len(fill) > FILL_BUFFER_LEN && fill->read.status != SOURCE_ZEROS;
}

bool fill_try_end(struct fill *fill) {
  if (!fill->was_read || is_long(fill))
    return false;
  int r = take_pages(fill, 0, fill->count, fill->read.status);
  if (r < 0 || (fill->reserved < room_len(fill) && !fill_is_all_zero(fill)))
    return false;
  fill_end(fill, 0);
  return true;
}

enum source_outcome fill_start(struct fill *fill, struct fill_runner *runner) {
  struct mirror *m = fill->mirror;
  if (!m->source->ops->start || !prepare_read(fill))
    return SOURCE_BLOCKS;
  fill->runner = runner;
  fill->read.ring = runner->ring;
  if (fill->installs && budget_try_reserve(m->cache, room_len(fill)))
    fill->reserved = room_len(fill);
  enum source_outcome outcome = source_start(m->source, &fill->read);
  if (outcome == SOURCE_RETRY || outcome == SOURCE_BLOCKS) {
    undo_start(fill);
  } else if (outcome == SOURCE_DONE) {
    fill->was_read = true;
    if (!fill_try_end(fill))
      outcome = SOURCE_BLOCKS;
  }
  return outcome; /* PENDING: the fill may be gone */
}

/* ---- On one that may ----------------------------------------------------- */

int fill_read(struct fill *fill) {
  struct mirror *m = fill->mirror;
  if (fill->installs && !fill->reserved &&
      room_reserve(m->cache, m->page_shift, room_len(fill)))
    fill->reserved = room_len(fill);
  if (!fill->was_read)
    fill->read.status =
        prepare_read(fill) ? read_pages(fill, 0, fill->count) : -ENOMEM;
  int r = take_pages(fill, 0, fill->count, fill->read.status);
  if (r < 0 && fill->bytes && fill->count > 1 && !source_is_whole(r)) {
    read_halves(fill, 0, fill->count);
  } else if (r == -EREMOTEIO && read_asked(fill, r)) {
    return fill->status;
  } else if (r < 0) {
    fill->status = r;
    fill_mark_bad(fill, 0, fill->count);
  }
  return fill->status;
}

void fill_end(struct fill *fill, int status) {
  struct mirror *m = fill->mirror;
  bool any_good = fill_has_good(fill);
  fill->status = status;
  if (fill->reserved > 0 && any_good)
    find_zeros(fill);
  if (fill->reserved > 0 && (!any_good || write_pages(fill) < 0)) {
    if (any_good) /* a write failed: punch what was written before it */
      mirror_punch(m, fill->first, fill->count);
    budget_release(m->cache, fill->reserved);
    fill->reserved = 0;
  }
  fill_finish(fill);
}

void fill_abandon(struct fill *fill, int error) {
  fill->status = error;
  fill_mark_bad(fill, 0, fill->count);
  fill_finish(fill);
}
