#include "base/module.h"

#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/version.h"

#define SYMBOL "cachetd_module"

/* Where the reason goes. */
struct reason {
  const char *part;
  char *text;
  size_t len;
};

__attribute__((format(printf, 2, 3))) static void *
refuse(const struct reason *why, const char *format, ...) {
  va_list args;
  int n = snprintf(why->text, why->len, "%s: ", why->part);
  va_start(args, format);
  if (n >= 0 && (size_t)n < why->len)
    vsnprintf(why->text + n, why->len - (size_t)n, format, args);
  va_end(args);
  return NULL;
}

/* ---- Finding ------------------------------------------------------------- */

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
static int find_path(const char *name, char path[PATH_MAX]) {
  char self[PATH_MAX];
  const char *const *places;
  int r = find_self(self, &places);
  char *slash = r < 0 ? NULL : strrchr(self, '/');
  if (!slash)
    return r < 0 && r != -ENOENT ? r : -ENOTDIR;
  *slash = '\0';
  for (; *places; places++) {
    if (snprintf(path, PATH_MAX, "%s/%s/%s.so", self, *places, name) >=
        PATH_MAX)
      return -ENAMETOOLONG;
    if (access(path, F_OK) == 0)
      return 0;
  }
  return -ENOENT;
}

/* ---- Loading ------------------------------------------------------------- */

static const struct module_object *
open_object(const char *path, const char *name, const struct reason *why) {
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  const struct module_object *m = object ? dlsym(object, SYMBOL) : NULL;
  if (!m) {
    const char *reason = dlerror();
    return refuse(why, "load its module: %s",
                  reason ? reason : SYMBOL " is not there");
  }
  if (strcmp(m->version, CACHETD_VERSION) != 0)
    return refuse(why,
                  "its module is of version %.20s, the program of %s; "
                  "install both of one version, and start it anew",
                  m->version, CACHETD_VERSION);
  if (strcmp(m->name, name) != 0)
    return refuse(why,
                  "%s is the module %.40s; install the right one, and "
                  "start it anew",
                  path, m->name);
  if (m->prepare)
    m->prepare();
  return m;
}

static const struct module_object *find_object(const struct module *m,
                                               const struct reason *why) {
  char path[PATH_MAX];
  int r = find_path(m->name, path);
  if (r == -ENOENT)
    return refuse(why,
                  "it is not installed; install the package %s, "
                  "which has %s",
                  m->package, path);
  if (r == -EPERM)
    return refuse(why, "no module is loaded by a program that has more rights "
                       "than its user, by a set-user-ID bit or a capability "
                       "of its file");
  if (r < 0)
    return refuse(why, "find its module: %s", strerror(-r));
  return open_object(path, m->name, why);
}

/* Held while a module is loaded, on this thread or another one, which does not
 * take it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void run_here(void *arg, void (*load)(void *what), void *what) {
  (void)arg;
  load(what);
}

static struct {
  void (*run)(void *arg, void (*load)(void *what), void *what);
  void *arg;
} loader = {.run = run_here};

void module_load_by(void (*run)(void *arg, void (*load)(void *what),
                                void *what),
                    void *arg) {
  loader.run = run;
  loader.arg = arg;
}

void module_forked(void) { pthread_mutex_init(&lock, NULL); }

struct loading {
  struct module *module;
  struct reason why;
};

static void load(void *what) {
  struct loading *l = what;
  l->module->object = find_object(l->module, &l->why);
}

const void *module_load(struct module *m, const char *part, char *why,
                        size_t why_len) {
  struct loading l = {.module = m,
                      .why = {.part = part, .text = why, .len = why_len}};
  pthread_mutex_lock(&lock);
  if (!m->object)
    loader.run(loader.arg, load, &l);
  const struct module_object *object = m->object;
  pthread_mutex_unlock(&lock);
  return object ? object->content : NULL;
}
