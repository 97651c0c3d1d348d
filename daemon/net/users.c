#include "daemon/net/users.h"

#include <assert.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "base/lock.h"

void users_init(struct users *u) { lock_init(&u->lock); }

void users_fini(struct users *u) {
  for (unsigned i = 0; i < USERS_BUCKETS; i++)
    while (u->buckets[i]) {
      struct user *next = u->buckets[i]->next;
      free(u->buckets[i]);
      u->buckets[i] = next;
    }
  pthread_mutex_destroy(&u->lock);
}

/* Where the user is pointed to, or would be. */
static struct user **find_locked(struct users *u, uint64_t id) {
  lock_assert_held(&u->lock);
  struct user **at = &u->buckets[id % USERS_BUCKETS];
  while (*at && (*at)->id != id)
    at = &(*at)->next;
  return at;
}

/* After a change.  A user that got none may be there with none. */
static void check_locked(const struct users *u) {
  lock_assert_held(&u->lock);
#ifdef CACHETD_DEBUG_CHECKS
  unsigned n = 0;
  for (unsigned i = 0; i < USERS_BUCKETS; i++)
    for (const struct user *user = u->buckets[i]; user; user = user->next) {
      assert(user->id % USERS_BUCKETS == i);
      n += user->n;
    }
  assert(n == users_count(u));
#endif
}

bool users_take(struct users *u, uint64_t id, unsigned most) {
  pthread_mutex_lock(&u->lock);
  struct user **at = find_locked(u, id);
  if (!*at && (*at = calloc(1, sizeof **at)))
    (*at)->id = id;
  bool taken = *at && (*at)->n < most;
  if (taken) {
    (*at)->n++;
    atomic_fetch_add_explicit(&u->n_all, 1, memory_order_relaxed);
  }
  check_locked(u);
  pthread_mutex_unlock(&u->lock);
  return taken;
}

void users_give(struct users *u, uint64_t id) {
  pthread_mutex_lock(&u->lock);
  struct user **at = find_locked(u, id), *user = *at;
  assert(user && user->n > 0);
  atomic_fetch_sub_explicit(&u->n_all, 1, memory_order_relaxed);
  if (--user->n == 0) {
    *at = user->next;
    free(user);
  }
  check_locked(u);
  pthread_mutex_unlock(&u->lock);
}

uint64_t users_of_socket(int fd) {
  struct ucred peer;
  socklen_t len = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
    return USERS_REMOTE;
  return peer.uid;
}
