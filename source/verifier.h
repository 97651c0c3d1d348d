/* The verifier: the code of verified sources, which is in a module
 * (base/module.h), because it needs a library of hashes.  See source/verified.h
 * and source/hashing.h for what the calls do. */
#ifndef SOURCE_VERIFIER_H
#define SOURCE_VERIFIER_H

#include "source/hashing.h"
#include "source/verified.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The content of the module. */
struct verifier {
  int (*open)(const struct verified_options *options, struct source *below,
              struct source **out, struct source_fault *fault);
  int (*open_by_digests)(const struct verified_options *options,
                         struct digests *digests, struct source *below,
                         struct source **out);
  void (*free_digests)(struct digests *d);
  int (*hashing_begin)(struct source *below,
                       const uint8_t expected[DIGESTS_LEN],
                       void (*ended)(void *arg), void *arg,
                       struct hashing **out);
  enum hashing_state (*hashing_state)(struct hashing *h);
  int (*hashing_status)(const struct hashing *h);
  struct source *(*hashing_source)(const struct hashing *h);
  void (*hashing_take)(struct hashing *h, struct source **below,
                       struct digests **digests);
  void (*hashing_end)(struct hashing *h);
};

/* Finds the verifier, and loads its module if necessary.  NULL, with `fault`
 * set.  Any thread that may wait. */
const struct verifier *verifier_find(struct source_fault *fault);

#ifdef __cplusplus
}
#endif

#endif
