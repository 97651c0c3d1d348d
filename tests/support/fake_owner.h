/* Connections whose owner notes what it is called for, and does as it is told.
 * In C, as the structs that it embeds hold atomics. */
#ifndef TESTS_SUPPORT_FAKE_OWNER_H
#define TESTS_SUPPORT_FAKE_OWNER_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How often each was called. */
struct owner_calls {
  unsigned message, writable, delivered, fds_sent, fds_lost, turn_ended;
  unsigned draining_ended; /* turns that ended in DRAINING */
  unsigned closed, release, emptied;
};

struct fake_owner;

/* One thread's connections: the caller's, which runs fake_owner_turn(). */
struct fake_owner *fake_owner_new(const char *listen_path);
void fake_owner_free(struct fake_owner *o);

/* A connection on one end of a socketpair, of a user of no other connection.
 * There is one at a time. */
void fake_owner_accept(struct fake_owner *o, int fd);

/* Runs what is due, without waiting. */
void fake_owner_turn(struct fake_owner *o);

/* What message() does: it answers with so many Errors; and leaves so many
 * requests unanswered, until the test answers them. */
void fake_owner_set_reply(struct fake_owner *o, unsigned n_errors,
                          unsigned n_requests);
void fake_owner_answer_all(struct fake_owner *o);

/* message() sends an Error with four descriptors of /dev/null. */
void fake_owner_set_fds(struct fake_owner *o);

void fake_owner_stop(struct fake_owner *o);
void fake_owner_drop(struct fake_owner *o);

bool fake_owner_is_blocked(const struct fake_owner *o);
size_t fake_owner_held(const struct fake_owner *o);
unsigned fake_owner_users(const struct fake_owner *o);
struct owner_calls fake_owner_calls(const struct fake_owner *o);

#ifdef __cplusplus
}
#endif

#endif
