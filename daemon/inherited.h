/* Descriptors that a service manager passed to the process: listening sockets,
 * and those that a previous process has left (daemon/engine/restore.h).
 *
 * Main thread. */
#ifndef DAEMON_INHERITED_H
#define DAEMON_INHERITED_H

struct inherited {
  int *fds; /* -1: it was taken */
  char **names;
  unsigned n;
};

/* Finds the descriptors, and makes them close-on-exec.  0 or a negative errno;
 * the caller owes an inherited_fini() in both cases. */
int inherited_find(struct inherited *inherited);

/* Takes the next socket, from the `*i`th descriptor on, and moves `*i` after
 * it; -1: there is none. */
int inherited_take_socket(struct inherited *inherited, unsigned *i,
                          const char **name);

/* Descriptors that were not taken stay open. */
void inherited_fini(struct inherited *inherited);

#endif
