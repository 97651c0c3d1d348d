#include "daemon/engine/keeper.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/container_of.h"
#include "base/lock.h"
#include "cache/source.h"
#include "daemon/log.h"

static struct keeper *keeper_of(struct mirror_keeper *base) {
  return container_of(base, struct keeper, base);
}

/* ---- Telling the manager ------------------------------------------------- */

/* Notes the result of a message to the manager, and returns it. */
static int note_locked(struct keeper *k, int r) {
  lock_assert_held(&k->lock);
  if (r != -EAGAIN)
    k->deaf_since = 0;
  else if (!k->deaf_since)
    k->deaf_since = clock_now_ms();
  return r;
}

static int store_locked(struct keeper *k, const char *name, const int *fds,
                        unsigned n) {
  lock_assert_held(&k->lock);
  return note_locked(k, fd_store_add(&k->store, name, fds, n));
}

/* ---- Records ------------------------------------------------------------- */

/* Has the manager remove what a record has stored.  If the message cannot be
 * sent, the record stays ENDED, and its number is not used again, because the
 * manager still has descriptors of that name. */
static void remove_locked(struct keeper *k, uint32_t *state, const char *name) {
  lock_assert_held(&k->lock);
  ledger_set_state(state, LEDGER_ENDED);
  if (note_locked(k, fd_store_remove(&k->store, name)) < 0)
    k->has_unsaid = true;
  else
    ledger_set_state(state, LEDGER_FREE);
}

static void end_mirror_locked(struct keeper *k, uint32_t i) {
  lock_assert_held(&k->lock);
  char name[LEDGER_NAME_LEN];
  k->mirrors[i] = NULL;
  ledger_name_mirror(i, name);
  remove_locked(k, &ledger_get_mirror(&k->ledger, i)->state, name);
}

static void end_table_locked(struct keeper *k, uint32_t i) {
  lock_assert_held(&k->lock);
  char name[LEDGER_NAME_LEN];
  ledger_name_table(i, name);
  remove_locked(k, &ledger_get_table(&k->ledger, i)->state, name);
}

/* A record that is FREE; NULL: there is none. */
static struct ledger_mirror *find_mirror_locked(struct keeper *k, uint32_t *i) {
  lock_assert_held(&k->lock);
  for (uint32_t n = 0; n < LEDGER_N_MIRRORS; n++) {
    *i = k->next_mirror++ % LEDGER_N_MIRRORS;
    struct ledger_mirror *record = ledger_get_mirror(&k->ledger, *i);
    if (ledger_state(&record->state) == LEDGER_FREE)
      return record;
  }
  return NULL;
}

static struct ledger_table *find_table_locked(struct keeper *k, uint32_t *i) {
  lock_assert_held(&k->lock);
  for (uint32_t n = 0; n < LEDGER_N_TABLES; n++) {
    *i = k->next_table++ % LEDGER_N_TABLES;
    struct ledger_table *record = ledger_get_table(&k->ledger, *i);
    if (ledger_state(&record->state) == LEDGER_FREE)
      return record;
  }
  return NULL;
}

static struct ledger_mirror *record_of(struct keeper *k,
                                       const struct mirror *m) {
  return ledger_get_mirror(&k->ledger, m->kept - 1);
}

/* R1 of ledger.h, and that the record of a mirror that is here is WAITING. */
static void check_mirrors_locked(const struct keeper *k) {
  lock_assert_held(&k->lock);
#ifdef CACHETD_DEBUG_CHECKS
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS; i++) {
    const struct ledger_mirror *record = ledger_get_mirror(&k->ledger, i);
    enum ledger_state state = ledger_state(&record->state);
    assert(state == LEDGER_FREE || state == LEDGER_ENDED ||
           ledger_mirror_is_whole(record));
    assert(!k->mirrors[i] ||
           (state == LEDGER_WAITING && k->mirrors[i]->kept == i + 1));
  }
#endif
}

/* R1, when no other thread changes tables. */
static void check_tables_locked(const struct keeper *k) {
  lock_assert_held(&k->lock);
#ifdef CACHETD_DEBUG_CHECKS
  for (uint32_t i = 0; i < LEDGER_N_TABLES; i++) {
    const struct ledger_table *record = ledger_get_table(&k->ledger, i);
    enum ledger_state state = ledger_state(&record->state);
    assert(state == LEDGER_FREE || state == LEDGER_ENDED ||
           ledger_table_is_whole(record));
  }
#endif
}

/* ---- Mirrors ------------------------------------------------------------- */

