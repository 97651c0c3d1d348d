/* Getting: bytes, integers, strings, and the two walks.
 *
 * What is resident is copied from under the cursor's pin; the first page that
 * is not makes the rest of the read a request (call.c). */
#include "client/handle.h"

#include <errno.h>
#include <string.h>

#include "client/request.h"

static enum cachet_status read_slow(cachet *c, uint64_t addr, void *buf,
                                    uint64_t len, uint64_t done,
                                    uint64_t mark) {
  struct cachet_request r = {.c = c,
                             .kind = REQUEST_READ,
                             .addr = addr,
                             .len = len,
                             .buf = buf,
                             .mark = mark};
  struct epoch *e = epoch_ref(c->epoch); /* what `done` bytes are of */
  enum cachet_status status = request_run(&r, e, done);
  epoch_unref(e);
  return status;
}

/* Copies what is resident from `addr` on; how much that was.  `len` bytes from
 * there are within the image. */
static uint64_t read_warm(cachet *c, uint64_t addr, uint8_t *buf,
                          uint64_t len) {
  unsigned shift = c->shift;
  uint64_t page_size = 1ull << shift, done = 0;
  while (done < len) {
    uint64_t in_page = (addr + done) & (page_size - 1);
    uint64_t n = page_size - in_page;
    if (n > len - done)
      n = len - done;
    const uint8_t *page = handle_look(c, (addr + done) >> shift);
    if (!page)
      break;
    memcpy(buf + done, page + in_page, n);
    done += n;
  }
  return done;
}

/* For a handle that was entered; `len` is not 0. */
static enum cachet_status read_bytes(cachet *c, uint64_t addr, void *buf,
                                     uint64_t len) {
  uint64_t done = 0, mark = 0;
  bool is_within = addr < c->size && len <= c->size - addr;
  uint64_t first = addr >> c->shift, last = (addr + len - 1) >> c->shift;
  if (is_within)
    handle_look_for_mark(c, first, last); /* may take in what ends the trust */
  if (is_within && (handle_is_plain(c) || handle_is_trusted(c))) {
    if (first != last)
      mark = mirror_mark(c->epoch->mirror);
    done = read_warm(c, addr, buf, len);
    if (done == len && !handle_is_torn(c->epoch, mark, first, last))
      return CACHET_OK;
    if (done == len)
      done = 0; /* once more */
  }
  return read_slow(c, addr, buf, len, done, mark);
}

enum cachet_status cachet_read(cachet *c, uint64_t addr, void *buf,
                               size_t len) {
  if (!handle_is_plain(c) && !handle_enter_to_wait(c))
    return handle_fail_forked(c);
  return len ? read_bytes(c, addr, buf, len) : CACHET_OK;
}

/* ---- Integers ------------------------------------------------------------ */

/* Where `len` bytes are, if they are within one resident page; else NULL. */
static inline const uint8_t *look_at(cachet *c, uint64_t addr, size_t len) {
  uint64_t page = addr >> c->shift;
  if (addr >= c->size || len > c->size - addr ||
      (len > 1 && (addr + len - 1) >> c->shift != page))
    return NULL;
  return handle_look(c, page) ? c->view.base + addr : NULL;
}

static enum cachet_status __attribute__((noinline))
get_carefully(cachet *c, uint64_t addr, void *out, size_t len) {
  bool was_due = handle_is_due(c);
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  const uint8_t *at =
      was_due && handle_is_plain(c) ? look_at(c, addr, len) : NULL;
  if (at) {
    memcpy(out, at, len);
    return CACHET_OK;
  }
  return read_bytes(c, addr, out, len);
}

static inline uint8_t swap_8(uint8_t raw) { return raw; }
static inline uint16_t swap_16(uint16_t raw) { return __builtin_bswap16(raw); }
static inline uint32_t swap_32(uint32_t raw) { return __builtin_bswap32(raw); }
static inline uint64_t swap_64(uint64_t raw) { return __builtin_bswap64(raw); }

