/* protocol: what the load generator says to the servers that it compares.
 *
 * A protocol knows how a connection begins, how a read is asked for, and where
 * in the answer the bytes are.  It neither reads nor writes once a connection
 * has begun, and keeps no state beyond struct protocol_conn: so what the
 * generator itself costs differs by a few dozen instructions a read from one
 * protocol to the next. */
#ifndef TESTS_BENCH_PROTOCOL_H
#define TESTS_BENCH_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room that every request fits into. */
enum { PROTOCOL_MAX_REQUEST = 192 };

/* An answer's header is incomplete at most up to here. */
enum { PROTOCOL_MAX_HEADER = 1024 };

struct protocol_conn {
  int fd;
  uint32_t image; /* how a cachetd names the image on this connection */
  uint32_t len;   /* of the reads that are under way */
};

/* A piece of an answer: `payload` bytes of the image follow its header, then
 * `trailer` bytes of no interest. */
struct answer {
  uint64_t payload;
  uint32_t trailer;
  uint32_t tag; /* of the request; answers that come in order have none */
  bool last;    /* it completes the read */
};

struct protocol {
  bool in_order; /* answers come in the order of the requests */

  /* Says what comes before the first read, on a socket that blocks. */
  void (*begin)(struct protocol_conn *c);

  /* Writes the request for `len` bytes at `offset`.  Returns its length. */
  size_t (*request)(const struct protocol_conn *c, uint32_t tag,
                    uint64_t offset, uint32_t len, uint8_t *out);

  /* Reads the header at `in`.  Returns its length; 0: it is not all there.
   * What is no answer ends the program. */
  size_t (*answer)(const struct protocol_conn *c, const uint8_t *in, size_t len,
                   struct answer *out);
};

extern const struct protocol protocol_cachet;
extern const struct protocol protocol_bare;
extern const struct protocol protocol_memcached; /* keys: see protocol_store */
extern const struct protocol protocol_redis;
extern const struct protocol protocol_nbd;
extern const struct protocol protocol_http; /* the image is "/image" */

/* Stores the file's pages in a memcached or a redis, under their numbers. */
void protocol_store_memcached(int fd, const uint8_t *pages, uint64_t n_pages);
void protocol_store_redis(int fd, const uint8_t *pages, uint64_t n_pages);

/* A counter of a cachetd, on a connection that has begun. */
uint64_t protocol_cachet_counter(int fd, const char *name);

/* Has a cachetd load some bytes of the image, and waits for it. */
void protocol_cachet_warm(const struct protocol_conn *c, uint64_t offset,
                          uint64_t len);

/* All of it, or the end of the program. */
void protocol_send(int fd, const void *bytes, size_t len);
void protocol_receive(int fd, void *bytes, size_t len);

#endif
