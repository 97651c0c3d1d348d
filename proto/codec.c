#include "proto/codec.h"

/* The number and the type of a field, as they are on the wire. */
enum {
  TAG_ID = 1 << 3,
  TAG_READ = 4 << 3 | 2,
  TAG_DATA_LOW = ((18 << 3 | 2) & 0x7f) | 0x80, /* it takes two bytes */
  TAG_DATA_HIGH = (18 << 3 | 2) >> 7,

  TAG_RANGE_OFFSET = 1 << 3,
  TAG_RANGE_LENGTH = 2 << 3,

  TAG_READ_IMAGE = 1 << 3,
  TAG_READ_EPOCH = 2 << 3,
  TAG_READ_RANGES = 3 << 3 | 2,
  TAG_READ_IN_PLACE = 4 << 3,

  TAG_DATA_EPOCH = 1 << 3,
  TAG_DATA_RANGE = 2 << 3,
  TAG_DATA_OFFSET = 3 << 3,
  TAG_DATA_LAST = 4 << 3,
  TAG_DATA_RESIDENT = 5 << 3,
};

/* ---- Packing ------------------------------------------------------------- */

/* Seven bits a byte; at least one byte. */
static size_t number_len(uint64_t n) {
  return (size_t)(64 - __builtin_clzll(n | 1) + 6) / 7;
}

/* Of a field with its tag, which is left out if it is 0. */
static size_t field_len(uint64_t n) { return n ? 1 + number_len(n) : 0; }

static size_t range_len(const Cachet__Wire__Range *range) {
  return field_len(range->offset) + field_len(range->length);
}

static size_t read_len(const Cachet__Wire__Read *read) {
  size_t len = field_len(read->image) + field_len(read->epoch) +
               field_len(read->in_place != 0);
  for (size_t i = 0; i < read->n_ranges; i++) {
    size_t n = range_len(read->ranges[i]);
    len += 1 + number_len(n) + n;
  }
  return len;
}

static size_t data_len(const Cachet__Wire__Data *data) {
  return field_len(data->epoch) + field_len(data->range) +
         field_len(data->offset) + field_len(data->last != 0) +
         field_len(data->resident);
}

size_t codec_packed_len(const Cachet__Wire__Message *msg) {
  bool is_read = msg->body_case == CACHET__WIRE__MESSAGE__BODY_READ;
  size_t len = is_read ? read_len(msg->read) : data_len(msg->data);
  return field_len(msg->id) + (is_read ? 1 : 2) + number_len(len) + len;
}

static uint8_t *put_number(uint8_t *out, uint64_t n) {
  for (; n >= 0x80; n >>= 7)
    *out++ = (uint8_t)(n | 0x80);
  *out++ = (uint8_t)n;
  return out;
}

static uint8_t *put_field(uint8_t *out, uint8_t tag, uint64_t n) {
  if (!n)
    return out;
  *out++ = tag;
  return put_number(out, n);
}

static uint8_t *put_range(uint8_t *out, const Cachet__Wire__Range *range) {
  *out++ = TAG_READ_RANGES;
  out = put_number(out, range_len(range));
  out = put_field(out, TAG_RANGE_OFFSET, range->offset);
  return put_field(out, TAG_RANGE_LENGTH, range->length);
}

static uint8_t *put_read(uint8_t *out, const Cachet__Wire__Read *read) {
  *out++ = TAG_READ;
  out = put_number(out, read_len(read));
  out = put_field(out, TAG_READ_IMAGE, read->image);
  out = put_field(out, TAG_READ_EPOCH, read->epoch);
  for (size_t i = 0; i < read->n_ranges; i++)
    out = put_range(out, read->ranges[i]);
  return put_field(out, TAG_READ_IN_PLACE, read->in_place != 0);
}

