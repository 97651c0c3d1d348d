/* Subscriptions: the images that a session opened.  It hears of each, by
 * notices, while it is not attached to it.
 *
 * Their service's thread only. */
#ifndef DAEMON_SERVE_SUBSCRIPTION_H
#define DAEMON_SERVE_SUBSCRIPTION_H

#include <stdbool.h>
#include <stdint.h>

struct request;
struct session;

struct subscription {
  unsigned image;
  uint64_t epoch; /* the last that the peer was told of */
  bool attached;  /* the peer sees what notices say, and gets none */
  /* An Invalidated that could not be sent yet: the hull of all of those, so
   * that a peer that does not read collects one, not many.  The serial number
   * of the oldest; 0: none. */
  uint64_t stale;
  uint64_t stale_from, stale_to; /* bytes, `to` excluded */
  uint64_t fetching;             /* bytes being fetched of it, for this one */
  struct request *throttled, *last_throttled; /* a queue, by next_queued */
};

/* The session's subscription to the image of that index; NULL: it opened it
 * not. */
struct subscription *subscription_find(struct session *s, unsigned image);

/* The same, or a new one.  NULL: no memory.  Moves the session's others. */
struct subscription *subscription_add(struct session *s, unsigned image);

/* The peer goes on by the socket, and needs notices again, from the start. */
void subscription_detach(struct subscription *sub);

/* Ends all of a session. */
void subscription_free_all(struct session *s);

#endif
