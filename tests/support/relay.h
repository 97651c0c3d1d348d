/* A relay: a TCP connection that takes its time.
 *
 * It listens on a loopback port and passes on, in both directions, what comes:
 * each byte so many microseconds after it came, and as many bytes as come.  So
 * a client of it is as far from the server as the delay says, with all the
 * bandwidth that there is.
 *
 *   L1  What has come is in the lane of its direction, in order, each chunk
 *       with the time at which it is due.
 *   L2  A lane that holds RELAY_LANE_LEN bytes takes no more: it is larger than
 *       anything that is under way at once.
 *
 * relay_run() belongs to one thread, or to a process of its own.  The rest may
 * be called from any thread. */
#ifndef TESTS_SUPPORT_RELAY_H
#define TESTS_SUPPORT_RELAY_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { RELAY_LANE_LEN = 256 << 20 };

struct relay;

/* A relay to a port of this host.  It takes connections from here on, and
 * passes bytes on while relay_run() runs.  NULL: errno says why. */
struct relay *relay_new(uint16_t to_port, unsigned delay_us);

/* Its own port. */
uint16_t relay_port(const struct relay *r);

/* Passes bytes on until relay_stop() is called. */
void relay_run(struct relay *r);
void relay_stop(struct relay *r);

/* How often bytes came from a client after bytes of the server had come, over
 * all connections: round trips, if each side waits for the other. */
uint64_t relay_turns(const struct relay *r);

/* relay_run() has returned. */
void relay_free(struct relay *r);

#ifdef __cplusplus
}
#endif

#endif
