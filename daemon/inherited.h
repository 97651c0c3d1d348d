/* Descriptors that the process was started with by a service manager: sockets
 * to listen at, and what a process before has left (daemon/engine/restore.h).
 *
 * Main thread. */
#ifndef DAEMON_INHERITED_H
#define DAEMON_INHERITED_H

struct inherited {
  int *fds; /* -1: it was taken */
  char **names;
  unsigned n;
};

/* Finds them.  They are close-on-exec from here on.  0 or a negative errno;
 * inherited_fini() is due in either case. */
int inherited_find(struct inherited *inherited);

/* Takes the next socket, the `*i`th of all or a later one, and moves `*i`
 * behind it; -1: there is none. */
int inherited_take_socket(struct inherited *inherited, unsigned *i,
                          const char **name);

/* Closes none of those that were not taken. */
void inherited_fini(struct inherited *inherited);

#endif
