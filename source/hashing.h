/* Hashing: reads a source from its first byte to its last one, on a thread of
 * its own, and says whether its SHA-256 is the one that is expected. */
#ifndef SOURCE_HASHING_H
#define SOURCE_HASHING_H

#include <stdint.h>

#include "source/digests.h"

#ifdef __cplusplus
extern "C" {
#endif

struct hashing;
struct source;

enum hashing_state {
  HASHING_READS,
  HASHING_MATCHES,
  HASHING_DIFFERS,
  HASHING_FAILED, /* hashing_status() says why */
};

/* Starts the thread, with the filter of system calls and the signals of this
 * one.  `ended` is called when the source is closed, or handed over: until then
 * it may be read.  0, and `below` is taken over; or a negative errno. */
int hashing_begin(struct source *below, const uint8_t expected[DIGESTS_LEN],
                  void (*ended)(void *arg), void *arg, struct hashing **out);

/* Any thread. */
enum hashing_state hashing_state(struct hashing *h);

/* Once it is over: */
int hashing_status(const struct hashing *h);
struct source *hashing_source(const struct hashing *h); /* it keeps it */

/* The source and the hashes of its blocks, which the caller owns from here.  It
 * matches, and hashing_end() is all that follows. */
void hashing_take(struct hashing *h, struct source **below,
                  struct digests **digests);

/* Gives it up, or ends what is over.  Does not wait: a read that is under way
 * is ended by its thread.  NULL is fine. */
void hashing_end(struct hashing *h);

#ifdef __cplusplus
}
#endif

#endif
