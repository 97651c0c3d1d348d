/* The two messages of each read, Read and Data, packed and unpacked without
 * protobuf-c, which takes several times as long.
 *
 *   D1  What is packed is what protobuf-c would pack, byte for byte.  A message
 *       that is to be packed has no unknown fields.
 *   D2  What is unpacked is what protobuf-c would unpack.  A message that is
 *       unusual in any way is left to protobuf-c, which alone says what is
 *       wrong with a message.
 *
 * It keeps no state.  For frame.c. */
#ifndef PROTO_CODEC_H
#define PROTO_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/cachet.pb-c.h"

#ifdef __cplusplus
extern "C" {
#endif

static inline bool codec_packs(const Cachet__Wire__Message *msg) {
  return msg->body_case == CACHET__WIRE__MESSAGE__BODY_READ ||
         msg->body_case == CACHET__WIRE__MESSAGE__BODY_DATA;
}

/* The length of such a Message when it is packed. */
size_t codec_packed_len(const Cachet__Wire__Message *msg);

/* Packs one, and returns the end of its bytes. */
uint8_t *codec_pack(const Cachet__Wire__Message *msg, uint8_t *out);

/* Unpacks `len` bytes.  NULL: they are left to protobuf-c, or there is no
 * memory. */
Cachet__Wire__Message *codec_unpack(ProtobufCAllocator *allocator, size_t len,
                                    const uint8_t *bytes);

#ifdef __cplusplus
}
#endif

#endif
