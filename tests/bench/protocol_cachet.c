/* cachetd's protocol, as a client without a cache speaks it: Hello, Open, then
 * Reads of one range each. */
#include <endian.h>
#include <string.h>

#include "proto/frame.h"
#include "tests/bench/protocol.h"
#include "tests/bench/rig.h"

/* ---- Beginning ---------------------------------------------------------- */

static const struct frame_limits limits = {FRAME_MAX_MESSAGE,
                                           FRAME_MAX_PAYLOAD};

/* A message of the daemon's other than Data is small here. */
enum { ARENA_LEN = 64 << 10 };

static wire_message *unpack(const uint8_t *bytes, size_t len) {
  static struct frame_arena *arena; /* for the life of the program */
  wire_message *msg;
  if (!arena)
    arena = frame_arena_new(ARENA_LEN);
  if (!arena || frame_unpack(arena, bytes, len, &msg) != FRAME_OK)
    rig_fail("cachetd: a frame holds no message");
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_ERROR)
    rig_fail("cachetd: %s", msg->error->message);
  return msg;
}

/* One exchange ahead of the reads; the answer has no payload. */
static wire_message *ask(int fd, const wire_message *msg, int answer) {
  static uint8_t bytes[ARENA_LEN / 4];
  struct frame_header header;
  frame_pack(msg, 0, bytes);
  protocol_send(fd, bytes, frame_packed_len(msg));
  protocol_receive(fd, bytes, FRAME_HEADER_LEN);
  frame_peek(bytes, FRAME_HEADER_LEN, &limits, &header);
  if (header.message_len > sizeof bytes || header.payload_len != 0)
    rig_fail("cachetd: an answer of a length that nobody asked for");
  protocol_receive(fd, bytes, header.message_len);
  wire_message *got = unpack(bytes, header.message_len);
  if ((int)got->body_case != answer)
    rig_fail("cachetd: not the answer that was asked for");
  return got;
}

static void cachet_begin(struct protocol_conn *c) {
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  Cachet__Wire__Hello hello = CACHET__WIRE__HELLO__INIT;
  Cachet__Wire__Open open = CACHET__WIRE__OPEN__INIT;
  hello.version_min = hello.version_max = PROTO_VERSION;
  msg.id = 1;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_HELLO;
  msg.hello = &hello;
  ask(c->fd, &msg, CACHET__WIRE__MESSAGE__BODY_WELCOME);
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_OPEN;
  open.image = (char *)"image"; /* as all servers here name it */
  msg.open = &open;
  c->image =
      ask(c->fd, &msg, CACHET__WIRE__MESSAGE__BODY_OPENED)->opened->info->image;
}

uint64_t protocol_cachet_counter(int fd, const char *name) {
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  Cachet__Wire__GetStats get = CACHET__WIRE__GET_STATS__INIT;
  msg.id = 1;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_GET_STATS;
  msg.get_stats = &get;
  const Cachet__Wire__Stats *stats =
      ask(fd, &msg, CACHET__WIRE__MESSAGE__BODY_STATS)->stats;
  for (size_t i = 0; i < stats->n_daemon; i++)
    if (strcmp(stats->daemon[i]->name, name) == 0)
      return stats->daemon[i]->value;
  rig_fail("cachetd: it has no counter %s", name);
}

void protocol_cachet_warm(const struct protocol_conn *c, uint64_t offset,
                          uint64_t len) {
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT, *ranges = &range;
  Cachet__Wire__Warm warm = CACHET__WIRE__WARM__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  range.offset = offset;
  range.length = len;
  warm.image = c->image;
  warm.ranges = &ranges;
  warm.n_ranges = 1;
  msg.id = 1;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_WARM;
  msg.warm = &warm;
  ask(c->fd, &msg, CACHET__WIRE__MESSAGE__BODY_DONE);
}

/* ---- Reads --------------------------------------------------------------- */

/* Read and Data are packed and unpacked here by hand, field by field: with
 * protobuf-c that is a sixth of what the generator does for a read, which
 * memcached's and the others' lines do not cost, and with two processors the
 * generator is what limits the faster servers. */

