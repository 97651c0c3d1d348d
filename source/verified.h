/* The verified source: another one, of which no byte is handed on that was not
 * proven: by a hash tree (source/verity.h), or by the hashes of its blocks,
 * which were read once already (source/digests.h).
 *
 * A read is widened to whole blocks of data.  When they have come, they are
 * hashed, and compared with the tree, of which what is needed is read as well.
 * One that does not match ends with -EBADMSG, and nothing of it is delivered.
 *
 * Over a source that blocks it blocks, and reads what does not match once more.
 * Over one that calls back it
 * calls back, and makes one attempt, as that does: it belongs below what tries
 * again (source/retrying.h).  It hashes on the thread that called it back.
 *
 * A successor is proven by the same hashes.  So a content that changed does not
 * match, whatever its source says. */
#ifndef SOURCE_VERIFIED_H
#define SOURCE_VERIFIED_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "cache/source.h"
#include "source/digests.h"
#include "source/remote.h"
#include "source/verity.h"

#ifdef __cplusplus
extern "C" {
#endif

struct verified_options {
  const char *name; /* of the image; copied */
  uint8_t root[VERITY_MAX_ROOT];
  size_t root_len;

  /* The tree: its superblock is at byte `tree_offset` of this source, which
   * blocks only if the one that it is for does, and which is taken over.  NULL:
   * it is in the image itself, behind its data, which alone are served. */
  struct source *tree;
  uint64_t tree_offset;

  /* Is told of what did not match, on the thread that saw it, which must not
   * wait.  May be NULL. */
  void (*corrupt)(const char *name, uint64_t offset, uint64_t len);
};

/* A source over `below`; it reads the superblock of the tree, and so it waits
 * for it.  0, and then `below` is its own, as `tree` is in any case; or a
 * negative errno with `fault` set: -EBADMSG if the tree is not one of an image
 * of this size. */
int verified_source_open(const struct verified_options *options,
                         struct source *below, struct source **out,
                         struct source_fault *fault);

/* A source over `below`, whose blocks have those hashes, and which has `root`
 * as a whole.  The options say no tree.  0, and then `below` and `digests` are
 * its own; or -ENOMEM. */
int verified_source_by_digests(const struct verified_options *options,
                               struct digests *digests, struct source *below,
                               struct source **out);

#ifdef __cplusplus
}
#endif

#endif
