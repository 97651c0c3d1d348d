/* Replies: answers and notices, from what they say to a frame in the output.
 *
 * Each adds one frame; if there is no room it flushes first, but for those that
 * say that there is room.
 *
 * The connection's thread only. */
#ifndef DAEMON_SERVE_REPLY_H
#define DAEMON_SERVE_REPLY_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/net/connection.h"
#include "daemon/serve/attachment.h"
#include "daemon/serve/context.h"

/* `number` is what the connection knows an image by, see subscription.h. */

void reply_welcome(struct connection *c, uint64_t id,
                   const struct server_context *context);

/* Images in one answer to List: with room to spare in a Message of
 * FRAME_MAX_MESSAGE bytes. */
enum { REPLY_MAX_LISTED = 512 };

/* What is listed, beside the images of the table. */
struct reply_listing {
  const char *after;              /* those behind this name */
  const struct found_name *names; /* that can be found (finder.h), by name: the
                                     first REPLY_MAX_LISTED, or all */
  unsigned n_names;
  uint32_t page_size; /* of them */
  /* The number of an image; 0: the peer has not opened it. */
  uint32_t (*number_of)(struct connection *c, const struct served_image *h);
};

/* The next part of the images that the peer may read, by name. */
void reply_images(struct connection *c, uint64_t id, struct images *images,
                  const struct reply_listing *listing);

/* Likewise, and the daemon's in the first part, if the peer may see them. */
void reply_stats(struct connection *c, uint64_t id,
                 struct server_context *context, const char *after);

void reply_opened(struct connection *c, uint64_t id, uint32_t number,
                  const struct served_image *h, const struct mirror *m);
void reply_attached(struct connection *c, uint64_t id, uint32_t number,
                    const struct served_image *h, const struct mirror *m,
                    const struct attachment_grant *grant);
void reply_grown(struct connection *c, uint64_t id,
                 const struct shared_pins_size *size);
void reply_done(struct connection *c, uint64_t id, uint64_t epoch);

/* A piece of the answer to a Read.  There is room, for the payload too. */
struct reply_data {
  uint64_t epoch;
  uint32_t range;
  uint64_t offset;
  size_t len;        /* bytes of payload, which the caller adds; or */
  uint64_t resident; /* bytes that the peer has */
  bool last;
};
void reply_data(struct connection *c, uint64_t id,
                const struct reply_data *piece);

/* Notices. */
void reply_changed(struct connection *c, uint32_t number,
                   const struct served_image *h, const struct mirror *m);

struct reply_invalidation {
  uint64_t from, to;          /* bytes */
  uint64_t epoch, n_of_epoch; /* as in struct notice */
};
void reply_invalidated(struct connection *c, uint32_t number,
                       const struct reply_invalidation *what);

#endif
