#include "daemon/serve/metrics_text.h"

#include <inttypes.h>
#include <stdlib.h>

#include <event2/buffer.h>

#include "daemon/serve/context.h"
#include "daemon/serve/metrics.h"

/* Images in a part: a line is at most METRICS_NAME_LEN and the name of an
 * image, each byte of which may be escaped, long. */
enum { PART_N_IMAGES = 128 };

struct metrics_text {
  struct server_context *context;
  uint64_t daemon[METRICS_N]; /* of one moment */
  unsigned metric;            /* that is next, */
  unsigned image;             /* from this index on; 0: from its begin */
};

struct metrics_text *metrics_text_new(struct server_context *context) {
  struct metrics_text *text = calloc(1, sizeof *text);
  if (!text)
    return NULL;
  text->context = context;
  metrics_of_daemon(context, NULL, text->daemon);
  return text;
}

void metrics_text_free(struct metrics_text *text) { free(text); }

static void print_head(struct evbuffer *to, const struct metric *metric,
                       const char *name) {
  evbuffer_add_printf(to, "# HELP %s %s.\n# TYPE %s %s\n", name, metric->help,
                      name,
                      metric->kind == METRIC_COUNTER ? "counter" : "gauge");
}

/* The value of a label, within its quotes. */
static void print_label(struct evbuffer *to, const char *value) {
  for (; *value; value++)
    if (*value == '\n')
      evbuffer_add(to, "\\n", 2);
    else
      evbuffer_add_printf(to, "%s%c",
                          *value == '"' || *value == '\\' ? "\\" : "", *value);
}

/* The next images of the metric.  True: there may be more. */
static bool print_images(struct metrics_text *text, struct evbuffer *to,
                         const char *name) {
  struct served_image *h;
  for (unsigned n = 0; n < PART_N_IMAGES; n++) {
    uint64_t values[METRICS_N];
    h = images_next(&text->context->images, &text->image);
    if (!h)
      return false;
    if (metrics_of_image(h, values) & metrics_table[text->metric].of) {
      evbuffer_add_printf(to, "%s{image=\"", name);
      print_label(to, h->name);
      evbuffer_add_printf(to, "\"} %" PRIu64 "\n", values[text->metric]);
    }
    images_unref(h);
  }
  return true;
}

static void print_daemon(struct metrics_text *text, struct evbuffer *to) {
  const struct metric *metric = &metrics_table[text->metric];
  char name[METRICS_NAME_LEN];
  metrics_print_name(metric, false, name);
  print_head(to, metric, name);
  evbuffer_add_printf(to, "%s %" PRIu64 "\n", name, text->daemon[text->metric]);
}

bool metrics_text_next(struct metrics_text *text, struct evbuffer *to) {
  if (text->metric == METRICS_N)
    return false;
  const struct metric *metric = &metrics_table[text->metric];
  bool is_more = false;
  if (text->image == 0 && metric->of & METRIC_OF_DAEMON)
    print_daemon(text, to);
  if (metric->of & (METRIC_OF_IMAGE | METRIC_OF_SOURCE)) {
    char name[METRICS_NAME_LEN];
    metrics_print_name(metric, true, name);
    if (text->image == 0)
      print_head(to, metric, name);
    is_more = print_images(text, to, name);
  }
  if (!is_more) {
    text->metric++;
    text->image = 0;
  }
  return true;
}