static uint8_t *put_data(uint8_t *out, const Cachet__Wire__Data *data) {
  *out++ = TAG_DATA_LOW;
  *out++ = TAG_DATA_HIGH;
  out = put_number(out, data_len(data));
  out = put_field(out, TAG_DATA_EPOCH, data->epoch);
  out = put_field(out, TAG_DATA_RANGE, data->range);
  out = put_field(out, TAG_DATA_OFFSET, data->offset);
  out = put_field(out, TAG_DATA_LAST, data->last != 0);
  return put_field(out, TAG_DATA_RESIDENT, data->resident);
}

uint8_t *codec_pack(const Cachet__Wire__Message *msg, uint8_t *out) {
  out = put_field(out, TAG_ID, msg->id);
  return msg->body_case == CACHET__WIRE__MESSAGE__BODY_READ
             ? put_read(out, msg->read)
             : put_data(out, msg->data);
}

/* ---- Unpacking ----------------------------------------------------------- */

/* The bytes that were not taken yet.  `last_tag`: of the field before; tags
 * must rise, so no field comes twice. */
struct cursor {
  const uint8_t *at, *end;
  uint8_t last_tag;
};

/* False, as of all that follow: the bytes are left to protobuf-c. */
static bool take_number(struct cursor *c, uint64_t *out) {
  uint64_t n = 0;
  for (unsigned shift = 0; c->at < c->end && shift < 63; shift += 7) {
    uint8_t byte = *c->at++;
    n |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) {
      *out = n;
      return true;
    }
  }
  /* The tenth byte has one bit. */
  if (c->at == c->end || *c->at > 1)
    return false;
  *out = n | (uint64_t)*c->at++ << 63;
  return true;
}

static bool take_number32(struct cursor *c, uint32_t *out) {
  uint64_t n;
  if (!take_number(c, &n) || n > UINT32_MAX)
    return false;
  *out = (uint32_t)n;
  return true;
}

static bool take_bool(struct cursor *c, protobuf_c_boolean *out) {
  if (c->at == c->end || *c->at > 1)
    return false;
  *out = *c->at++;
  return true;
}

/* The bytes of a message within the message. */
static bool take_inner(struct cursor *c, struct cursor *out) {
  const uint8_t *from = c->at;
  uint64_t len;
  /* protobuf-c refuses a length of more than five bytes. */
  if (!take_number(c, &len) || c->at - from > 5 ||
      len > (uint64_t)(c->end - c->at))
    return false;
  *out = (struct cursor){c->at, c->at + len, 0};
  c->at += len;
  return true;
}

/* The next tag, if it has one byte and comes in order; `repeats` may come
 * again.  0 otherwise. */
static uint8_t take_tag(struct cursor *c, uint8_t repeats) {
  uint8_t tag = *c->at++;
  bool in_order = tag > c->last_tag || (tag == repeats && tag == c->last_tag);
  if (tag >= 0x80 || !in_order)
    return 0;
  c->last_tag = tag;
  return tag;
}

static bool take_range(struct cursor c, Cachet__Wire__Range *out) {
  bool good = true;
  cachet__wire__range__init(out);
  while (good && c.at < c.end)
    switch (take_tag(&c, 0)) {
    case TAG_RANGE_OFFSET:
      good = take_number(&c, &out->offset);
      break;
    case TAG_RANGE_LENGTH:
      good = take_number(&c, &out->length);
      break;
    default:
      return false;
    }
  return good;
}

/* Takes a Read.  The first call counts the ranges only (`ranges` is NULL); the
 * second one, on the same bytes, takes them. */
static bool take_read(struct cursor c, Cachet__Wire__Read *out,
                      Cachet__Wire__Range *ranges) {
  struct cursor inner;
  bool good = true;
  out->n_ranges = 0;
  while (good && c.at < c.end)
    switch (take_tag(&c, TAG_READ_RANGES)) {
    case TAG_READ_IMAGE:
      good = take_number32(&c, &out->image);
      break;
    case TAG_READ_EPOCH:
      good = take_number(&c, &out->epoch);
      break;
    case TAG_READ_RANGES:
      good = take_inner(&c, &inner);
      if (good && ranges) {
        out->ranges[out->n_ranges] = &ranges[out->n_ranges];
        good = take_range(inner, &ranges[out->n_ranges]);
      }
      out->n_ranges++;
      break;
    case TAG_READ_IN_PLACE:
      good = take_bool(&c, &out->in_place);
      break;
    default:
      return false;
    }
  return good;
}