enum { VARINT = 0, NESTED = 2 }; /* protobuf's wire types */

static uint8_t *put_varint(uint8_t *at, uint64_t n) {
  for (; n >= 0x80; n >>= 7)
    *at++ = (uint8_t)(n | 0x80);
  *at++ = (uint8_t)n;
  return at;
}

static uint8_t *put_field(uint8_t *at, unsigned field, uint64_t n) {
  *at++ = (uint8_t)(field << 3 | VARINT);
  return put_varint(at, n);
}

/* Puts a message of less than 128 bytes. */
static uint8_t *put_message(uint8_t *at, unsigned field, const uint8_t *bytes,
                            const uint8_t *end) {
  size_t len = (size_t)(end - bytes);
  *at++ = (uint8_t)(field << 3 | NESTED);
  *at++ = (uint8_t)len;
  memcpy(at, bytes, len);
  return at + len;
}

static void put_le32(uint8_t *at, uint32_t n) {
  n = htole32(n);
  memcpy(at, &n, sizeof n);
}

static uint32_t get_le32(const uint8_t *at) {
  uint32_t n;
  memcpy(&n, at, sizeof n);
  return le32toh(n);
}

static size_t cachet_request(const struct protocol_conn *c, uint32_t tag,
                             uint64_t offset, uint32_t len, uint8_t *out) {
  uint8_t range[32], read[48], *end;
  end = put_field(put_field(range, 1, offset), 2, len);
  end = put_message(put_field(read, 1, c->image), 3, range, end);
  uint8_t *message = out + FRAME_HEADER_LEN; /* id 0 is a notice's */
  end = put_message(put_field(message, 1, tag + 1ull), 4, read, end);
  put_le32(out, (uint32_t)(end - message));
  put_le32(out + 4, 0);
  return (size_t)(end - out);
}

static const uint8_t *get_varint(const uint8_t *at, const uint8_t *end,
                                 uint64_t *out) {
  *out = 0;
  for (unsigned shift = 0; at < end && shift < 64; shift += 7) {
    *out |= (uint64_t)(*at & 0x7f) << shift;
    if (*at++ < 0x80)
      return at;
  }
  rig_fail("cachetd: half a number in a message");
}

/* The fields of a Message that holds a Data, and those of the Data: both have
 * numbers alone in the fields that are of interest. */
static void get_fields(const uint8_t *at, const uint8_t *end,
                       struct answer *out) {
  uint64_t key, value;
  bool is_data = false;
  while (at < end) {
    at = get_varint(get_varint(at, end, &key), end, &value);
    if (!is_data && key == (1 << 3 | VARINT))
      out->tag = (uint32_t)value - 1;
    else if (is_data && key == (4 << 3 | VARINT))
      out->last = value != 0;
    else if (!is_data && key == (18 << 3 | NESTED))
      is_data = true; /* the Message's last field: all that follows is in it */
    else if (!is_data || (key & 7) != VARINT)
      rig_fail("cachetd: not the answer that was asked for");
  }
}

static size_t cachet_answer(const struct protocol_conn *c, const uint8_t *in,
                            size_t len, struct answer *out) {
  (void)c;
  if (len < FRAME_HEADER_LEN)
    return 0;
  size_t frame_len = FRAME_HEADER_LEN + (size_t)get_le32(in);
  if (frame_len > PROTOCOL_MAX_HEADER)
    rig_fail("cachetd: a message of %zu bytes", frame_len);
  if (len < frame_len)
    return 0;
  *out = (struct answer){.payload = get_le32(in + 4)};
  if (out->payload == 0) /* likely an error, of which this tells */
    unpack(in + FRAME_HEADER_LEN, frame_len - FRAME_HEADER_LEN);
  get_fields(in + FRAME_HEADER_LEN, in + frame_len, out);
  return frame_len;
}

const struct protocol protocol_cachet = {
    .begin = cachet_begin, .request = cachet_request, .answer = cachet_answer};
