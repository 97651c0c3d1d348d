#include "client/command/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "base/deadline.h"

enum { INTERVAL_MS = 200 };

struct progress progress_begin(const char *act, uint64_t total) {
  return (struct progress){
      .act = isatty(STDERR_FILENO) ? act : NULL,
      .total = total,
      .shown_ms = deadline_now(),
  };
}

void progress_show(struct progress *p, uint64_t done) {
  int64_t now = deadline_now();
  if (!p->act || now - p->shown_ms < INTERVAL_MS)
    return;
  p->shown_ms = now;
  fprintf(stderr, "\r%s: %3.0f %%", p->act,
          100.0 * (double)done / (double)p->total);
}

void progress_end(struct progress *p) {
  if (p->act)
    fputs("\r\033[K", stderr);
}
