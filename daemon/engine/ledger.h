/* The ledger: what the next process of the service must know of the kept
 * memory, and must not read from memory that clients can write.
 *
 * It is a memfd that no client ever gets.  It has records of fixed size: one
 * for each mirror, and one for each pin table that a client has.  A record
 * belongs to the descriptors that are stored under its name, such as "m5" or
 * "t5".
 *
 *   R1  A record is complete before its state is other than FREE.  Its number
 *       is not used again before the manager was told to remove its
 *       descriptors.
 *   R2  A table is LENT from before the daemon sends its descriptors to the
 *       client until the daemon honours its pins no more.  So the pins of a
 *       table that is LENT, and has no descriptor in the store, cannot be
 *       honoured.
 *
 * Names are short, and their number is bounded: the names of all descriptors go
 * into one string of the next process's environment, of 128 KiB at most. */
#ifndef DAEMON_ENGINE_LEDGER_H
#define DAEMON_ENGINE_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "cache/shared_pins.h"
#include "cache/source.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
  LEDGER_N_MIRRORS = 2048,
  LEDGER_N_TABLES = 4096,
  LEDGER_NAME_LEN = 16,
  LEDGER_IMAGE_LEN = 72,
};

enum ledger_state {
  LEDGER_FREE,
  LEDGER_WAITING, /* a mirror: its descriptors are not sent to the manager */
  LEDGER_STORED,
  LEDGER_LENT,  /* a table: R2 */
  LEDGER_ENDED, /* the manager is not told yet to remove them */
};

struct ledger_mirror {
  uint32_t state; /* atomic; as of every record */
  uint32_t page_shift;
  uint64_t checksum;
  uint64_t size, epoch;
  uint64_t terms;               /* its rule; see images.c */
  char image[LEDGER_IMAGE_LEN]; /* its name */
  struct source_identity identity;
};

struct ledger_table {
  uint32_t state;
  uint32_t mirror; /* the number of its record */
  uint64_t checksum;
  uint64_t epoch;  /* of the mirror */
  uint64_t number; /* the client's number for the table */
  uint32_t uid, pid;
  /* Atomic, and in no checksum: they change while it is LENT. */
  uint64_t size; /* page slots, and from bit 32 on the capacity of a range */
  uint64_t
      share; /* bytes, of one that was replaced; LEDGER_WHOLE: it was not */
};

#define LEDGER_WHOLE UINT64_MAX

struct ledger {
  struct ledger_memory *memory; /* mapped */
  int fd;
};

/* A ledger without records.  0 or a negative errno. */
int ledger_new(struct ledger *ledger);

/* The ledger of the previous process.  Takes the descriptor over, also on
 * failure.  -EPROTO: it is no ledger, or has another layout. */
int ledger_adopt(struct ledger *ledger, int fd);

void ledger_fini(struct ledger *ledger);

/* Makes the next process distrust all of it. */
void ledger_spoil(struct ledger *ledger);

struct ledger_mirror *ledger_get_mirror(const struct ledger *ledger,
                                        uint32_t i);
struct ledger_table *ledger_get_table(const struct ledger *ledger, uint32_t i);

/* Release: what was written before is seen by a thread that sees the state. */
static inline void ledger_set_state(uint32_t *state, enum ledger_state to) {
  __atomic_store_n(state, (uint32_t)to, __ATOMIC_RELEASE);
}

static inline enum ledger_state ledger_state(const uint32_t *state) {
  return (enum ledger_state)__atomic_load_n(state, __ATOMIC_ACQUIRE);
}

/* Sets the checksum of a record; and whether its checksum is right. */
void ledger_seal_mirror(struct ledger_mirror *record);
bool ledger_mirror_is_whole(const struct ledger_mirror *record);
void ledger_seal_table(struct ledger_table *record);
bool ledger_table_is_whole(const struct ledger_table *record);

/* Stores what remains of a lease in a record, and gets it from there. */
void ledger_put_lease(struct ledger_table *record,
                      const struct shared_pins_remains *lease);
void ledger_take_lease(const struct ledger_table *record,
                       struct shared_pins_remains *lease);

/* The names under which descriptors are stored. */
void ledger_name_mirror(uint32_t i, char name[LEDGER_NAME_LEN]);
void ledger_name_table(uint32_t i, char name[LEDGER_NAME_LEN]);

/* The number of the record that a name is of.  False: it is of none. */
bool ledger_parse_name(const char *name, char kind, uint32_t most, uint32_t *i);

#ifdef __cplusplus
}
#endif

#endif
