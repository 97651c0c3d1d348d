/* Metrics: all that the daemon counts, in one table.  GetStats, the text for
 * Prometheus and the man page say what stands there. */
#ifndef DAEMON_SERVE_METRICS_H
#define DAEMON_SERVE_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct peer;
struct served_image;
struct server_context;

enum metric_kind {
  METRIC_COUNTER, /* it only grows, from 0 at the start */
  METRIC_GAUGE,
};

/* Which things have a value of the metric.  A metric has values of all that it
 * is of: each image's and the daemon's, for example. */
enum {
  METRIC_OF_IMAGE = 1, /* each image */
  METRIC_OF_DAEMON = 2,
  METRIC_OF_SOURCE = 4, /* each image whose source is remote */
};

struct metric {
  const char *name; /* in `cachet stats` */
  enum metric_kind kind;
  const char *unit; /* "bytes", "pages", or what is counted */
  unsigned of;      /* METRIC_OF_... */
  const char *help; /* a sentence, without the full stop */
};

/* The counters of images come first, each by its `enum image_counter`. */
enum { METRICS_N = 49 };
extern const struct metric metrics_table[METRICS_N];

/* The longest name for Prometheus, with its NUL. */
enum { METRICS_NAME_LEN = 64 };

/* Writes a metric's name for Prometheus, of an image or of the daemon: base
 * units and, for a counter, _total are at its end. */
void metrics_print_name(const struct metric *metric, bool of_image,
                        char name[METRICS_NAME_LEN]);

/* Store the values of an image, or of the daemon, at the indices that metrics
 * have in the table, and leave the other elements as they are.  The first
 * returns which kinds it stored, as METRIC_OF_...  The second counts all images
 * together, except for their number: that is the number of images that `peer`
 * may read, see images_count().  Any thread. */
unsigned metrics_of_image(struct served_image *h, uint64_t values[METRICS_N]);
void metrics_of_daemon(struct server_context *context, const struct peer *peer,
                       uint64_t values[METRICS_N]);

#ifdef __cplusplus
}
#endif

#endif
