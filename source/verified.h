/* The verified source: another source, of which it returns only verified bytes.
 * It verifies them with a hash tree (source/verity.h), or with the hashes of
 * blocks that were read before (source/digests.h).
 *
 * It extends a read to whole blocks of data.  When they have arrived, it hashes
 * them, reads the parts of the tree that it needs, and compares the hashes.  If
 * a block does not match, the read ends with -EBADMSG and returns nothing of
 * it.
 *
 * Over a source that blocks, it blocks, and reads a block that does not match
 * once more.  Over a source that calls back, it calls back and makes one
 * attempt, as that source does, so it belongs below the retrying source
 * (source/retrying.h).  It hashes on the thread that called it back.
 *
 * A successor is verified with the same hashes.  So a content that changed does
 * not match, whatever the source says. */
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

  /* The source of the tree, whose superblock is at byte `tree_offset`.  It may
   * block only if the source of the data does.  The verified source takes
   * ownership of it.  NULL: the tree is in the image itself, after its data,
   * and only the data is served. */
  struct source *tree;
  uint64_t tree_offset;

  /* Called for bytes that did not match, on the thread that noticed it, which
   * must not wait.  May be NULL. */
  void (*corrupt)(const char *name, uint64_t offset, uint64_t len);
};

/* Makes a verified source over `below`.  It reads the superblock of the tree,
 * and waits for it.  It takes ownership of `tree` in any case, and of `below`
 * if it returns 0.  Otherwise it returns a negative errno with `fault` set:
 * -EBADMSG if the tree is not one of an image of this size. */
int verified_source_open(const struct verified_options *options,
                         struct source *below, struct source **out,
                         struct source_fault *fault);

/* Makes a verified source over `below`, whose blocks have the hashes `digests`,
 * and whose whole content has the hash `root`.  The options have no tree. 0,
 * and it takes ownership of `below` and `digests`; or -ENOMEM. */
int verified_source_by_digests(const struct verified_options *options,
                               struct digests *digests, struct source *below,
                               struct source **out);

#ifdef __cplusplus
}
#endif

#endif
