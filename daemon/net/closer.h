/* The closer: a thread that closes descriptors whose close(2) may wait for a
 * peer; see stray_fds.h.
 *
 *   E1  Nothing waits for it but the process's end, and that only
 *       CLOSER_STOP_MS.
 *   E2  What waits to be closed is bounded by the callers that hand it over: a
 *       connection counts against its user's limit until it is closed, and
 *       there are CLOSER_SPARE places for sockets that are no connections.
 *   E3  A close(2) that still runs when the closer is freed leaves its thread
 *       and what waits behind it to the end of the process; the kernel does not
 *       linger then.
 *
 * Any thread. */
#ifndef DAEMON_NET_CLOSER_H
#define DAEMON_NET_CLOSER_H

#include <stdbool.h>

enum { CLOSER_SPARE = 16, CLOSER_STOP_MS = 200 };

struct closer;

/* What is to be closed: the first member of what it belongs to. */
struct closing {
  struct closing *next;
  int fd;
  /* It is closed; on the closer's thread.  `alone`: the closer was freed
   * meanwhile, and there is nothing left but memory to free. */
  void (*closed)(struct closing *c, bool alone);
};

/* NULL: no memory, or no thread. */
struct closer *closer_new(void);

/* Takes it over. */
void closer_add(struct closer *closer, struct closing *c);

/* Whether there is no place left for closer_add_socket(). */
bool closer_is_full(struct closer *closer);

/* Takes over a socket that is no connection.  Without a place for it, it stays
 * open until the process ends. */
void closer_add_socket(struct closer *closer, int fd);

/* Nobody adds anything any more.  NULL is fine. */
void closer_free(struct closer *closer);

#endif
