#include "source/verifier.h"

#include <stddef.h>

#include "base/module.h"

const struct verifier *verifier_find(struct source_fault *fault) {
  static struct module module = {"source-verified", "cachetd", NULL};
  return module_load(&module, "verification", fault->text, sizeof fault->text);
}