/* Has the manager store a mirror that is WAITING, if it can now. */
static void store_mirror_locked(struct keeper *k, uint32_t i) {
  lock_assert_held(&k->lock);
  const struct mirror *m = k->mirrors[i];
  const int fds[] = {m->pages_fd, m->states_fd, m->accessed_fd};
  char name[LEDGER_NAME_LEN];
  ledger_name_mirror(i, name);
  if (store_locked(k, name, fds, 3) < 0) {
    k->has_unsaid = true;
    return;
  }
  ledger_set_state(&ledger_get_mirror(&k->ledger, i)->state, LEDGER_STORED);
  k->mirrors[i] = NULL;
}

static int keep_mirror_locked(struct keeper *k, struct mirror *m,
                              const char *image) {
  lock_assert_held(&k->lock);
  uint32_t i;
  struct ledger_mirror *record = find_mirror_locked(k, &i);
  if (!record)
    return -ENOSPC;
  memset(record, 0, sizeof *record);
  record->page_shift = m->page_shift;
  record->size = m->size;
  record->epoch = m->epoch;
  strncpy(record->image, image, sizeof record->image - 1);
  source_identify(m->source, &record->identity);
  ledger_seal_mirror(record);
  ledger_set_state(&record->state, LEDGER_WAITING);
  m->kept = i + 1;
  k->mirrors[i] = m;
  store_mirror_locked(k, i);
  return 0;
}

static void keeper_made(struct mirror_keeper *base, struct mirror *m,
                        const char *image) {
  struct keeper *k = keeper_of(base);
  if (m->is_pageless || !m->source)
    return;
  pthread_mutex_lock(&k->lock);
  int r = k->is_on ? keep_mirror_locked(k, m, image) : 0;
  pthread_mutex_unlock(&k->lock);
  if (r < 0)
    log_peer_event(LEVEL_WARN, "image-not-kept", LOG_TEXT("image", image),
                   LOG_TEXT("reason", strerror(-r)),
                   LOG_TEXT("meaning", "after a restart it begins cold"));
}

/* The source was checked, so the identity of the content may have changed. */
static void keeper_looked(struct mirror_keeper *base, struct mirror *m) {
  struct keeper *k = keeper_of(base);
  struct source_identity now;
  if (!m->kept)
    return;
  source_identify(m->source, &now);
  pthread_mutex_lock(&k->lock);
  struct ledger_mirror *record = record_of(k, m);
  if (k->is_on && memcmp(&record->identity, &now, sizeof now) != 0) {
    record->identity = now;
    ledger_seal_mirror(record);
  }
  pthread_mutex_unlock(&k->lock);
}

static void keeper_ended(struct mirror_keeper *base, struct mirror *m) {
  struct keeper *k = keeper_of(base);
  if (m->kept)
    keeper_drop_mirror(k, m->kept - 1);
}

void keeper_set_terms(struct keeper *k, const struct mirror *m,
                      uint64_t terms) {
  if (!m->kept)
    return;
  pthread_mutex_lock(&k->lock);
  struct ledger_mirror *record = record_of(k, m);
  if (k->is_on && record->terms != terms) {
    record->terms = terms;
    ledger_seal_mirror(record);
  }
  pthread_mutex_unlock(&k->lock);
}

void keeper_drop_mirror(struct keeper *k, uint32_t i) {
  pthread_mutex_lock(&k->lock);
  if (k->is_on)
    end_mirror_locked(k, i);
  pthread_mutex_unlock(&k->lock);
}

/* ---- Tables -------------------------------------------------------------- */

static void write_table(struct ledger_table *record, const struct mirror *m,
                        const struct keeper_client *client,
                        const struct shared_pins *lease) {
  struct shared_pins_remains remains;
  shared_pins_describe(lease, &remains);
  memset(record, 0, sizeof *record);
  record->mirror = m->kept - 1;
  record->epoch = m->epoch;
  record->number = client->number;
  record->uid = client->uid;
  record->pid = (uint32_t)client->pid;
  ledger_put_lease(record, &remains);
  ledger_seal_table(record);
}

