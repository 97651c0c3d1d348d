/* The text of all metrics, in version 0.0.4 of the format of Prometheus.
 *
 * The caller gets the text in parts.  So many images take no more memory at a
 * time than few, and the daemon holds no lock for long.
 *
 *   X1  All lines of a metric stand together.  The first two are its HELP and
 *       its TYPE.
 *   X2  An image that the daemon adds or removes meanwhile may be in some
 *       metrics and not in others.
 *
 * Any thread may call these functions, but only one at a time for one text. */
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
bool metrics_text_next(struct metrics_text *text, struct evbuffer *to);

/* NULL is fine. */
void metrics_text_free(struct metrics_text *text);

#ifdef __cplusplus
}
#endif

#endif
