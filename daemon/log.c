#include "daemon/log.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/lock.h"

/* The limit of lines that peers cause: so many at once, and then so many a
 * second. */
enum { BUCKET_BURST = 20, BUCKET_PER_SECOND = 5 };

enum {
  LINE_LEN = 1024,       /* at most, with the newline */
  LINE_TAIL_LEN = 40,    /* of it " lines_dropped=N" and the newline */
  QUEUE_LEN = 256 << 10, /* bytes of lines that wait to be written */
};

/* A line is built here.  What does not fit is cut off. */
struct line {
  char bytes[LINE_LEN];
  size_t len, most;
};

static _Atomic enum log_level threshold = LEVEL_INFO; /* relaxed */

static struct {
  pthread_mutex_t lock;
  double tokens;         /* guarded by lock, as are the rest */
  struct timespec since; /* when `tokens` was right */
  uint64_t n_dropped;
} bucket = {.lock = LOCK_INITIALIZER, .tokens = BUCKET_BURST};

/* The lines that the thread has not written yet, as a ring.  A line stays in it
 * until it was written.  So when the queue is empty the whole log is
 * written. */
static struct {
  pthread_mutex_t lock;  /* a leaf */
  pthread_cond_t filled; /* or stopping */
  pthread_cond_t ended;  /* the thread has; by the monotonic clock */
  pthread_t thread;      /* log_start() and log_stop() only */
  void (*began)(void);   /* fixed while there is the thread; or NULL */
  bool running;          /* guarded by lock, as are the rest */
  bool stopping;
  uint64_t n_dropped;
  size_t head, len;
  char bytes[QUEUE_LEN];
} queue = {.lock = LOCK_INITIALIZER, .filled = PTHREAD_COND_INITIALIZER};

static const char *const level_names[] = {
    [LEVEL_ERROR] = "error",
    [LEVEL_WARN] = "warn",
    [LEVEL_INFO] = "info",
    [LEVEL_DEBUG] = "debug",
};

/* syslog(3) priorities, by level. */
static const char level_priorities[] = {'3', '4', '6', '7'};

enum { N_LEVELS = sizeof level_names / sizeof level_names[0] };

int log_level_parse(const char *name) {
  for (int i = 0; i < N_LEVELS; i++)
    if (strcmp(name, level_names[i]) == 0)
      return i;
  return -1;
}

static bool is_wanted(enum log_level level) {
  return level <= atomic_load_explicit(&threshold, memory_order_relaxed);
}

void log_set_level(enum log_level level) {
  atomic_store_explicit(&threshold, level, memory_order_relaxed);
}

