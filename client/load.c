/* Loading: one page, the next one, and ranges, as slices; giving them back.
 *
 * A hit of a plain handle is answered here; all else is a request. */
#include "client/handle.h"

#include "client/readahead.h"
#include "client/request.h"

/* A hit on a whole page: few stores, since a store buffer that is full is
 * what keeps the misses of neighbouring loads from going on at once.  False: no
 * hit, nothing done. */
static inline __attribute__((always_inline)) bool
load_hit(cachet *c, uint64_t addr, size_t min_len, struct cachet_slice *out) {
  uint64_t free_slices = c->slices.free, page = addr >> c->shift;
  uint64_t mask = c->page_mask, in_page = addr & mask;
  if (page >= c->n_whole || page == c->ahead_mark ||
      min_len > mask + 1 - in_page || !free_slices)
    return false;
  unsigned place = (unsigned)__builtin_ctzll(free_slices);
  struct held *h = &c->slices.held[place];
  if (!handle_pin_plain(c, h->own, page)) {
    pin_clear(h->own);
    return false;
  }
  c->slices.free = free_slices & (free_slices - 1);
  handle_count_hit(c);
  out->offset = addr - in_page;
  out->length = mask + 1;
  out->data = c->view.base + (addr - in_page);
  out->pin = h->token;
  return true;
}

/* All else, a hit of a handle that is not plain among it: the drain of a socket
 * costs more than the call. */
static enum cachet_status __attribute__((noinline))
load_carefully(cachet *c, uint64_t addr, size_t min_len,
               struct cachet_slice *out) {
  bool was_due = handle_is_due(c);
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  if (was_due && handle_is_plain(c) && load_hit(c, addr, min_len, out))
    return CACHET_OK;
  uint64_t page = (c->window.offset + addr) >> c->shift;
  readahead_look_for_mark(c, page, page);
  struct cachet_request r = {
      .c = c, .kind = REQUEST_LOAD, .addr = addr, .len = min_len};
  enum cachet_status status = request_run(&r, NULL, 0);
  if (status == CACHET_OK)
    *out = r.slice;
  return status;
}

enum cachet_status cachet_load(cachet *c, uint64_t addr, size_t min_len,
                               struct cachet_slice *out) {
  if (handle_is_plain(c) && load_hit(c, addr, min_len, out))
    return CACHET_OK;
  return load_carefully(c, addr, min_len, out);
}

enum cachet_status cachet_next(cachet *c, const struct cachet_slice *slice,
                               struct cachet_slice *out) {
  uint64_t addr;
  if (__builtin_add_overflow(slice->offset, slice->length, &addr))
    return handle_fail(c, CACHET_E_INVAL, 0, "next: not a slice");
  return cachet_load(c, addr, 0, out);
}

enum cachet_status cachet_map(cachet *c, uint64_t addr, uint64_t len,
                              struct cachet_slice *out) {
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  if (len == 0)
    return handle_fail(c, CACHET_E_INVAL, 0, "map of 0 bytes");
  struct cachet_request r = {
      .c = c, .kind = REQUEST_MAP, .addr = addr, .len = len};
  enum cachet_status status = request_run(&r, NULL, 0);
  if (status == CACHET_OK)
    *out = r.slice;
  return status;
}

void cachet_release(cachet *c, struct cachet_slice *slice) {
  if (!slice || *c->alive == 0)
    return; /* in a child the pin is the parent's */
  unsigned place = slice->pin & SLICE_PLACE_MASK;
  if (slice->pin == c->slices.held[place].token)
    slice_release(&c->slices, c->epoch, place);
}

size_t cachet_pin_limit(const cachet *c) {
  (void)c;
  return N_SLICES;
}
