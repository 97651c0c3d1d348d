/* A link: one connection to an NBD server that takes requests, on an event
 * base, and the reads that are under way on it.
 *
 *   L1  Nothing writes the buffer of a read after its done(): libnbd may do so
 *       until it has said that the read is complete, or its handle is closed.
 *   L2  A read is good only if each of its bytes came, and came once.  libnbd
 *       itself counts bytes at most.  It is zeros if all came as holes.
 *   L3  done() and lost() are called from the base alone: not from within
 *       nbd_link_read().  In done() more reads may begin; nothing ends the link
 *       there.
 *
 * A link has no clock.  A read that takes too long is ended with all others, by
 * nbd_link_end(): L1 leaves nothing else.
 *
 * The thread of the base only. */
#ifndef SOURCE_NBD_LINK_H
#define SOURCE_NBD_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "source/coverage.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

struct nbd_handle;
struct nbd_link;

/* A read.  All zeros but for the first four, which the caller sets. */
struct nbd_read {
  uint64_t offset;
  void *buf;
  size_t len;
  /* Called once.  The struct is the caller's again. */
  void (*done)(struct nbd_read *r);
  int status; /* for done(): 0, SOURCE_ZEROS, or one of source/remote.h */

  /* The link's.  A server may take no more than so much at once, and only
   * aligned: so it is asked for piece by piece. */
  struct nbd_link *link;
  size_t n_done;        /* bytes of pieces that are complete */
  uint64_t begin, end;  /* the piece that was asked for */
  void *aligned;        /* what it is read into, if not into `buf` */
  struct coverage seen; /* of the piece */
  bool has_data;        /* not all that has come are holes */
  int error;            /* libnbd's, of the piece */
  TAILQ_ENTRY(nbd_read) entry;
};
TAILQ_HEAD(nbd_reads, nbd_read);

/* What its owner is told. */
struct nbd_link_calls {
  /* Called once, as the last thing that happens on the link, when it is lost:
   * its reads have ended with `status`, and `fault` says why.  It may be freed
   * there. */
  void (*lost)(struct nbd_link *l);

  /* Called for each range of which the server says, when it was asked, whether
   * it reads as zeros.  It may not use the link. */
  void (*told)(struct nbd_link *l, uint64_t begin, uint64_t end, bool is_zero);
};

/* A question which ranges are zeros. */
struct nbd_question {
  bool is_asked;
  uint64_t begin, end;
  uint64_t at;  /* up to here it is answered */
  bool is_lost; /* the connection was, before it was answered */
};

struct nbd_link {
  const struct nbd_link_calls *calls;
  int status;
  struct source_fault fault;

  unsigned n_reads; /* under way */

  /* The link's. */
  struct nbd_handle *h; /* NULL: it has ended */
  uint64_t size;
  uint32_t block_size, max_size; /* of a piece: multiples, and at most */
  bool has_answers;  /* the server tells of zeros, as far as is known */
  unsigned patience; /* with answers that say little */
  struct nbd_question question;
  int fd; /* the connection's, and ours: libnbd closes its own where a number
             that is watched might become another's */
  struct event socket, settle;
  short watched;
  struct nbd_reads asked, answered;
};

/* Makes a link of a handle that takes requests, which it owns also on failure.
 * 0, or a negative errno with l->fault set: -EPROTO, what it says of itself
 * cannot be. */
int nbd_link_init(struct nbd_link *l, struct event_base *base,
                  struct nbd_handle *h, const struct nbd_link_calls *calls);

/* Begins a read, which is within the size, on a link that was not lost. */
void nbd_link_read(struct nbd_link *l, struct nbd_read *r);

/* Whether it is of use to ask which ranges are zeros: the server may know, and
 * no question is under way. */
bool nbd_link_may_ask(const struct nbd_link *l);

/* Asks for what begins at `offset`, which is within the size, and what follows.
 * Whatever comes of it, no read is concerned. */
void nbd_link_ask(struct nbd_link *l, uint64_t offset);

/* Ends the link: its reads end with `status`, and lost() is not called.  Once
 * it was lost, this does nothing. */
void nbd_link_end(struct nbd_link *l, int status);

#ifdef __cplusplus
}
#endif

#endif
