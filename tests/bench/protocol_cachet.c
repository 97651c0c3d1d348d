/* cachetd's protocol, as a client without a cache speaks it: Hello, Open, then
 * Reads of one range each. */
#include <string.h>

#include "proto/frame.h"
#include "tests/bench/protocol.h"
#include "tests/bench/rig.h"

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
  uint8_t bytes[PROTOCOL_MAX_HEADER];
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
  msg.open = &open;
  c->image =
      ask(c->fd, &msg, CACHET__WIRE__MESSAGE__BODY_OPENED)->opened->info->image;
}

static size_t cachet_request(const struct protocol_conn *c, uint32_t tag,
                             uint64_t offset, uint32_t len, uint8_t *out) {
  Cachet__Wire__Range range = CACHET__WIRE__RANGE__INIT, *ranges = &range;
  Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  range.offset = offset;
  range.length = len;
  read.image = c->image;
  read.ranges = &ranges;
  read.n_ranges = 1;
  msg.id = tag + 1ull; /* 0 is a notice's */
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_READ;
  msg.read = &read;
  size_t packed = frame_packed_len(&msg);
  frame_pack(&msg, 0, out);
  return packed;
}

static size_t cachet_answer(const struct protocol_conn *c, const uint8_t *in,
                            size_t len, struct answer *out) {
  struct frame_header header;
  (void)c;
  enum frame_outcome outcome = frame_peek(in, len, &limits, &header);
  if (outcome == FRAME_PARTIAL ||
      (outcome == FRAME_OK && len - FRAME_HEADER_LEN < header.message_len))
    return 0;
  if (outcome != FRAME_OK)
    rig_fail("cachetd: a frame that is too long");
  wire_message *msg = unpack(in + FRAME_HEADER_LEN, header.message_len);
  if (msg->body_case != CACHET__WIRE__MESSAGE__BODY_DATA || msg->id == 0)
    rig_fail("cachetd: not the answer that was asked for");
  *out = (struct answer){.payload = header.payload_len,
                         .tag = (uint32_t)(msg->id - 1),
                         .last = msg->data->last};
  return FRAME_HEADER_LEN + header.message_len;
}

const struct protocol protocol_cachet = {
    .begin = cachet_begin, .request = cachet_request, .answer = cachet_answer};
