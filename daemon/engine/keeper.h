/* The keeper: stores the memory of mirrors and pin tables with the service
 * manager (fd_store.h), for the next process of the service, and records what
 * that process must know of it (ledger.h).  restore.h is the other side.
 *
 *   K1  The manager keeps a mirror from its creation until its memory is freed.
 *       While the manager has no room for messages, the mirror waits
 *       (keeper_retry()).
 *   K2  The manager also keeps each pin table of a kept mirror, from before the
 *       client gets the table until the daemon honours its pins no more.  While
 *       the manager has no room for messages, no client gets a table.
 *   K3  After keeper_leave() the keeper adds and removes nothing: the process
 *       ends, and the next one takes what is kept.
 *   K4  If the manager reads nothing for KEEPER_PATIENCE_MS, the keeper stops:
 *       nothing is kept any more, and the next process must not trust what the
 *       manager has.
 *
 * No call waits.  Any thread, except for the calls that make and end it. */
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
  uint64_t deaf_since; /* since when the manager has had no room for a message,
                          as clock_now_ms() counts; 0: it has room */
  struct ledger ledger;
  uint32_t next_mirror, next_table; /* where to look for a free record */
  bool has_unsaid; /* there may be records that are WAITING, or ENDED */
  const struct mirror *mirrors[LEDGER_N_MIRRORS]; /* those that are WAITING */
};

/* A keeper that keeps nothing until keeper_begin(), and has no store.
 * keeper_fini() is due. */
void keeper_init(struct keeper *keeper);

/* The store is open: from here on the keeper keeps what it can.  It continues
 * with `ledger`, which it takes over, also on failure.  `is_stored`: the
 * manager has the ledger.  0 or a negative errno. */
int keeper_begin(struct keeper *keeper, struct ledger *ledger, bool is_stored);

void keeper_fini(struct keeper *keeper);

/* K3.  False: it keeps nothing. */
bool keeper_leave(struct keeper *keeper);

/* Sends the messages for which the manager had no room.  Once a second. */
void keeper_retry(struct keeper *keeper);

/* Records the terms of the mirror's image.  Before that, no process continues
 * with the mirror. */
void keeper_set_terms(struct keeper *keeper, const struct mirror *m,
                      uint64_t terms);

/* The process that a table is given to. */
struct keeper_client {
  uint64_t number; /* the client's number for the table */
  uid_t uid;
  pid_t pid;
  int pidfd;
};

/* Keeps a table of `m`.  `*table` is the number of its record, plus 1; 0: the
 * table need not be kept.  0; or -EAGAIN: the manager has no room for it
 * now. */
int keeper_add_table(struct keeper *keeper, const struct mirror *m,
                     const struct keeper_client *client,
                     const struct shared_pins *lease, int fd, uint32_t *table);

/* From here on the client may have the table. */
void keeper_lend_table(struct keeper *keeper, uint32_t table);

/* The lease of the table has changed. */
void keeper_change_table(struct keeper *keeper, uint32_t table,
                         const struct shared_pins *lease);

/* The pins of the table count no more; 0 is fine. */
void keeper_remove_table(struct keeper *keeper, uint32_t table);

/* For restore.c: makes the manager remove the descriptors of a record. */
void keeper_drop_mirror(struct keeper *keeper, uint32_t i);
void keeper_drop_table(struct keeper *keeper, uint32_t i);

#ifdef __cplusplus
}
#endif

#endif
