/* Structs of callers that may grow: struct cachet_options and struct
 * cachet_source.
 *
 * `struct_size` is the size of the struct when the caller was compiled.  A
 * smaller struct comes from an older caller: the missing fields are 0.  A
 * larger one comes from a newer caller: the unknown fields must be 0, because
 * the library could not do what they request. */
#ifndef CLIENT_OPTIONS_H
#define CLIENT_OPTIONS_H

#include <cachet/cachet.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The options after checking, with the defaults filled in. */
struct options {
  uint32_t flags;
  unsigned page_shift;  /* of cached pages, in this process */
  unsigned asked_shift; /* of the largest pages that the caller sees */
  uint64_t cache_size;
  int connect_timeout_ms; /* -1: none */
  int request_timeout_ms; /* -1: none */
};

/* Reads the options.  `given` may be NULL: all defaults. */
enum cachet_status options_read(const struct cachet_options *given,
                                struct options *out, struct cachet_error *err);

enum cachet_status options_read_source(const struct cachet_source *given,
                                       struct cachet_source *out,
                                       struct cachet_error *err);

#ifdef __cplusplus
}
#endif

#endif
