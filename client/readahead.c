#include "client/readahead.h"

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
uint64_t readahead_longest(const cachet *c, const struct mirror *m) {
  const struct shared_view *a = c->epoch->shared;
  uint64_t most =
      a ? a->read_ahead : (c->options.cache_size / 32) >> m->page_shift;
  return most < AHEAD_MOST ? most : AHEAD_MOST;
}

/* The page after the last that the handle may read. */
static uint64_t end_page(const cachet *c, const struct mirror *m) {
  uint64_t first, size = window_size(&c->window, m->size);
  if (!handle_pages(c, m, m->page_shift, size ? size - 1 : 0, 1, &first))
    return 0;
  return first + 1;
}

/* Asks for the next window of a reader that is at page `at`. */
static void ask_ahead(cachet *c, struct mirror *m, uint64_t at) {
  uint64_t from = c->ahead_to, most = readahead_longest(c, m);
  uint64_t len = c->ahead_len ? 2 * c->ahead_len : AHEAD_FIRST;
  uint64_t end = end_page(c, m);
  c->ahead_from = at;
  c->ahead_mark = NO_PAGE;
  c->n_ahead_misses = 0;
  if (len > most)
    len = most;
  if (from >= end || !most)
    return;
  if (len > end - from)
    len = end - from;
  uint64_t taken =
      c->backend->ops->prefetch(c->backend, m, from, (uint32_t)len);
  c->ahead_len = len; /* what was not taken is the next window's */
  c->ahead_to += taken;
  if (taken)
    c->ahead_mark = from;
}

void readahead_pass_mark(cachet *c) {
  /* A reader that only hits does not look at the socket, and the answers to
   * what was asked for ahead count as under way until they are taken in. */
  if (c->epoch->shared)
    c->backend->ops->drain(c->backend);
  ask_ahead(c, c->epoch->mirror, c->ahead_mark);
}

void readahead_missed(cachet *c, struct mirror *m, uint64_t first,
                      uint64_t count) {
  if (c->options.flags & CACHET_NO_READAHEAD)
    return;
  if (c->backend->ops->take && !c->epoch->shared)
    return; /* the backend does it */
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
