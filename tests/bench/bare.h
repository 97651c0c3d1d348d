/* bare: what the bare server (bare.c) and its client say.  Requests and the
 * headers of answers have the lengths of cachetd's; both are the machine's own
 * byte order. */
#ifndef TESTS_BENCH_BARE_H
#define TESTS_BENCH_BARE_H

#include <stdint.h>

/* 24 bytes; a cachetd's Read of one page has 22 to 26. */
struct bare_request {
  uint64_t offset;
  uint32_t len;
  uint32_t tag;
  uint64_t unused;
};

/* 32 bytes; the header and Message of a cachetd's Data have 28 to 34. */
struct bare_answer {
  uint32_t tag;
  uint32_t len;
  uint64_t unused[3];
};

#endif
