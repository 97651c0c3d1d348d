/* How far a long piece of work is: shown if standard error is a terminal. */
#ifndef CLIENT_COMMAND_PROGRESS_H
#define CLIENT_COMMAND_PROGRESS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct progress {
  const char *act;            /* NULL: nothing is shown */
  uint64_t total;             /* bytes */
  int64_t begun_ms, shown_ms; /* when it began, and was shown last, by
                                 deadline_now() */
};

struct progress progress_begin(const char *act, uint64_t total);
void progress_show(struct progress *p, uint64_t done);
void progress_end(struct progress *p);

/* What is shown `ms` after the beginning: a bar, its rate, the time left. */
enum { PROGRESS_LINE_LEN = 160 };
void progress_print(const struct progress *p, uint64_t done, int64_t ms,
                    char line[PROGRESS_LINE_LEN]);

#ifdef __cplusplus
}
#endif

#endif
