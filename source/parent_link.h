/* A link: a connection to one parent that has the image open there, and the
 * reads that are under way on it.
 *
 *     DOWN --parent_link_raise()--> DIALING --> CONNECTING --> UP
 *       ^------------------------------'------------'----------'
 *
 *   L1  Nothing writes the buffer of a read after its done(), or after it was
 *       forgotten.
 *   L2  A read is good only if each of its bytes came, of the epoch that was
 *       asked for.  It ends before what the parent says behind it is told: so
 *       what a notice is about, and was asked for before, has ended before
 *       invalid(), or is asked for again.
 *   L3  The calls that a link makes come from the reactor alone, and never from
 *       within a call of this header, but for done() in parent_link_end().
 *       From none of them, but turned(), is a function of this header called.
 *
 * What a parent sends is hostile: client/remote/connection.h checks frames, and
 * the link what is in them.
 *
 * The reactor's thread only. */
#ifndef SOURCE_PARENT_LINK_H
#define SOURCE_PARENT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event_struct.h>

#include "client/remote/connection.h"
#include "source/parent_target.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct parent_ask;
struct parent_dial;
struct parent_link;
struct reactor;

/* A read.  All zeros but for the first four, which the caller sets. */
struct parent_read {
  uint64_t offset;
  void *buf;
  size_t len;
  /* Called once, unless it is forgotten.  The struct is the caller's again. */
  void (*done)(struct parent_read *r);
  int status; /* for done(): 0 or a negative errno: source/remote.h */

  /* The link's. */
  struct parent_ask *ask; /* on its way; NULL: it is to be asked (again) */
  size_t n_done;          /* bytes of pieces that are complete */
  bool is_doubtful; /* some of it was invalidated since it was asked for */
  TAILQ_ENTRY(parent_read) entry;
};
TAILQ_HEAD(parent_reads, parent_read);
TAILQ_HEAD(parent_asks, parent_ask);

enum parent_link_state {
  PARENT_LINK_DOWN,
  PARENT_LINK_DIALING,
  PARENT_LINK_CONNECTING,
  PARENT_LINK_UP,
};

struct parent_link_calls {
  /* It is UP: `image` is what the parent says of it. */
  void (*up)(struct parent_link *l);
  /* It is DOWN, and all of its reads have ended: `status` and `fault` say why.
   */
  void (*down)(struct parent_link *l);
  /* The image has another epoch there: `image`. */
  void (*changed)(struct parent_link *l);
  /* Bytes of the range that were read before may be of another content. */
  void (*invalid)(struct parent_link *l, uint64_t offset, uint64_t len);
  /* An answer came, to a read that may be forgotten, after so long. */
  void (*answered)(struct parent_link *l, uint64_t took_ms);
  /* All that has come was taken in: reads may begin. */
  void (*turned)(struct parent_link *l);
};

struct parent_link {
  const struct parent_link_calls *calls;
  enum parent_link_state state;
  struct connection_image image; /* as was heard last, if it was ever UP */
  int status;
  struct source_fault fault;

  /* The link's. */
  struct reactor *reactor;
  struct parent_target *target; /* the owner's */
  unsigned i;
  struct parent_dial *dial;
  struct connection *connection; /* the last one; NULL: there was none */
  struct event socket, timer;
  int fd; /* that is watched; -1: none */
  short events;
  struct parent_asks asks;   /* on their way, by age */
  struct parent_reads again; /* to be asked at the end of the turn */
  unsigned n_asks;
  uint64_t n_heard;            /* pieces of answers, and notices */
  struct parent_ask *incoming; /* whose payload is coming in */
  uint32_t incoming_len;
  bool incoming_last;
};

/* A link to number `i` of the target, which outlives it.  DOWN. */
void parent_link_init(struct parent_link *l, struct reactor *reactor,
                      struct parent_target *target, unsigned i,
                      const struct parent_link_calls *calls);

/* No read is under way.  Calls nothing. */
void parent_link_fini(struct parent_link *l);

/* Has it be UP some time, or DOWN again; unless it is or is on its way there.
 * 0 or a negative errno: it is DOWN as before. */
int parent_link_raise(struct parent_link *l);

/* Whether it takes one more read.  UP only. */
bool parent_link_has_room(const struct parent_link *l);

/* Begins a read, which is within the size.  There is room. */
void parent_link_read(struct parent_link *l, struct parent_read *r);

/* Whether some of its answer has come. */
bool parent_link_has_begun(const struct parent_read *r);

/* Forgets a read that is under way: its answer goes nowhere, and done() is not
 * called.  False: that cannot be, as its bytes are just coming in. */
bool parent_link_forget(struct parent_link *l, struct parent_read *r);

/* Whether nothing at all has come since the read was asked for. */
bool parent_link_is_silent(const struct parent_link *l,
                           const struct parent_read *r);

/* Ends it, if it is UP: its reads end with `status`, and then it is DOWN. */
void parent_link_end(struct parent_link *l, int status);

#ifdef __cplusplus
}
#endif

#endif
