/* The keeper: has the service manager keep the memory of mirrors and pin tables
 * for the next process of the service (fd_store.h), and writes down what that
 * has to know of it (ledger.h).  What becomes of it there is restore.h's.
 *
 *   K1  A mirror is kept from when it was made until its memory goes.  While
 *       the manager has too much to read it waits (keeper_retry()).
 *   K2  A table of a mirror that is kept is so as well, from before its client
 *       has it until nobody honours its pins any more.  While the manager has
 *       too much to read none is given.
 *   K3  After keeper_leave() nothing is added or removed: the process ends, and
 *       what it has is the next one's.
 *   K4  A manager that reads nothing for KEEPER_PATIENCE_MS is none: nothing is
 *       kept any more, and what is there is not to be believed.
 *
 * Nothing here waits.  Any thread, but for what makes and ends it. */
#ifndef DAEMON_ENGINE_KEEPER_H
#define DAEMON_ENGINE_KEEPER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/mirror.h"
#include "cache/shared_pins.h"
#include "daemon/engine/fd_store.h"
#include "daemon/engine/ledger.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { KEEPER_PATIENCE_MS = 10000 };

struct keeper {
  struct mirror_keeper base;
  struct fd_store store;
  pthread_mutex_t lock; /* the cache's may be taken under it */
  /* Guarded by lock. */
  bool is_on;
  uint64_t deaf_since; /* when the manager had too much to read first, on the
                          clock of clock_now_ms(); 0: it has read since */
  struct ledger ledger;
  uint32_t next_mirror, next_table; /* where to look for a free record */
  bool has_unsaid; /* there may be records that are WAITING, or ENDED */
  const struct mirror *mirrors[LEDGER_N_MIRRORS]; /* those that are WAITING */
};

/* A keeper that keeps nothing until keeper_begin(), and has no store.
 * keeper_fini() is due. */
void keeper_init(struct keeper *keeper);

/* The store is open: it keeps what it can from here on, and goes on with
 * `ledger`, which it takes over, also on failure.  `is_stored`: the manager has
 * that.  0 or a negative errno. */
int keeper_begin(struct keeper *keeper, struct ledger *ledger, bool is_stored);

void keeper_fini(struct keeper *keeper);

/* K3.  False: it keeps nothing. */
bool keeper_leave(struct keeper *keeper);

/* Tells the manager what it could not be told before.  Once a second. */
void keeper_retry(struct keeper *keeper);

/* Notes the rule of the image whose mirror this is; before that no process
 * goes on with it. */
void keeper_set_terms(struct keeper *keeper, const struct mirror *m,
                      uint64_t terms);

/* The process that a table is given to. */
struct keeper_client {
  uint64_t number; /* what he calls it */
  uid_t uid;
  pid_t pid;
  int pidfd;
};

/* Keeps a table of `m`.  `*table` is its record, plus 1; 0: it need not be
 * kept.  0; or -EAGAIN: the manager cannot take it now. */
int keeper_add_table(struct keeper *keeper, const struct mirror *m,
                     const struct keeper_client *client,
                     const struct shared_pins *lease, int fd, uint32_t *table);

/* The client may have it from here on. */
void keeper_lend_table(struct keeper *keeper, uint32_t table);

/* Its lease is not what it was. */
void keeper_change_table(struct keeper *keeper, uint32_t table,
                         const struct shared_pins *lease);

/* Its pins count no more; 0 is fine. */
void keeper_remove_table(struct keeper *keeper, uint32_t table);

/* For restore.c: has the manager remove what is under the record. */
void keeper_drop_mirror(struct keeper *keeper, uint32_t i);
void keeper_drop_table(struct keeper *keeper, uint32_t i);

#ifdef __cplusplus
}
#endif

#endif
