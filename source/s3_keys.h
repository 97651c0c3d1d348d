/* The keys that a source signs with, and how they stay good.
 *
 * They are looked up by a thread of their own, which reads files and asks
 * servers, and ends with that (source/s3_credentials.h).
 *
 *   K1  At most one such thread is under way for each source.
 *   K2  Keys that expire are looked up anew S3_KEYS_AHEAD_S before, and a
 *       random part of a minute more; in the second half of their time if they
 *       are given for less than that.  Requests are signed with the old ones
 *       until there are others, also after they expired: the server says what
 *       is good.
 *   K3  A look-up that fails, or finds the same, changes nothing; the next one
 *       is due after S3_KEYS_PAUSE_S, or when the server has refused the keys.
 *   K4  A get whose keys were refused waits for a look-up, S3_KEYS_PATIENCE_MS
 *       and until its deadline at most.  After one that found nothing there is
 *       no other within the same second.
 *
 * The reactor's thread alone, where nothing else is said. */
#ifndef SOURCE_S3_KEYS_H
#define SOURCE_S3_KEYS_H

#include <stdint.h>
#include <time.h>

#include "source/http_source.h"

#ifdef __cplusplus
extern "C" {
#endif

struct reactor;
struct s3_credentials;
struct s3_credentials_place;
struct s3_keys;

enum {
  S3_KEYS_AHEAD_S = 300,
  S3_KEYS_PAUSE_S = 30,
  S3_KEYS_PATIENCE_MS = 10000,
};

/* Looks keys up, and waits for that until `deadline` (CLOCK_MONOTONIC) at most;
 * `place` is copied, `now_s` the time in seconds since 1970.  0; or a negative
 * errno, with `*why` for people, which is never freed.  Any thread that may
 * wait, but the reactor's. */
int s3_keys_open(struct reactor *r, const struct s3_credentials_place *place,
                 int64_t now_s, const struct timespec *deadline,
                 struct s3_keys **out, const char **why);

/* No get waits.  Any thread; waits for nothing.  NULL is fine. */
void s3_keys_free(struct s3_keys *k);

/* What to sign with at `now_s`: good until the next call.
 * `*mark` tells it from others that come after it. */
const struct s3_credentials *s3_keys_use(struct s3_keys *k, int64_t now_s,
                                         uint64_t *mark);

/* The server refused what a get was signed with.  The pause ends by
 * `deadline_ms` (clock_now_ms()), if that is not 0. */
enum http_advice s3_keys_refused(struct s3_keys *k, int64_t now_s,
                                 uint64_t mark, uint64_t deadline_ms,
                                 struct http_pause *pause);

#ifdef __cplusplus
}
#endif

#endif
