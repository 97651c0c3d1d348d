/* report: what was measured, as Markdown, as JSON and as plots.
 *
 * A sample belongs to a section, a metric of it, a row (what was asked for) and
 * a column (of which system); the nth sample of one cell is its nth round.
 * Tables show medians; ratios are medians of the ratios of each round.
 *
 * Names are kept as pointers: they outlive the report. */
#ifndef TESTS_BENCH_REPORT_H
#define TESTS_BENCH_REPORT_H

#include <stdbool.h>
#include <stddef.h>

enum { REPORT_MAX_ROUNDS = 16 };

struct report_key {
  const char *section, *metric, *row, *column;
};

struct report;
struct report *report_new(void);
void report_free(struct report *r);

void report_add(struct report *r, struct report_key key, double value);

/* NAN: there is none. */
double report_median(const struct report *r, struct report_key key);

/* The one cell's samples by the other's, or by another column's. */
double report_ratio(const struct report *r, struct report_key key,
                    struct report_key other);
double report_ratio_to(const struct report *r, struct report_key key,
                       const char *column);

/* The ratio to the best of all other columns but `except`: the one that is
 * highest (`most`) or lowest.  `*best` names it. */
double report_ratio_to_best(const struct report *r, struct report_key key,
                            bool most, const char *const except[],
                            const char **best);

enum report_sense { REPORT_AT_LEAST, REPORT_AT_MOST };

/* A figure, and what it has to reach.  `text` says what it is, in a unit where
 * it is no ratio. */
void report_target(struct report *r, enum report_sense sense, double bound,
                   double value, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/* A line below a section's tables: what is missing, and the like. */
void report_note(struct report *r, const char *section, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* To standard output. */
void report_print(const struct report *r);

/* Ends the program if the file cannot be written. */
void report_write_json(const struct report *r, const char *path);

/* The distinct rows and columns of a section's metric, in the order in which
 * they came. */
enum { REPORT_MAX_NAMES = 64 };
struct report_names {
  size_t n;
  const char *at[REPORT_MAX_NAMES];
};
void report_names_of(const struct report *r, const char *section,
                     const char *metric, struct report_names *rows,
                     struct report_names *columns);

#endif
