/* Reading: bytes, integers and strings.
 *
 * What is resident is copied from under the cursor's pin; the first page that
 * is not makes the rest of the read a request (request.c). */
#include "client/handle.h"

#include <string.h>

#include "client/readahead.h"
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

/* Copies resident bytes from byte `at` of the image on, and returns how many.
 * `len` bytes from there are within the image. */
static uint64_t read_warm(cachet *c, uint64_t at, uint8_t *buf, uint64_t len) {
  unsigned shift = c->shift;
  uint64_t page_size = 1ull << shift, done = 0;
  while (done < len) {
    uint64_t in_page = (at + done) & (page_size - 1);
    uint64_t n = page_size - in_page;
    if (n > len - done)
      n = len - done;
    const uint8_t *page = handle_look(c, (at + done) >> shift);
    if (!page)
      break;
    memcpy(buf + done, page + in_page, n);
    done += n;
  }
  return done;
}

/* Each page of the mirror was counted as one hit. */
static void count_smaller(cachet *c, uint64_t at, uint64_t len) {
  uint64_t last = at + len - 1;
  if (len)
    handle_count_hits(c, (last >> c->asked_shift) - (at >> c->asked_shift) -
                             ((last >> c->shift) - (at >> c->shift)));
}

/* For a handle that was entered; `len` is not 0. */
static enum cachet_status read_bytes(cachet *c, uint64_t addr, void *buf,
                                     uint64_t len) {
  uint64_t done = 0, mark = 0;
  bool is_within = addr < c->size && len <= c->size - addr;
  uint64_t at = c->window.offset + addr;
  uint64_t first = at >> c->shift, last = (at + len - 1) >> c->shift;
  if (is_within)
    readahead_look_for_mark(c, first,
                            last); /* may receive what ends the trust */
  if (is_within && (handle_is_plain(c) || handle_is_trusted(c))) {
    if (first != last)
      mark = mirror_mark(c->epoch->mirror);
    done = read_warm(c, at, buf, len);
    if (__builtin_expect(c->asked_shift != c->shift, 0))
      count_smaller(c, at, done);
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

/* Whether `len` bytes are within one resident page, at `addr` from the view's
 * base.  The handle is plain. */
static inline bool look_at(cachet *c, uint64_t addr, size_t len) {
  uint64_t page = addr >> c->shift;
  if (addr >= c->size || len > c->size - addr ||
      (len > 1 && (addr + len - 1) >> c->shift != page))
    return false;
  return handle_look_plain(c, page, addr);
}

static enum cachet_status get_bytes(cachet *c, uint64_t addr, void *out,
                                    size_t len) {
  bool was_due = handle_is_due(c);
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  if (!was_due || !handle_is_plain(c) || !look_at(c, addr, len))
    return read_bytes(c, addr, out, len);
  memcpy(out, c->view.base + addr, len);
  return CACHET_OK;
}

/* All that is no hit of a plain handle.  A function of its own, in the order of
 * the getters' arguments, so that a hit needs no stack. */
static enum cachet_status __attribute__((noinline))
get_carefully(cachet *c, uint64_t addr, void *out, size_t len, bool swap) {
  uint8_t bytes[sizeof(uint64_t)], *to = out;
  enum cachet_status status = get_bytes(c, addr, bytes, len);
  for (size_t i = 0; status == CACHET_OK && i < len; i++)
    to[i] = bytes[swap ? len - 1 - i : i];
  return status;
}

static inline uint8_t swap_8(uint8_t raw) { return raw; }
static inline uint16_t swap_16(uint16_t raw) { return __builtin_bswap16(raw); }
static inline uint32_t swap_32(uint32_t raw) { return __builtin_bswap32(raw); }
static inline uint64_t swap_64(uint64_t raw) { return __builtin_bswap64(raw); }

/* One getter: `swap` says whether the image's order is not this machine's. */
#define GETTER(name, type, bits, swap)                                         \
  enum cachet_status cachet_get_##name(cachet *c, uint64_t addr, type *out) {  \
    if (!handle_is_plain(c) || !look_at(c, addr, sizeof *out))                 \
      return get_carefully(c, addr, out, sizeof *out, swap);                   \
    return *out = (type)read_##bits(c->view.base + addr, swap), CACHET_OK;     \
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

enum cachet_status cachet_get_string(cachet *c, uint64_t addr, size_t len,
                                     char **out) {
  if (!handle_enter_to_wait(c))
    return handle_fail_forked(c);
  /* Checked before the allocation, so that a length past the end is reported as
   * that, and not as a lack of memory. */
  enum cachet_status status =
      len ? request_check_bounds(c, addr, len) : CACHET_OK;
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
