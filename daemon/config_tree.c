#include "daemon/config_tree.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *config_tree_source(const struct config_image *image,
                         const struct source_kind **kind) {
  const struct config_verity *v = &image->verity;
  const char *beside = image->uri ? image->uri : image->path;
  size_t len = strcspn(beside, image->uri ? "?#" : "");
  char *made;
  if (v->tree_path) {
    *kind = v->tree_kind;
    return strdup(v->tree_uri ? v->tree_uri : v->tree_path);
  }
  *kind = image->kind;
  if (asprintf(&made, "%.*s.verity%s", (int)len, beside, beside + len) < 0)
    return NULL;
  return made;
}

/* The URIs of a list, which spaces or commas separate, with ".verity" behind
 * their paths.  NULL: there is no memory. */
static char *trees_beside(const char *list) {
  static const char separators[] = ", \t";
  char *made = NULL;
  size_t made_len;
  FILE *out = open_memstream(&made, &made_len);
  if (!out)
    return NULL;
  for (list += strspn(list, separators); *list;
       list += strspn(list, separators)) {
    size_t len = strcspn(list, separators), path = strcspn(list, "?#, \t");
    fprintf(out, "%.*s.verity%.*s ", (int)path, list, (int)(len - path),
            list + path);
    list += len;
  }
  bool is_whole = !ferror(out);
  if (fclose(out) == 0 && is_whole)
    return made;
  free(made);
  return NULL;
}

int config_tree_init(struct config_tree *tree,
                     const struct config_image *image) {
  *tree = (struct config_tree){.kind = NULL};
  tree->text = config_tree_source(image, &tree->kind);
  if (!tree->text)
    return -ENOMEM;
  tree->uri.text = tree->text;
  const struct source_uri of_image = config_image_uri(image);
  if (tree->kind != image->kind || !of_image.n_options)
    return 0;
  tree->options = calloc(of_image.n_options, sizeof tree->options[0]);
  if (!tree->options)
    return -ENOMEM;
  for (size_t i = 0; i < of_image.n_options; i++) {
    struct source_option *o = &tree->options[tree->uri.n_options];
    *o = of_image.options[i];
    if (strcmp(o->key, "parents") == 0) {
      if (image->verity.tree_path)
        continue;
      if (!(o->value = tree->parents = trees_beside(o->value)))
        return -ENOMEM;
    }
    tree->uri.n_options++;
  }
  tree->uri.options = tree->options;
  return 0;
}

void config_tree_fini(struct config_tree *tree) {
  free(tree->text);
  free(tree->parents);
  free(tree->options);
}
