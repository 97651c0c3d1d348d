/* The log: one line of key=value to standard error for each event.
 *
 *     time=2026-11-25T20:26:09.123Z level=info event=ready images=1
 *
 * Values that hold anything but plain characters are quoted and escaped: they
 * may come from a peer.  Where standard error is the journal, which stamps the
 * lines itself, a line begins with "<N>", its priority, in place of the time.
 *
 * Any thread may log, and none waits for the reader of standard error:
 *
 *   G1  From log_start() to log_stop() only the log's own thread writes.  A
 *       line goes to it through a queue of QUEUE_LEN bytes.
 *   G2  A line that finds the queue full is dropped, as is one whose write(2)
 *       fails.  The next line that enters the queue says how many were.
 *   G3  A line is one write(2), unless standard error takes less.
 *
 * What a peer can cause goes through log_peer(): a token bucket for all such
 * lines together.  The next line that gets through says how many did not. */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum log_level { LEVEL_ERROR, LEVEL_WARN, LEVEL_INFO, LEVEL_DEBUG };

/* One key=value.  `text` NULL: the value is `number`. */
struct log_field {
  const char *key; /* NULL ends a list */
  const char *text;
  int64_t number;
};

#define LOG_TEXT(key_, text_) ((struct log_field){key_, text_, 0})
#define LOG_NUMBER(key_, number_)                                              \
  ((struct log_field){key_, 0, (int64_t)(number_)})
#define LOG_END ((struct log_field){0, 0, 0})

/* The level of a name; -1: there is none such. */
int log_level_parse(const char *name);

/* What is less urgent than `level` is dropped.  The default is info. */
void log_set_level(enum log_level level);

/* Makes the log's thread, which calls `began` first; NULL: it does not.  Before
 * that, a line is written by the thread that logs it.  0, or a negative errno.
 */
int log_start(void (*began)(void));

/* Ends the thread when all lines are written, and waits for that at most
 * `timeout_ms`.  The thread outlives this call if its write(2) does. */
void log_stop(int timeout_ms);

void log_write(enum log_level level, const char *event,
               const struct log_field *fields);
void log_peer(enum log_level level, const char *event,
              const struct log_field *fields);

/* log_event(LEVEL_INFO, "ready", LOG_NUMBER("images", 1)); at least one. */
#define log_event(level, event, ...)                                           \
  log_write(level, event, (const struct log_field[]){__VA_ARGS__, LOG_END})
#define log_peer_event(level, event, ...)                                      \
  log_peer(level, event, (const struct log_field[]){__VA_ARGS__, LOG_END})

#ifdef __cplusplus
}
#endif

#endif
