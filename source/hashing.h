/* Hashing: a thread of its own reads a source from the first byte to the last,
 * and compares the SHA-256 with the expected one. */
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

/* Starts the thread, with this thread's filter of system calls and its signals.
 * `ended` is called when the source was closed or handed over; until then the
 * thread may read it. 0, and it takes ownership of `below`; or a negative
 * errno. */
int hashing_begin(struct source *below, const uint8_t expected[DIGESTS_LEN],
                  void (*ended)(void *arg), void *arg, struct hashing **out);

/* Any thread. */
enum hashing_state hashing_state(struct hashing *h);

/* After it has ended: */
int hashing_status(const struct hashing *h);
struct source *hashing_source(const struct hashing *h); /* stays its own */

/* Passes the source and the hashes of its blocks to the caller, who then owns
 * them.  The hash must match.  Afterwards only hashing_end() may be called. */
void hashing_take(struct hashing *h, struct source **below,
                  struct digests **digests);

/* Cancels it, or frees it after its end.  Does not wait: the thread ends a read
 * in progress.  NULL is allowed. */
void hashing_end(struct hashing *h);

#ifdef __cplusplus
}
#endif

#endif
