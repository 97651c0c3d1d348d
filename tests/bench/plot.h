/* plot: a table of a report as a drawing, in SVG: a line for each column, over
 * rows whose names are numbers. */
#ifndef TESTS_BENCH_PLOT_H
#define TESTS_BENCH_PLOT_H

#include "tests/bench/report.h"

struct plot {
  const char *file, *title;
  const char *section, *metric; /* the table; the metric names the y axis */
  const char *x_label;
};

/* Writes it to a directory, made if it is not there.  Nothing if the report has
 * no such table; ends the program if the file cannot be written. */
void plot_write(const struct report *r, const struct plot *plot,
                const char *dir);

#endif
