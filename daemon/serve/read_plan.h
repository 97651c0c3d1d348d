/* A read plan: the ranges of a Read or Warm, cut into pieces.
 *
 *   P1  The pieces of a range follow each other without gap or overlap, and the
 *       ranges do in their order.  An empty range has no piece.
 *   P2  A piece lies in one range.  It is whole pages, but for the ends of the
 *       range, and for those that were shortened.
 *   P3  `left` is the number of bytes that no piece was advanced over yet.
 *   P4  The present range is the first that is not done, so never an empty one.
 *       `range` is n_ranges when all are done.
 *
 * It knows neither images nor connections: what is at hand is for the caller to
 * find out, which may cut a piece before it advances over it. */
#ifndef DAEMON_SERVE_READ_PLAN_H
#define DAEMON_SERVE_READ_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of an image. */
struct range {
  uint64_t offset, length;
};

struct read_plan {
  const struct range *ranges; /* not the plan's */
  unsigned n_ranges;
  unsigned range;      /* the present one */
  uint64_t range_done; /* bytes of it that were advanced over */
  uint64_t left;
  uint64_t counted; /* the present one's pages before this one are in the
                       statistics */
};

/* The part of a range that is dealt with in one go. */
struct piece {
  uint64_t offset; /* bytes, of its beginning and of its end */
  uint64_t end;
  uint64_t first; /* page */
  unsigned count; /* pages, more than none */
  unsigned page_shift;
};

/* The lengths of all ranges together are less than 2^64. */
struct read_plan read_plan_of(const struct range *ranges, unsigned n_ranges);

/* Asserts P3 and P4. */
void read_plan_check(const struct read_plan *plan);

/* Whether what is left lies in an image of `size` bytes.  An empty range does,
 * wherever it is. */
bool read_plan_is_within(const struct read_plan *plan, uint64_t size);

/* The next piece, of `most` pages at most.  What is left lies in an image.
 * False: there is none. */
bool read_plan_next(const struct read_plan *plan, unsigned page_shift,
                    unsigned most, struct piece *p);

/* The piece is done. */
void read_plan_advance(struct read_plan *plan, const struct piece *p);

/* The bytes of the present range that are left; 0: there is none. */
uint64_t read_plan_range_left(const struct read_plan *plan);

/* Whether nothing is left behind a piece, or nothing of its range. */
bool read_plan_ends_with(const struct read_plan *plan, const struct piece *p);
bool read_plan_range_ends_with(const struct read_plan *plan,
                               const struct piece *p);

/* Whether an earlier piece ended within the first page of this one. */
bool read_plan_is_within_page(const struct read_plan *plan,
                              const struct piece *p);

/* How many of the pages first .. first+n-1 of the present range were not
 * counted before; they are now. */
uint64_t read_plan_count(struct read_plan *plan, uint64_t first, unsigned n);

/* Cuts a piece down to its first `n` pages, or `len` bytes.  With no page left
 * it is not to be advanced over. */
void piece_cut(struct piece *p, unsigned n);
void piece_shorten(struct piece *p, size_t len);

#ifdef __cplusplus
}
#endif

#endif
