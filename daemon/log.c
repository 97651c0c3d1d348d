#include "daemon/log.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Lines a peer can cause: so many at once, so many a second from then on. */
enum { BUCKET_BURST = 20, BUCKET_PER_SECOND = 5 };

/* A line is built here and cut at its end: longer ones carry no news. */
struct line {
  char bytes[1024];
  size_t len;
};

static enum log_level threshold = LEVEL_INFO; /* set before threads start */

static struct {
  pthread_mutex_t lock;
  double tokens;         /* guarded by lock, as are the rest */
  struct timespec since; /* when `tokens` was right */
  uint64_t n_dropped;
} bucket = {.lock = PTHREAD_MUTEX_INITIALIZER, .tokens = BUCKET_BURST};

static const char *const level_names[] = {
    [LEVEL_ERROR] = "error",
    [LEVEL_WARN] = "warn",
    [LEVEL_INFO] = "info",
    [LEVEL_DEBUG] = "debug",
};

/* syslog(3) priorities, by level. */
static const char level_priorities[] = {'3', '4', '6', '7'};

enum { N_LEVELS = sizeof level_names / sizeof level_names[0] };

const char *log_level_name(enum log_level level) { return level_names[level]; }

int log_level_parse(const char *name) {
  for (int i = 0; i < N_LEVELS; i++)
    if (strcmp(name, level_names[i]) == 0)
      return i;
  return -1;
}

void log_set_level(enum log_level level) { threshold = level; }

static void line_put(struct line *line, char c) {
  if (line->len < sizeof line->bytes - 1) /* room for the newline */
    line->bytes[line->len++] = c;
}

static void line_text(struct line *line, const char *text) {
  while (*text)
    line_put(line, *text++);
}

static bool value_is_plain(const char *text) {
  if (!*text)
    return false;
  for (const char *p = text; *p; p++)
    if (!isalnum((unsigned char)*p) && !strchr("/._-:+@,%[]", *p))
      return false;
  return true;
}

/* Quotes as C does: no byte of a value can end the line or the quotes. */
static void line_quoted(struct line *line, const char *text) {
  line_put(line, '"');
  for (const char *p = text; *p; p++) {
    unsigned char c = (unsigned char)*p;
    char escaped[5];
    if (c == '"' || c == '\\')
      line_put(line, '\\');
    if (c >= 0x20 && c < 0x7f) {
      line_put(line, (char)c);
    } else {
      snprintf(escaped, sizeof escaped, "\\x%02x", c);
      line_text(line, escaped);
    }
  }
  line_put(line, '"');
}

static void line_field(struct line *line, const struct log_field *field) {
  char number[24];
  line_put(line, ' ');
  line_text(line, field->key);
  line_put(line, '=');
  if (!field->text) {
    snprintf(number, sizeof number, "%lld", (long long)field->number);
    line_text(line, number);
  } else if (value_is_plain(field->text)) {
    line_text(line, field->text);
  } else {
    line_quoted(line, field->text);
  }
}

static void line_begin(struct line *line, enum log_level level,
                       const char *event) {
  line->len = 0;
  if (getenv("JOURNAL_STREAM")) {
    line_put(line, '<');
    line_put(line, level_priorities[level]);
    line_put(line, '>');
  }
  line_text(line, "level=");
  line_text(line, level_names[level]);
  line_text(line, " event=");
  line_text(line, event);
}

static void line_end(struct line *line) {
  line->bytes[line->len++] = '\n';
  /* A log that cannot be written has nowhere to say so. */
  ssize_t n = write(STDERR_FILENO, line->bytes, line->len);
  (void)n;
}

void log_write(enum log_level level, const char *event,
               const struct log_field *fields) {
  if (level > threshold)
    return;
  struct line line;
  line_begin(&line, level, event);
  for (const struct log_field *f = fields; f->key; f++)
    line_field(&line, f);
  line_end(&line);
}

/* Takes a token.  True if there was one; then `*n_dropped` is how many lines
 * were dropped since the last that got through. */
static bool bucket_take(uint64_t *n_dropped) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  pthread_mutex_lock(&bucket.lock);
  bucket.tokens +=
      BUCKET_PER_SECOND * ((double)(now.tv_sec - bucket.since.tv_sec) +
                           (double)(now.tv_nsec - bucket.since.tv_nsec) / 1e9);
  if (bucket.tokens > BUCKET_BURST)
    bucket.tokens = BUCKET_BURST;
  bucket.since = now;
  bool taken = bucket.tokens >= 1;
  if (taken) {
    bucket.tokens -= 1;
    *n_dropped = bucket.n_dropped;
    bucket.n_dropped = 0;
  } else {
    bucket.n_dropped++;
  }
  pthread_mutex_unlock(&bucket.lock);
  return taken;
}

void log_peer(enum log_level level, const char *event,
              const struct log_field *fields) {
  uint64_t n_dropped;
  if (level > threshold || !bucket_take(&n_dropped))
    return;
  struct line line;
  line_begin(&line, level, event);
  for (const struct log_field *f = fields; f->key; f++)
    line_field(&line, f);
  if (n_dropped)
    line_field(&line, &LOG_NUMBER("lines_dropped", n_dropped));
  line_end(&line);
}
