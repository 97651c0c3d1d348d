/* All metrics as text, in the format of Prometheus, version
 * 0.0.4.
 *
 * It is made in parts, so that many images take no more memory at a time than
 * few, and no lock for long.
 *
 *   E1  All lines of a metric stand together, its HELP and TYPE first.
 *   E2  An image that is added or removed meanwhile may be in some metrics and
 *       not in others.
 *
 * Any thread, one at a time. */
#ifndef DAEMON_SERVE_METRICS_TEXT_H
#define DAEMON_SERVE_METRICS_TEXT_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define METRICS_TEXT_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct evbuffer;
struct metrics_text;
struct server_context;

/* NULL: out of memory. */
struct metrics_text *metrics_text_new(struct server_context *context);

/* Adds the next part, some ten thousand bytes.  False: there is no more, or no
 * memory for it. */
bool metrics_text_next(struct metrics_text *e, struct evbuffer *to);

/* NULL is fine. */
void metrics_text_free(struct metrics_text *e);

#ifdef __cplusplus
}
#endif

#endif
