/* What a source behind other daemons reads: an image, by the addresses of those
 * that serve it.
 *
 *   cachet://HOST[:PORT]/IMAGE             TCP, port 10819
 *   cachets://HOST[:PORT]/IMAGE            TCP with TLS, port 10820
 *   cachet+unix:///IMAGE?socket=PATH       a Unix socket
 *
 * A URI is what the client library takes (client/uri.h), but for a window,
 * which is the image's. */
#ifndef SOURCE_PARENT_TARGET_H
#define SOURCE_PARENT_TARGET_H

#include "client/uri.h"
#include "source/remote.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PARENT_TARGET_MAX = 16 };

/* Fixed once it is made, and counted. */
struct parent_target {
  unsigned n_refs; /* atomic */
  unsigned n;
  int timeout_ms; /* of one attempt: to connect, and of each read */
  struct uri uris[PARENT_TARGET_MAX];
};

/* 0; -ENOMEM; or -EINVAL with `fault` set.  Opens nothing. */
int parent_target_new(const struct source_uri *uri, struct parent_target **out,
                      struct source_fault *fault);

struct parent_target *parent_target_ref(struct parent_target *t);
void parent_target_unref(struct parent_target *t); /* NULL is fine */

#ifdef __cplusplus
}
#endif

#endif