int keeper_add_table(struct keeper *k, const struct mirror *m,
                     const struct keeper_client *client,
                     const struct shared_pins *lease, int fd, uint32_t *table) {
  uint32_t i;
  char name[LEDGER_NAME_LEN];
  const int fds[] = {fd, client->pidfd};
  int r = -EAGAIN;
  *table = 0;
  if (!m->kept)
    return 0;
  pthread_mutex_lock(&k->lock);
  struct ledger_table *record = k->is_on ? find_table_locked(k, &i) : NULL;
  if (record) {
    write_table(record, m, client, lease);
    ledger_name_table(i, name);
    r = store_locked(k, name, fds, 2);
  } else if (!k->is_on) {
    r = 0; /* K4 */
  }
  /* If the manager is gone the table is given all the same.  A next process
   * misses it in the ledger, and then leaves the mirror alone (R2). */
  if (record && r != -EAGAIN) {
    ledger_set_state(&record->state, LEDGER_STORED);
    *table = i + 1;
    r = 0;
  }
  pthread_mutex_unlock(&k->lock);
  return r;
}

void keeper_lend_table(struct keeper *k, uint32_t table) {
  if (table)
    ledger_set_state(&ledger_get_table(&k->ledger, table - 1)->state,
                     LEDGER_LENT);
}

void keeper_change_table(struct keeper *k, uint32_t table,
                         const struct shared_pins *lease) {
  struct shared_pins_remains remains;
  if (!table)
    return;
  shared_pins_describe(lease, &remains);
  ledger_put_lease(ledger_get_table(&k->ledger, table - 1), &remains);
}

void keeper_remove_table(struct keeper *k, uint32_t table) {
  if (table)
    keeper_drop_table(k, table - 1);
}

void keeper_drop_table(struct keeper *k, uint32_t i) {
  pthread_mutex_lock(&k->lock);
  if (k->is_on)
    end_table_locked(k, i);
  pthread_mutex_unlock(&k->lock);
}

/* ---- What could not be said ---------------------------------------------- */

static void retry_locked(struct keeper *k) {
  lock_assert_held(&k->lock);
  k->has_unsaid = false;
  for (uint32_t i = 0; i < LEDGER_N_MIRRORS && !k->has_unsaid; i++)
    if (ledger_state(&ledger_get_mirror(&k->ledger, i)->state) == LEDGER_ENDED)
      end_mirror_locked(k, i);
    else if (k->mirrors[i])
      store_mirror_locked(k, i);
  for (uint32_t i = 0; i < LEDGER_N_TABLES && !k->has_unsaid; i++)
    if (ledger_state(&ledger_get_table(&k->ledger, i)->state) == LEDGER_ENDED)
      end_table_locked(k, i);
}

/* K4: finds out whether the manager reads again.  Only a message can show that,
 * so it sends one that removes nothing. */
static bool is_deaf_locked(struct keeper *k) {
  lock_assert_held(&k->lock);
  return k->deaf_since &&
         note_locked(k, fd_store_remove(&k->store, "none")) == -EAGAIN &&
         clock_now_ms() - k->deaf_since >= KEEPER_PATIENCE_MS;
}

void keeper_retry(struct keeper *k) {
  pthread_mutex_lock(&k->lock);
  if (k->is_on && k->has_unsaid)
    retry_locked(k);
  if (k->is_on)
    check_mirrors_locked(k);
  bool gives_up = k->is_on && is_deaf_locked(k);
  if (gives_up) {
    k->is_on = false;
    ledger_spoil(&k->ledger);
  }
  pthread_mutex_unlock(&k->lock);
  if (gives_up)
    log_event(LEVEL_WARN, "nothing-is-kept",
              LOG_TEXT("reason", "the service manager does not read"),
              LOG_TEXT("meaning", "the next start is cold"));
}

/* ---- Life ---------------------------------------------------------------- */

void keeper_init(struct keeper *k) {
  *k = (struct keeper){.base = {.made = keeper_made,
                                .looked = keeper_looked,
                                .ended = keeper_ended},
                       .ledger = {.fd = -1}};
  fd_store_init(&k->store, NULL);
  lock_init(&k->lock);
}

int keeper_begin(struct keeper *k, struct ledger *ledger, bool is_stored) {
  k->ledger = *ledger;
  *ledger = (struct ledger){.fd = -1};
  int r = is_stored ? 0 : fd_store_add(&k->store, "ledger", &k->ledger.fd, 1);
  k->is_on = r == 0;
  k->has_unsaid = true; /* the process before may have left ENDED records */
  return r;
}

bool keeper_leave(struct keeper *k) {
  pthread_mutex_lock(&k->lock);
  bool was_on = k->is_on;
  if (was_on) {
    check_mirrors_locked(k);
    check_tables_locked(k);
  }
  k->is_on = false;
  pthread_mutex_unlock(&k->lock);
  return was_on;
}

void keeper_fini(struct keeper *k) {
  fd_store_fini(&k->store);
  ledger_fini(&k->ledger);
  pthread_mutex_destroy(&k->lock);
}
