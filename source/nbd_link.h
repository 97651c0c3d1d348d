/* A link: one connection to an NBD server, on an event base, and the reads that
 * are in progress on it.
 *
 *   L1  Nothing writes the buffer of a read after its done().  libnbd may write
 *       it until it has reported the read as complete, or its handle is closed.
 *   L2  A read succeeds only if each of its bytes arrived exactly once.  libnbd
 *       itself only counts bytes.  The read is zeros if all of them arrived as
 *       holes.
 *   L3  Only the base calls done() and lost(), never nbd_link_read().  In
 *       done(), more reads may begin, but the link must not be ended.
 *
 * A link has no clock.  A read that takes too long is ended with all others,
 * with nbd_link_end(), because of L1.
 *
 * Only the thread of the base may use a link. */
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

/* A read.  Zeroed, except for the first four fields, which the caller sets. */
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

/* The calls to the owner of the link. */
struct nbd_link_calls {
  /* Called once, as the last call for the link, when the connection is lost:
   * its reads have ended with `status`, and `fault` has the reason.  The owner
   * may free the link there. */
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

/* Makes a link of a handle that is ready for requests, and takes ownership of
 * it, also on failure. 0, or a negative errno with l->fault set: -EPROTO, the
 * server's description of the export is invalid. */
int nbd_link_init(struct nbd_link *l, struct event_base *base,
                  struct nbd_handle *h, const struct nbd_link_calls *calls);

/* Begins a read within the size, on a link that was not lost. */
void nbd_link_read(struct nbd_link *l, struct nbd_read *r);

/* Whether a question which ranges are zeros is useful: the server may know, and
 * no question is in progress. */
bool nbd_link_may_ask(const struct nbd_link *l);

/* Asks which ranges from `offset` on, which is within the size, are zeros.  The
 * result affects no read. */
void nbd_link_ask(struct nbd_link *l, uint64_t offset);

/* Ends the link: its reads end with `status`, and lost() is not called.  Does
 * nothing after the link was lost. */
void nbd_link_end(struct nbd_link *l, int status);

#ifdef __cplusplus
}
#endif

#endif
