/* A module: a shared object with code of the program and the libraries that
 * this code needs.  The program loads it when it needs it.
 *
 * The object has one symbol, `cachetd_module`.  Code that it shares with its
 * program (base/, source/reactor.h) is linked into both, and has no state
 * except what it is given.  So code of the object reads structs of the program,
 * and both must be of the same version. */
#ifndef BASE_MODULE_H
#define BASE_MODULE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the object has. */
struct module_object {
  const char *version; /* of the program that it belongs to; the first field in
                          every version */
  const char *name;    /* of struct module, which says of which type `content`
                          is: a file may have been copied to another name */
  const void *content;
  /* NULL, or called once, by the thread that loads the object: has its
   * libraries load what they would load later, on a thread that may not map
   * code. */
  void (*prepare)(void);
};

extern const struct module_object cachetd_module
    __attribute__((visibility("default")));

/* What the program knows of a module. */
struct module {
  const char *name;                   /* of the file, without .so */
  const char *package;                /* of Debian's, which has the file */
  const struct module_object *object; /* NULL: not loaded; guarded by the lock
                                         of all modules */
};

/* Loads the module, if it is not loaded, and returns its content.  The module
 * stays loaded, because its libraries have state of the process.  NULL, with
 * the reason in `why`, which names `part` as what needs the module: the next
 * call tries again, because the module may have been installed meanwhile.
 *
 * Any thread that may wait. */
const void *module_load(struct module *m, const char *part, char *why,
                        size_t why_len);

/* Sets which thread loads modules, if not every thread may map code: `run`
 * makes a thread that may do so call load(what), and waits until it has ended.
 * Before this call, the calling thread loads them.  To be called while no
 * thread calls module_load(). */
void module_load_by(void (*run)(void *arg, void (*load)(void *what),
                                void *what),
                    void *arg);

/* To be called in a child process, by its only thread: another thread, which
 * does not exist in the child, may have been loading a module when the process
 * forked. */
void module_forked(void);

#ifdef __cplusplus
}
#endif

#endif
