#include "source/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
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

/* The directory of the program, which may have been replaced meanwhile.  One
 * that has more rights than its user may lie where that one has put a link
 * to it. */
static int find_program(char directory[PATH_MAX]) {
  ssize_t n = readlink("/proc/self/exe", directory, PATH_MAX - 1);
  if (getauxval(AT_SECURE))
    return -EPERM;
  if (n < 0)
    return -errno;
  directory[n] = '\0';
  return 0;
}

/* Where modules may lie, as seen from the file that this code is in, a program
 * or a library: so they are found wherever that was installed.  No variable
 * says so, nor does a working directory. */
static const char *const from_program[] = {"../lib/cachetd", NULL};
/* Libraries are in lib, or in a directory of it for each kind of machine. */
static const char *const from_library[] = {"cachetd", "../cachetd", NULL};

static int find_self(char file[PATH_MAX], const char *const **modules) {
  Dl_info info;
  struct link_map *object;
  if (!dladdr1((void *)find_self, &info, (void **)&object, RTLD_DL_LINKMAP))
    return -ENOEXEC;
  *modules = *object->l_name ? from_library : from_program;
  if (!*object->l_name)
    return find_program(file);
  return realpath(object->l_name, file) ? 0 : -errno;
}

/* -ENOENT: it is in none of those places. */
static int find_path(const char *module, char path[PATH_MAX]) {
  char self[PATH_MAX];
  const char *const *places;
  int r = find_self(self, &places);
  char *slash = r < 0 ? NULL : strrchr(self, '/');
  if (!slash)
    return r < 0 && r != -ENOENT ? r : -ENOTDIR;
  *slash = '\0';
  for (; *places; places++) {
    if (snprintf(path, PATH_MAX, "%s/%s/source-%s.so", self, *places, module) >=
        PATH_MAX)
      return -ENAMETOOLONG;
    if (access(path, F_OK) == 0)
      return 0;
  }
  return -ENOENT;
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
  int r = find_path(module, path);
  if (r == -ENOENT)
    return refuse(fault, "%s: it is not installed; install the package %s",
                  kind, package);
  if (r < 0)
    return refuse(fault, "%s: find its module: %s", kind, strerror(-r));
  const struct source_module *m = load(path, kind, fault);
  for (const struct source_kind *const *k = m ? m->kinds : NULL; k && *k; k++)
    if (strcmp((*k)->name, kind) == 0)
      return *k;
  return m ? refuse(fault, "%s: its module does not have it", kind) : NULL;
}