/* One getter: `swap` says whether the image's order is not this machine's. */
#define GETTER(name, type, bits, swap)                                         \
  enum cachet_status cachet_get_##name(cachet *c, uint64_t addr, type *out) {  \
    const uint8_t *at =                                                        \
        handle_is_plain(c) ? look_at(c, addr, sizeof *out) : NULL;             \
    if (__builtin_expect(!at, 0)) {                                            \
      uint8_t bytes[sizeof *out];                                              \
      enum cachet_status status = get_carefully(c, addr, bytes, sizeof bytes); \
      if (status != CACHET_OK)                                                 \
        return status;                                                         \
      return *out = (type)read_##bits(bytes, swap), CACHET_OK;                 \
    }                                                                          \
    return *out = (type)read_##bits(at, swap), CACHET_OK;                      \
  }

#define READER(bits)                                                           \
  static inline uint##bits##_t read_##bits(const uint8_t *at, bool swap) {     \
    uint##bits##_t raw;                                                        \
    memcpy(&raw, at, sizeof raw);                                              \
    return swap ? swap_##bits(raw) : raw;                                      \
  }
READER(8)
READER(16)
READER(32)
READER(64)

#define BIG_HERE (__BYTE_ORDER__ == __ORDER_BIG_ENDIAN__)

#define GETTERS(bits)                                                          \
  GETTER(u##bits##le, uint##bits##_t, bits, BIG_HERE)                          \
  GETTER(u##bits##be, uint##bits##_t, bits, !BIG_HERE)                         \
  GETTER(u##bits##ne, uint##bits##_t, bits, false)                             \
  GETTER(i##bits##le, int##bits##_t, bits, BIG_HERE)                           \
  GETTER(i##bits##be, int##bits##_t, bits, !BIG_HERE)                          \
  GETTER(i##bits##ne, int##bits##_t, bits, false)

GETTER(u8, uint8_t, 8, false)
GETTER(i8, int8_t, 8, false)
GETTERS(16)
GETTERS(32)
GETTERS(64)

/* ---- Strings ------------------------------------------------------------- */

static bool is_within(const cachet *c, uint64_t addr, uint64_t len) {
  uint64_t size = c->epoch->mirror->size;
  return addr <= size && len <= size - addr;
}

/* Bounds before the first byte, in the image's present epoch. */
static enum cachet_status check_bounds(cachet *c, uint64_t addr, uint64_t len) {
  enum cachet_status status = request_renew_epoch(c);
  if (status == CACHET_OK && !is_within(c, addr, len) && handle_refresh(c))
    status = handle_adopt_epoch(c, &c->error);
  if (status == CACHET_OK && !is_within(c, addr, len))
    status = handle_fail(
        c, CACHET_E_BOUNDS, 0,
        "image \"%.100s\": %llu bytes at %llu reach past the end at %llu",
        c->image_cache->name, (unsigned long long)len, (unsigned long long)addr,
        (unsigned long long)c->epoch->mirror->size);
  return status;
}

enum cachet_status cachet_get_string(cachet *c, uint64_t addr, size_t len,
                                     char **out) {
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  /* Before the memory: a length past the end is no lack of it. */
  enum cachet_status status = len ? check_bounds(c, addr, len) : CACHET_OK;
  if (status != CACHET_OK)
    return status;
  char *text = malloc(len + 1);
  if (!text)
    return handle_fail(c, CACHET_E_NOMEM, 0, "no memory for %zu bytes", len);
  if (len)
    status = read_bytes(c, addr, text, len);
  if (status != CACHET_OK) {
    free(text);
    return status;
  }
  text[len] = '\0';
  *out = text;
  return CACHET_OK;
}

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
  enum cachet_status status = CACHET_OK;
  int stop = 0;
  while (status == CACHET_OK && !stop && len) {
    uint64_t n = page_size - (addr & (page_size - 1));
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
      check_bounds(c, addr, len == CACHET_TO_END ? 0 : len);
  if (status != CACHET_OK)
    return status;
  const struct mirror *m = c->epoch->mirror;
  if (len == CACHET_TO_END)
    len = m->size - addr;
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
  enum cachet_status status = check_bounds(c, addr, 0);
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
