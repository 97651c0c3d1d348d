#include "source/module.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"

#define SYMBOL "cachetd_source_module"

__attribute__((format(printf, 2, 3))) static void *
refuse(struct source_fault *fault, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(fault->text, sizeof fault->text, format, args);
  va_end(args);
  return NULL;
}

/* Modules lie in ../lib/cachetd, as seen from the program, wherever that was
 * installed.  No variable says so, nor does a working directory.  False: the
 * path is not known. */
static bool find_path(const char *module, char path[PATH_MAX]) {
  char program[PATH_MAX / 2];
  ssize_t n = readlink("/proc/self/exe", program, sizeof program);
  if (n < 0 || (size_t)n == sizeof program)
    return false;
  program[n] = '\0';
  char *slash = strrchr(program, '/');
  if (!slash)
    return false;
  *slash = '\0';
  return snprintf(path, PATH_MAX, "%s/../lib/cachetd/source-%s.so", program,
                  module) < PATH_MAX;
}

static const struct source_module *load(const char *path, const char *kind,
                                        struct source_fault *fault) {
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  const struct source_module *m = object ? dlsym(object, SYMBOL) : NULL;
  if (!m) {
    const char *reason = dlerror();
    return refuse(fault, "%s: load its module: %s", kind,
                  reason ? reason : SYMBOL " is not there");
  }
  if (strcmp(m->version, CACHETD_VERSION) != 0)
    return refuse(fault,
                  "%s: its module is of version %.20s, the program of %s; "
                  "install both of one version, and start it anew",
                  kind, m->version, CACHETD_VERSION);
  return m;
}

const struct source_kind *module_load_kind(const char *module, const char *kind,
                                           const char *package,
                                           struct source_fault *fault) {
  char path[PATH_MAX];
  if (!find_path(module, path))
    return refuse(fault, "%s: the path of this program is not known", kind);
  if (access(path, F_OK) < 0)
    return refuse(fault, "%s: it is not installed; install the package %s",
                  kind, package);
  const struct source_module *m = load(path, kind, fault);
  for (const struct source_kind *const *k = m ? m->kinds : NULL; k && *k; k++)
    if (strcmp((*k)->name, kind) == 0)
      return *k;
  return m ? refuse(fault, "%s: its module does not have it", kind) : NULL;
}