static void line_put(struct line *line, char c) {
  if (line->len < line->most)
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

/* Whether standard error is the journal.  The variable states the device and
 * inode of the journal's socket.  Both are compared, because standard error may
 * have been redirected since the variable was set. */
static bool journal_reads(void) {
  const char *stream = getenv("JOURNAL_STREAM");
  char ours[48];
  struct stat st;
  if (!stream || fstat(STDERR_FILENO, &st) < 0)
    return false;
  snprintf(ours, sizeof ours, "%ju:%ju", (uintmax_t)st.st_dev,
           (uintmax_t)st.st_ino);
  return strcmp(stream, ours) == 0;
}

static void line_time(struct line *line) {
  struct timespec now;
  struct tm utc;
  char text[40];
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  size_t len = strftime(text, sizeof text, "time=%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(text + len, sizeof text - len, ".%03dZ ",
           (int)(now.tv_nsec / 1000000));
  line_text(line, text);
}

static void line_begin(struct line *line, enum log_level level,
                       const char *event) {
  line->len = 0;
  line->most = sizeof line->bytes - LINE_TAIL_LEN;
  if (journal_reads()) {
    line_put(line, '<');
    line_put(line, level_priorities[level]);
    line_put(line, '>');
  } else {
    line_time(line);
  }
  line_text(line, "level=");
  line_text(line, level_names[level]);
  line_text(line, " event=");
  line_text(line, event);
}

static void line_fields(struct line *line, const struct log_field *fields) {
  for (const struct log_field *f = fields; f->key; f++)
    line_field(line, f);
}

/* ---- The queue and its thread -------------------------------------------- */

static void queue_put_locked(const char *bytes, size_t len) {
  lock_assert_held(&queue.lock);
  size_t at = (queue.head + queue.len) % QUEUE_LEN;
  size_t first = len < QUEUE_LEN - at ? len : QUEUE_LEN - at;
  memcpy(queue.bytes + at, bytes, first);
  memcpy(queue.bytes, bytes + first, len - first);
  queue.len += len;
}

/* Copies the oldest line; it stays in the queue. */
static size_t queue_first_locked(char to[LINE_LEN]) {
  lock_assert_held(&queue.lock);
  size_t len = 0;
  do {
    assert(len < LINE_LEN && len < queue.len);
    to[len] = queue.bytes[(queue.head + len) % QUEUE_LEN];
  } while (to[len++] != '\n');
  return len;
}

static void queue_drop_locked(size_t len) {
  lock_assert_held(&queue.lock);
  queue.head = (queue.head + len) % QUEUE_LEN;
  queue.len -= len;
}

/* Writes it, as long as that takes.  False: it cannot be written. */
static bool write_all(const char *bytes, size_t len) {
  struct pollfd p = {.fd = STDERR_FILENO, .events = POLLOUT};
  while (len) {
    ssize_t n = write(STDERR_FILENO, bytes, len);
    if (n > 0) {
      bytes += n;
      len -= (size_t)n;
    } else if (n < 0 && errno == EAGAIN) {
      /* Another process that shares the file made it non-blocking. */
      poll(&p, 1, -1);
    } else if (n == 0 || errno != EINTR) {
      return false;
    }
  }
  return true;
}

static void *log_thread(void *arg) {
  char line[LINE_LEN];
  (void)arg;
  pthread_setname_np(pthread_self(), "log");
  if (queue.began)
    queue.began();
  pthread_mutex_lock(&queue.lock);
  while (queue.len || !queue.stopping) {
    if (!queue.len) {
      pthread_cond_wait(&queue.filled, &queue.lock);
      continue;
    }
    size_t len = queue_first_locked(line);
    pthread_mutex_unlock(&queue.lock);
    bool written = write_all(line, len);
    pthread_mutex_lock(&queue.lock);
    queue.n_dropped += !written;
    queue_drop_locked(len);
  }
  queue.running = false;
  pthread_cond_signal(&queue.ended);
  pthread_mutex_unlock(&queue.lock);
  return NULL;
}

int log_start(void (*began)(void)) {
  pthread_condattr_t attr;
  sigset_t all, before;
  pthread_condattr_init(&attr);
  pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
  pthread_cond_init(&queue.ended, &attr);
  pthread_condattr_destroy(&attr);
  queue.began = began;
  queue.stopping = false;
  queue.running = true;
  /* The thread handles no signals, because it may wait for a slow reader. */
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int r = pthread_create(&queue.thread, NULL, log_thread, NULL);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (r)
    queue.running = false;
  return -r;
}

void log_stop(int timeout_ms) {
  struct timespec until = clock_after_ms(timeout_ms);
  pthread_mutex_lock(&queue.lock);
  queue.stopping = true;
  pthread_cond_signal(&queue.filled);
  int r = 0;
  while (queue.running && r != ETIMEDOUT)
    r = pthread_cond_timedwait(&queue.ended, &queue.lock, &until);
  bool ended = !queue.running;
  pthread_mutex_unlock(&queue.lock);
  if (ended)
    pthread_join(queue.thread, NULL);
  else
    pthread_detach(queue.thread);
}

/* Ends the line, and queues it for the thread.  `n_dropped` lines before it
 * were dropped by the limit. */
static void line_end(struct line *line, uint64_t n_dropped) {
  line->most = sizeof line->bytes - 1;
  pthread_mutex_lock(&queue.lock);
  n_dropped += queue.n_dropped;
  if (n_dropped)
    line_field(line, &LOG_NUMBER("lines_dropped", n_dropped));
  line->bytes[line->len++] = '\n';
  bool queued = queue.running;
  if (queued && line->len > QUEUE_LEN - queue.len) {
    queue.n_dropped = n_dropped + 1;
  } else {
    queue.n_dropped = 0;
    if (queued)
      queue_put_locked(line->bytes, line->len);
  }
  pthread_cond_signal(&queue.filled);
  pthread_mutex_unlock(&queue.lock);
  /* If this fails too, there is no place to report it. */
  if (!queued)
    write_all(line->bytes, line->len);
}

void log_write(enum log_level level, const char *event,
               const struct log_field *fields) {
  if (!is_wanted(level))
    return;
  struct line line;
  line_begin(&line, level, event);
  line_fields(&line, fields);
  line_end(&line, 0);
}

/* Takes a token of the limit.  True: there was one, and `*n_dropped` is how
 * many lines were dropped since the last token. */
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
  if (!is_wanted(level) || !bucket_take(&n_dropped))
    return;
  struct line line;
  line_begin(&line, level, event);
  line_fields(&line, fields);
  line_end(&line, n_dropped);
}
