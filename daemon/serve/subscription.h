/* Subscriptions: the images that a session opened.  It hears of each, by
 * notices, while it is not attached to it.
 *
 * Their service's thread only. */
#ifndef DAEMON_SERVE_SUBSCRIPTION_H
#define DAEMON_SERVE_SUBSCRIPTION_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "daemon/serve/service_images.h"

struct session;

struct subscription {
  uint32_t number; /* what the peer knows it by: its own, and from 1 on, so that
                      it tells nothing of other images */
  struct session *session;
  struct service_image *image; /* used */
  LIST_ENTRY(subscription) of_session, of_image;
  unsigned n_requests; /* of the session, for it, that wait */
  bool ended;          /* the image was removed, or is not for this peer any
                          more: it goes with the last of them, and is found no
                          more */
  unsigned asked;      /* images_n_narrowed() and one, when the image's rule was
                          asked      for the peer; 0: not yet */
  uint64_t epoch;      /* the last that the peer was told of */
  bool attached;       /* the peer sees what notices say, and gets none */
  /* An Invalidated that could not be sent yet: the hull of all of those, so
   * that a peer that does not read collects one, not many.  The serial number
   * of the oldest; 0: none. */
  uint64_t stale;
  uint64_t stale_from, stale_to; /* bytes, `to` excluded */
  struct {
    uint64_t epoch, n; /* as the latest of them says: notices.h */
  } stale_of;
  uint64_t fetching; /* bytes being fetched of it, for this one */
  struct request *throttled, *last_throttled; /* a queue, by next_queued */
};

/* The session's subscription of that number, or to that image; NULL: it has
 * none, or may not read the image any more. */
struct subscription *subscription_find(struct session *s, uint32_t number);
struct subscription *subscription_find_image(struct session *s,
                                             const struct served_image *h);

/* The same of this image, or a new one.  NULL: no memory. */
struct subscription *subscription_add(struct session *s,
                                      struct service_image *image);

/* Whether its peer may read the image, as of now: asks the rule where that may
 * not be so any more.  Of one that has ended it says nothing. */
bool subscription_is_allowed(struct subscription *sub);

/* Settles the connections of all subscribers of an image, which may end some of
 * them: none of the list but those that are left may be used after that. */
void subscription_settle_all(struct subscription_list *subscribers);

/* Whether the peer needs no Changed to know the image's epoch. */
static inline bool subscription_knows(const struct subscription *sub,
                                      uint64_t epoch) {
  return sub->attached || sub->epoch == epoch;
}

/* The peer goes on by the socket, and needs notices again, from the start. */
void subscription_detach(struct subscription *sub);

/* One more of its requests waits, or one less: it may be gone after the
 * second. */
void subscription_hold(struct subscription *sub);
void subscription_release(struct subscription *sub);

/* Ends one, or all of a session, whose requests are gone. */
void subscription_end(struct subscription *sub);
void subscription_end_all(struct session *s);

#endif
