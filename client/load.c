/* Loading: one page, the next one, and ranges, as slices; giving them back.
 *
 * A hit of a plain handle is answered here; all else is a request. */
#include "client/handle.h"

#include "client/readahead.h"
#include "client/request.h"

/* A hit on a whole page, in the place that is ready.  Few instructions and few
 * stores: a processor reads ahead, to what the next loads miss in its caches,
 * no further than its windows of instructions and of stores reach.  That is
 * also why the bytes are prefetched first of all.  A prefetch is no read: the
 * page may be anything yet, or not be there.
 *
 * False: no hit, nothing done. */
static inline __attribute__((always_inline)) bool
load_hit(cachet *c, uint64_t addr, size_t min_len, struct cachet_slice *out) {
  const uint8_t *base = c->view.base;
  __builtin_prefetch((const void *)((uintptr_t)base + addr));
  uint64_t page = addr >> c->shift, in_page = addr & c->page_mask;
  if (page >= c->n_whole || page == c->ahead_mark ||
      min_len > c->page_size - in_page || !slice_is_ready(&c->slices))
    return false;
  uint64_t *slot = c->slices.ready_slot;
  if (!handle_pin_plain(c, slot, page)) {
    pin_clear(slot);
    return false;
  }
  handle_count_hit(c);
  uint64_t token = c->slices.ready_token + SLICE_NEXT;
  c->slices.ready_token = token;
  uint64_t offset = addr - in_page;
  out->offset = offset;
  out->length = c->page_size;
  out->data = base + offset;
  out->pin = token;
  return true;
}

/* By a request.  A function of its own: it takes much of the stack. */
static enum cachet_status __attribute__((noinline))
load_by_request(cachet *c, uint64_t addr, size_t min_len,
                struct cachet_slice *out) {
  uint64_t page = (c->window.offset + addr) >> c->shift;
  readahead_look_for_mark(c, page, page);
  struct cachet_request r = {
      .c = c, .kind = REQUEST_LOAD, .addr = addr, .len = min_len};
  enum cachet_status status = request_run(&r, NULL, 0);
  if (status == CACHET_OK)
    *out = r.slice;
  return status;
}

/* All else, a hit of a handle that is not plain among it: the drain of a socket
 * costs more than the call. */
static enum cachet_status __attribute__((noinline))
load_carefully(cachet *c, uint64_t addr, size_t min_len,
               struct cachet_slice *out) {
  bool again = handle_is_due(c) || !slice_is_ready(&c->slices);
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  if (again && handle_is_plain(c)) {
    slice_make_ready(&c->slices);
    if (load_hit(c, addr, min_len, out))
      return CACHET_OK;
  }
  return load_by_request(c, addr, min_len, out);
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

/* No arguments that a release from the ready place would set in vain. */
static void __attribute__((noinline)) release_held(cachet *c, uint64_t token) {
  slice_release_held(&c->slices, c->epoch, token);
}

void cachet_release(cachet *c, struct cachet_slice *slice) {
  if (!slice || *c->alive == 0)
    return; /* in a child the pin is the parent's */
  if (__builtin_expect(!slice_release_ready(&c->slices, slice->pin), 0))
    release_held(c, slice->pin);
}

size_t cachet_pin_limit(const cachet *c) {
  (void)c;
  return N_SLICES;
}
