/* The two walks: iter, byte by byte, and seq, page by page. */
#include "client/handle.h"

#include <stdlib.h>

#include "client/request.h"

/* ---- iter ---------------------------------------------------------------- */

struct iter {
  cachet *c;
  uint64_t epoch;
  uint8_t *page; /* a copy: `fn` may use the handle, and all its slices */
  int (*fn)(void *arg, uint8_t byte);
  void *arg;
};

/* Within one page; `*stop` is what `fn` said last. */
static enum cachet_status iter_page(struct iter *it, uint64_t addr,
                                    uint64_t len, int *stop) {
  cachet *c = it->c;
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  struct cachet_request r = {.c = c,
                             .kind = REQUEST_READ,
                             .addr = addr,
                             .len = len,
                             .buf = it->page,
                             .only_epoch = &it->epoch};
  enum cachet_status status = request_run(&r, NULL, 0);
  for (uint64_t i = 0; status == CACHET_OK && !*stop && i < len; i++)
    *stop = it->fn(it->arg, it->page[i]);
  return status;
}

static enum cachet_status iter_run(struct iter *it, uint64_t addr,
                                   uint64_t len) {
  uint64_t page_size = mirror_page_size(it->c->epoch->mirror);
  uint64_t offset = it->c->window.offset;
  enum cachet_status status = CACHET_OK;
  int stop = 0;
  while (status == CACHET_OK && !stop && len) {
    uint64_t n = page_size - ((offset + addr) & (page_size - 1));
    if (n > len)
      n = len;
    status = iter_page(it, addr, n, &stop);
    addr += n;
    len -= n;
  }
  return status;
}

enum cachet_status cachet_iter(cachet *c, uint64_t addr, uint64_t len,
                               int (*fn)(void *arg, uint8_t byte), void *arg) {
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  if (len == 0)
    return CACHET_OK;
  enum cachet_status status =
      request_check_bounds(c, addr, len == CACHET_TO_END ? 0 : len);
  if (status != CACHET_OK)
    return status;
  const struct mirror *m = c->epoch->mirror;
  if (len == CACHET_TO_END)
    len = c->size - addr;
  struct iter it = {.c = c, .epoch = m->epoch, .fn = fn, .arg = arg};
  it.page = malloc(mirror_page_size(m));
  if (!it.page)
    return handle_fail(c, CACHET_E_NOMEM, 0, "no memory for a page");
  status = iter_run(&it, addr, len);
  free(it.page);
  return status;
}

/* ---- seq ----------------------------------------------------------------- */

enum { SEQ_EPOCH }; /* cachet_seq.reserved */

enum cachet_status cachet_seq_begin(cachet *c, uint64_t addr,
                                    struct cachet_seq *seq) {
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  enum cachet_status status = request_check_bounds(c, addr, 0);
  if (status != CACHET_OK)
    return status;
  *seq = (struct cachet_seq){.c = c, .next = addr};
  seq->reserved[SEQ_EPOCH] = c->epoch->mirror->epoch;
  return CACHET_OK;
}

enum cachet_status cachet_seq_next(struct cachet_seq *seq,
                                   struct cachet_slice *out) {
  cachet *c = seq->c;
  cachet_release(c, &seq->slice);
  struct cachet_slice slice;
  enum cachet_status status = cachet_load(c, seq->next, 0, &slice);
  /* The load may have found the change, and the end of the new content. */
  if ((status == CACHET_OK || status == CACHET_END) &&
      c->epoch->mirror->epoch != seq->reserved[SEQ_EPOCH]) {
    if (status == CACHET_OK)
      cachet_release(c, &slice);
    return handle_fail(c, CACHET_E_CHANGED, 0, "image \"%.100s\" changed",
                       c->image_cache->name);
  }
  if (status != CACHET_OK)
    return status;
  uint64_t skip = seq->next - slice.offset;
  slice.offset += skip;
  slice.data += skip;
  slice.length -= skip;
  seq->slice = slice;
  seq->next = slice.offset + slice.length;
  *out = slice;
  out->pin = 0; /* it is the seq's to release */
  return CACHET_OK;
}

void cachet_seq_end(struct cachet_seq *seq) {
  if (seq->c)
    cachet_release(seq->c, &seq->slice);
  seq->c = NULL;
}
