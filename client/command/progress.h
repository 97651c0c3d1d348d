/* How far a long piece of work is: shown if standard error is a terminal. */
#ifndef CLIENT_COMMAND_PROGRESS_H
#define CLIENT_COMMAND_PROGRESS_H

#include <stdint.h>

struct progress {
  const char *act; /* NULL: nothing is shown */
  uint64_t total;
  int64_t shown_ms; /* when it was shown last, by deadline_now() */
};

struct progress progress_begin(const char *act, uint64_t total);
void progress_show(struct progress *p, uint64_t done);
void progress_end(struct progress *p);

#endif
