/* What the command asks a daemon beyond the public library: its images, its
 * counters, and to load something into its cache.  Not exported. */
#ifndef CLIENT_REMOTE_ADMIN_H
#define CLIENT_REMOTE_ADMIN_H

#include <cachet/cachet.h>

#include "client/options.h"
#include "client/uri.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A connection about no image in particular. */
struct admin;

enum cachet_status admin_open(const struct uri *u,
                              const struct options *options, struct admin **out,
                              struct cachet_error *err);
void admin_close(struct admin *a);

struct admin_image {
  const char *name;
  uint64_t size, epoch;
  uint32_t page_size;
  bool missing; /* the daemon cannot open it now */
};

/* Calls `fn` for each image. */
enum cachet_status admin_list(struct admin *a,
                              void (*fn)(void *arg,
                                         const struct admin_image *image),
                              void *arg, struct cachet_error *err);

/* Calls `fn` for each counter: of the daemon, with `image` NULL, then of each
 * image. */
enum cachet_status admin_stats(struct admin *a,
                               void (*fn)(void *arg, const char *image,
                                          const char *name, uint64_t value),
                               void *arg, struct cachet_error *err);

/* Has the daemon load a range, within the size, into its cache, and waits for
 * it.  CACHET_E_UNSUPPORTED for a handle without a daemon. */
enum cachet_status admin_warm(cachet *c, uint64_t offset, uint64_t len,
                              struct cachet_error *err);

/* How much one admin_warm() may ask for. */
uint64_t admin_warm_max(const cachet *c);

#ifdef __cplusplus
}
#endif

#endif
