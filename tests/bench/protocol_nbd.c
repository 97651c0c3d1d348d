/* NBD, as much of it as reads: the fixed newstyle handshake with the default
 * export, and simple replies.
 * https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md */
#include <endian.h>
#include <string.h>

#include "tests/bench/protocol.h"
#include "tests/bench/rig.h"

#define MAGIC_SERVER 0x4e42444d41474943ull /* NBDMAGIC */
#define MAGIC_OPTION 0x49484156454f5054ull /* IHAVEOPT */
#define MAGIC_REPLY 0x67446698u
#define MAGIC_REQUEST 0x25609513u

enum {
  FLAG_FIXED_NEWSTYLE = 1 << 0, /* either side's: how options are haggled */
  FLAG_NO_ZEROES = 1 << 1,
  OPT_EXPORT_NAME = 1,
};

struct greeting {
  uint64_t server, option;
  uint16_t flags;
} __attribute__((packed));

struct export_name {
  uint32_t client_flags;
  uint64_t magic;
  uint32_t option, len;
} __attribute__((packed));

struct export_info {
  uint64_t size;
  uint16_t flags;
} __attribute__((packed));

struct request {
  uint32_t magic;
  uint16_t flags, type;
  uint64_t handle, offset;
  uint32_t len;
} __attribute__((packed));

struct reply {
  uint32_t magic, error;
  uint64_t handle;
} __attribute__((packed));

static void nbd_begin(struct protocol_conn *c) {
  struct greeting greeting;
  struct export_info info;
  protocol_receive(c->fd, &greeting, sizeof greeting);
  uint16_t flags = be16toh(greeting.flags);
  if (be64toh(greeting.server) != MAGIC_SERVER ||
      be64toh(greeting.option) != MAGIC_OPTION || !(flags & FLAG_NO_ZEROES))
    rig_fail("nbd: not the server's greeting that is known here");
  struct export_name name = {
      .client_flags = htobe32(flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES)),
      .magic = htobe64(MAGIC_OPTION),
      .option = htobe32(OPT_EXPORT_NAME)};
  protocol_send(c->fd, &name, sizeof name);
  protocol_receive(c->fd, &info, sizeof info);
}

static size_t nbd_request(const struct protocol_conn *c, uint32_t tag,
                          uint64_t offset, uint32_t len, uint8_t *out) {
  struct request r = {.magic = htobe32(MAGIC_REQUEST),
                      .handle = tag,
                      .offset = htobe64(offset),
                      .len = htobe32(len)};
  (void)c;
  memcpy(out, &r, sizeof r);
  return sizeof r;
}

static size_t nbd_answer(const struct protocol_conn *c, const uint8_t *in,
                         size_t len, struct answer *out) {
  struct reply r;
  if (len < sizeof r)
    return 0;
  memcpy(&r, in, sizeof r);
  if (be32toh(r.magic) != MAGIC_REPLY || r.error)
    rig_fail("nbd: not the reply that was asked for");
  *out = (struct answer){
      .payload = c->len, .tag = (uint32_t)r.handle, .last = true};
  return sizeof r;
}

const struct protocol protocol_nbd = {
    .begin = nbd_begin, .request = nbd_request, .answer = nbd_answer};
