/* The source of the hash tree of a verified image.  The tree is in the image
 * itself, in the source that the configuration names, or by default beside the
 * image, under its name with ".verity" appended.
 *
 *   T1  A tree whose source is of the image's kind has the image's options.  So
 *       one set of credentials opens both.
 *   T2  If the configuration names no source of the tree, the daemon looks for
 *       the tree beside the image at each further parent as well.  If it names
 *       one, the daemon reads the tree from that source alone. */
#ifndef DAEMON_CONFIG_TREE_H
#define DAEMON_CONFIG_TREE_H

#include "daemon/config_image.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The source of a tree. */
struct config_tree {
  const struct source_kind *kind; /* NULL: it is a file */
  struct source_uri uri;
  /* What `uri` points to. */
  char *text, *parents;
  struct source_option *options;
};

/* 0 or -ENOMEM; config_tree_fini() is due in any case. */
int config_tree_init(struct config_tree *tree,
                     const struct config_image *image);
void config_tree_fini(struct config_tree *tree);

/* The source of the hash tree, which is not in the image itself: a path, or a
 * URI of `*kind`, in memory from malloc(3).  NULL: out of memory. */
char *config_tree_source(const struct config_image *image,
                         const struct source_kind **kind);

#ifdef __cplusplus
}
#endif

#endif
