/* Steps of a request (daemon/serve/read.h) without a socket: one image over a
 * source of the test's, and one peer, with one request at a time.  The test
 * does between two steps what request.c would do.  In C, as the structs that it
 * embeds hold atomics. */
#ifndef TESTS_SUPPORT_STEP_RIG_H
#define TESTS_SUPPORT_STEP_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cache/source.h"
#include "daemon/serve/read_plan.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { STEP_RIG_PAGE_SHIFT = 12 };

enum step_rig_kind {
  STEP_RIG_READ,
  STEP_RIG_READ_IN_PLACE,
  STEP_RIG_WARM,
  STEP_RIG_ATTACH,
};

/* What a step said, by the names of its enums without their prefix. */
struct rig_step {
  const char *outcome;
  const char *answer;          /* NULL: none, by the outcome */
  uint64_t missing, n_missing; /* MISS: pages */
  uint64_t epoch;              /* DATA and FINISHED */
  uint64_t offset, len;        /* DATA: bytes of payload, */
  uint64_t resident;           /* or that the peer has */
  bool last;
  const struct iovec *segments; /* until the next step */
  unsigned n_segments;
  int status; /* REFUSED */
  const char *text;
};

struct step_rig;

/* Owns `src` from here on.  What is missing is read by the calling thread. */
struct step_rig *step_rig_new(struct source *src);
void step_rig_free(struct step_rig *rig);

/* Whether the peer is attached; else it needs to be told of epochs. */
void step_rig_attach(struct step_rig *rig, bool attached);

/* The image is removed. */
void step_rig_remove(struct step_rig *rig);

/* As many bytes of payload go into a batch before it is full. */
void step_rig_set_batch_len(struct step_rig *rig, uint32_t len);

/* A piece has at most as many bytes of payload. */
void step_rig_set_piece_len(struct step_rig *rig, uint32_t len);

/* The peer asks for something; `ranges` stay until the next call. */
void step_rig_ask(struct step_rig *rig, enum step_rig_kind kind,
                  const struct range *ranges, unsigned n_ranges);

/* The next step, whose data is then in the batch; `most` as in read.h. */
struct rig_step step_rig_step(struct step_rig *rig, size_t most);

/* What is due after a step, or between two. */
void step_rig_send(struct step_rig *rig);  /* the batch is empty again */
void step_rig_fetch(struct step_rig *rig); /* what is missing */
void step_rig_enter_epoch(struct step_rig *rig);

/* Has a mirror of another epoch; drops pages. */
void step_rig_renew(struct step_rig *rig);
void step_rig_invalidate(struct step_rig *rig, uint64_t first, uint64_t n);

uint64_t step_rig_epoch(struct step_rig *rig); /* the image's */
unsigned step_rig_n_pins(const struct step_rig *rig);
bool step_rig_has_fetch(const struct step_rig *rig);
uint64_t step_rig_hits(const struct step_rig *rig);
uint64_t step_rig_misses(const struct step_rig *rig);

#ifdef __cplusplus
}
#endif

#endif
