/* What is under way: bytes that are asked for and did not come in yet, and what
 * their coming says of the connection (flow.h).
 *
 * `due` of the remote's ahead is the sum of all `due` of what was sent. */
#ifndef CLIENT_REMOTE_TRANSIT_H
#define CLIENT_REMOTE_TRANSIT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct remote;

/* Of one Read. */
struct transit {
  bool was_alone;    /* nothing else was under way when it was sent */
  uint64_t asked_ns; /* when that was; 0: its answer has begun to come */
  uint64_t due;      /* bytes of the answer that did not come yet */
};

/* A Read that is to be answered with `len` bytes was sent, some of them came,
 * it is not under way any more. */
void remote_transit_sent(struct remote *r, struct transit *t, uint64_t len);
void remote_transit_came(struct remote *r, struct transit *t, uint64_t len);
void remote_transit_ended(struct remote *r, struct transit *t);

#ifdef __cplusplus
}
#endif

#endif