static bool take_data(struct cursor c, Cachet__Wire__Data *out) {
  bool good = true;
  while (good && c.at < c.end)
    switch (take_tag(&c, 0)) {
    case TAG_DATA_EPOCH:
      good = take_number(&c, &out->epoch);
      break;
    case TAG_DATA_RANGE:
      good = take_number32(&c, &out->range);
      break;
    case TAG_DATA_OFFSET:
      good = take_number(&c, &out->offset);
      break;
    case TAG_DATA_LAST:
      good = take_bool(&c, &out->last);
      break;
    case TAG_DATA_RESIDENT:
      good = take_number(&c, &out->resident);
      break;
    default:
      return false;
    }
  return good;
}

static void *allocate(ProtobufCAllocator *a, size_t len) {
  return a->alloc(a->allocator_data, len);
}

static Cachet__Wire__Message *make_message(ProtobufCAllocator *a, uint64_t id) {
  Cachet__Wire__Message *msg = allocate(a, sizeof *msg);
  if (!msg)
    return NULL;
  cachet__wire__message__init(msg);
  msg->id = id;
  return msg;
}

static Cachet__Wire__Message *unpack_read(ProtobufCAllocator *a, uint64_t id,
                                          struct cursor c) {
  Cachet__Wire__Read read = CACHET__WIRE__READ__INIT;
  Cachet__Wire__Range *ranges = NULL;
  if (!take_read(c, &read, NULL))
    return NULL;
  Cachet__Wire__Message *msg = make_message(a, id);
  Cachet__Wire__Read *kept = msg ? allocate(a, sizeof *kept) : NULL;
  if (kept && read.n_ranges > 0) {
    read.ranges = allocate(a, read.n_ranges * sizeof(Cachet__Wire__Range *));
    ranges = allocate(a, read.n_ranges * sizeof *ranges);
  }
  bool has_room = kept && (read.n_ranges == 0 || (read.ranges && ranges));
  if (!has_room || (ranges && !take_read(c, &read, ranges)))
    return NULL;
  *kept = read;
  msg->body_case = CACHET__WIRE__MESSAGE__BODY_READ;
  msg->read = kept;
  return msg;
}

static Cachet__Wire__Message *unpack_data(ProtobufCAllocator *a, uint64_t id,
                                          struct cursor c) {
  Cachet__Wire__Data data = CACHET__WIRE__DATA__INIT;
  if (!take_data(c, &data))
    return NULL;
  Cachet__Wire__Message *msg = make_message(a, id);
  Cachet__Wire__Data *kept = msg ? allocate(a, sizeof *kept) : NULL;
  if (!kept)
    return NULL;
  *kept = data;
  msg->body_case = CACHET__WIRE__MESSAGE__BODY_DATA;
  msg->data = kept;
  return msg;
}

/* The bytes of a body, which are the last ones of the message. */
static bool take_body(struct cursor *c, struct cursor *body) {
  return take_inner(c, body) && c->at == c->end;
}

Cachet__Wire__Message *codec_unpack(ProtobufCAllocator *allocator, size_t len,
                                    const uint8_t *bytes) {
  if (len == 0)
    return NULL; /* `bytes` may be NULL, to which nothing can be added */
  struct cursor c = {bytes, bytes + len, 0}, body;
  uint64_t id = 0;
  if (*c.at == TAG_ID) {
    c.at++;
    if (!take_number(&c, &id))
      return NULL;
  }
  size_t left = (size_t)(c.end - c.at);
  if (left > 0 && c.at[0] == TAG_READ) {
    c.at++;
    return take_body(&c, &body) ? unpack_read(allocator, id, body) : NULL;
  }
  if (left > 1 && c.at[0] == TAG_DATA_LOW && c.at[1] == TAG_DATA_HIGH) {
    c.at += 2;
    return take_body(&c, &body) ? unpack_data(allocator, id, body) : NULL;
  }
  return NULL;
}
