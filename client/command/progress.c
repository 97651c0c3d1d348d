#include "client/command/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/deadline.h"

enum {
  INTERVAL_MS = 200,
  /* Before that a rate says nothing. */
  RATE_FROM_MS = 500,
  BAR_LEN = 24,
};

struct progress progress_begin(const char *act, uint64_t total) {
  int64_t now = deadline_now();
  return (struct progress){
      .act = isatty(STDERR_FILENO) ? act : NULL,
      .total = total,
      .begun_ms = now,
      .shown_ms = now,
  };
}

static void print_bar(double part, char bar[BAR_LEN + 1]) {
  int n = (int)(part * BAR_LEN);
  memset(bar, '.', BAR_LEN);
  memset(bar, '#', (size_t)n);
  bar[BAR_LEN] = '\0';
}

/* The time that is left at that rate, in bytes a millisecond. */
static void print_left(double left, double rate, char *text, size_t len) {
  double s = left / rate / 1000;
  if (s < 60)
    snprintf(text, len, "%.0f s", s);
  else if (s < 360000)
    snprintf(text, len, "%.0f min", s / 60);
  else
    snprintf(text, len, "long");
}

void progress_print(const struct progress *p, uint64_t done, int64_t ms,
                    char line[PROGRESS_LINE_LEN]) {
  char bar[BAR_LEN + 1], left[32];
  if (done > p->total)
    done = p->total;
  double part = p->total ? (double)done / (double)p->total : 1;
  print_bar(part, bar);
  int n = snprintf(line, PROGRESS_LINE_LEN, "%.20s: [%s] %3.0f %%", p->act, bar,
                   100 * part);
  if (done == 0 || ms < RATE_FROM_MS)
    return;
  double rate = (double)done / (double)ms;
  print_left((double)(p->total - done), rate, left, sizeof left);
  snprintf(line + n, PROGRESS_LINE_LEN - (size_t)n, ", %.1f MB/s, %s left",
           rate / 1000, left);
}

void progress_show(struct progress *p, uint64_t done) {
  char line[PROGRESS_LINE_LEN];
  int64_t now = deadline_now();
  if (!p->act || now - p->shown_ms < INTERVAL_MS)
    return;
  p->shown_ms = now;
  progress_print(p, done, now - p->begun_ms, line);
  fprintf(stderr, "\r%s\033[K", line);
}

void progress_end(struct progress *p) {
  if (p->act)
    fputs("\r\033[K", stderr);
}
