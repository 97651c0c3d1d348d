/* What callers hand in as structs that may grow: struct cachet_options and
 * struct cachet_source.
 *
 * `struct_size` says how large the struct was where the caller was compiled.
 * A smaller one is an older caller: what it lacks is 0.  A larger one is a
 * newer caller: what we do not know must be 0, or it would ask for something
 * that does not happen. */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <cachet/cachet.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Checked, with the defaults filled in. */
struct options {
  uint32_t flags;
  unsigned page_shift;  /* of what is kept, in process */
  unsigned asked_shift; /* the pages that a caller sees are no larger */
  uint64_t cache_size;
  int connect_timeout_ms; /* -1: none */
  int request_timeout_ms; /* -1: none */
};

/* `given` may be NULL: all defaults. */
enum cachet_status options_read(const struct cachet_options *given,
                                struct options *out, struct cachet_error *err);

enum cachet_status options_read_source(const struct cachet_source *given,
                                       struct cachet_source *out,
                                       struct cachet_error *err);

#ifdef __cplusplus
}
#endif

#endif
