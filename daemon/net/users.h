/* How many connections there are, and how many each user has, so that none can
 * take all of them.
 *
 * Any thread. */
#ifndef DAEMON_NET_USERS_H
#define DAEMON_NET_USERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The one user that all peers without credentials are (TCP): no uid. */
#define USERS_REMOTE UINT64_MAX

enum { USERS_BUCKETS = 256 };

/* A user that has connections: at most one a connection. */
struct user {
  struct user *next; /* in its bucket */
  uint64_t id;       /* a uid, or USERS_REMOTE */
  unsigned n;
};

struct users {
  atomic_uint n_all;    /* relaxed: a limit may be noticed one accept late */
  pthread_mutex_t lock; /* a leaf */
  struct user *buckets[USERS_BUCKETS];
};

void users_init(struct users *u);
void users_fini(struct users *u);

/* Counts one more of this user.  False: it has `most` already, or there is no
 * memory. */
bool users_take(struct users *u, uint64_t id, unsigned most);

/* How many of all users there are. */
static inline unsigned users_count(const struct users *u) {
  return atomic_load_explicit(&u->n_all, memory_order_relaxed);
}

/* Counts one less. */
void users_give(struct users *u, uint64_t id);

/* Whose the socket's peer is. */
uint64_t users_of_socket(int fd);

#endif
