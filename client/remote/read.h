/* Reads: which pages are asked for, whether the answer fits, and what becomes
 * of its bytes.
 *
 *   R3  Each piece of an answer has to be the next one of what was asked for;
 *       whatever else comes ends the connection, and what was sent fails.
 *   R5  Bytes are installed only if their pages were not invalidated since
 *       they were asked for.  A reader joins a Read that was sent before, or
 *       takes it out of the store (readahead.h), only if none of its pages was
 *       invalidated since.
 *
 * A Read's pages lie in `bytes` in the order of its ranges; `place` says which
 * is where, and NO_PLACE which are not there: they were resident when it was
 * made, or are so in the daemon's memory. */
#ifndef CLIENT_REMOTE_READ_H
#define CLIENT_REMOTE_READ_H

#include "client/remote/pending.h"
#include "client/remote/transit.h"

#ifdef __cplusplus
extern "C" {
#endif

struct remote_read {
  struct pending base; /* first; its job is of pages `first` to the last */

  /* What is asked for. */
  struct {
    uint64_t offset, len;
  } ranges[FETCH_MAX_PAGES];
  uint32_t n_ranges;
  uint8_t place[FETCH_MAX_PAGES]; /* of each page in `bytes`, in pages */
  uint32_t n_pages;

  /* When it was sent. */
  uint64_t epoch;
  uint64_t mark; /* of the mirror */
  bool in_place;
  struct transit transit;

  /* How far the answer has come. */
  uint8_t *bytes; /* room for n_pages whole pages; NULL: not needed as yet */
  uint32_t at_range;
  uint64_t at_offset; /* into that range */
  uint64_t received;  /* bytes */
  bool is_changed;    /* a piece was of another epoch */
  bool is_partial; /* it failed, and what `place` names is here all the same */

  uint64_t stay_from, stay_count; /* pages of it that go into the cache */

  /* Takes it over when it has ended without an owner; false: it does not. NULL:
   * nobody does. */
  bool (*keep)(struct remote *r, struct remote_read *x);
  int64_t kept_at; /* in store: since when */
  TAILQ_ENTRY(remote_read) stored;
};

#define NO_PLACE UINT8_MAX

/* A Read of those pages that are not resident, not queued yet; all of them
 * when the mirror cannot be believed.  NULL: no memory. */
struct remote_read *remote_read_new(struct remote *r, struct mirror *m,
                                    uint64_t first, uint32_t count);

/* Queues such a Read that nobody waits for, see R2, if a page is not resident;
 * what comes is given to `keep`, unless that is NULL.  How many of the pages
 * are asked for or resident, as many as one Read may name; 0: no memory. */
uint32_t remote_read_unowned(struct remote *r, struct mirror *m, uint64_t first,
                             uint32_t count,
                             bool (*keep)(struct remote *r,
                                          struct remote_read *x));

/* One without an owner, which may be done, gets one: nobody else takes it over.
 */
void remote_read_adopt(struct remote *r, struct remote_read *x,
                       void (*done)(struct backend_job *), void *owner);

/* A Read without an owner that is bringing `page` already, a prefetch mostly,
 * and of whose pages none was invalidated since it was sent: what it brings may
 * be older than that.  NULL: there is none. */
struct remote_read *remote_read_underway(const struct remote *r,
                                         const struct mirror *m, uint64_t page);

/* Whether it brings a page of that mirror, or has. */
bool remote_read_brings(const struct remote_read *x, const struct mirror *m,
                        uint64_t page);

/* Whether none of its pages was invalidated since it was sent: a call that
 * takes it over may use bytes of any of them. */
bool remote_read_is_fresh(const struct remote_read *x);

/* How many bytes of all Reads that were sent have not come yet. */
uint64_t remote_read_due(const struct remote *r);

/* Of what it brings, as if each page of it were whole. */
static inline size_t remote_read_len(const struct remote_read *x) {
  return (size_t)x->n_pages << x->base.job.mirror->page_shift;
}

/* Puts what came into the cache, as far as it is to stay there.  What cannot is
 * with the job. */
void remote_read_install(const struct remote_read *x);

/* bytes() of struct backend_ops. */
const uint8_t *remote_read_bytes(const struct backend_job *j, uint64_t page);

/* A piece of the answer of `x` is coming in, which is a Read if the daemon
 * keeps to the protocol: sets where its payload goes. */
void remote_read_data(struct remote *r, struct pending *x,
                      const Cachet__Wire__Data *d, uint32_t len,
                      uint8_t **payload);

/* That piece is here: payload() of struct connection_owner, of a struct remote.
 */
void remote_read_payload(void *arg);

#ifdef __cplusplus
}
#endif

#endif
