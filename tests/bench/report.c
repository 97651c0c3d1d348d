#include "tests/bench/report.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/bench/rig.h"

enum { MAX_CELLS = 2048, MAX_TARGETS = 128, MAX_NOTES = 64 };

struct cell {
  struct report_key key;
  size_t n;
  double samples[REPORT_MAX_ROUNDS];
};

struct target {
  char text[160];
  enum report_sense sense;
  double bound, value;
};

struct note {
  const char *section;
  char text[240];
};

struct report {
  struct cell cells[MAX_CELLS];
  struct target targets[MAX_TARGETS];
  struct note notes[MAX_NOTES];
  size_t n_cells, n_targets, n_notes;
};

struct report *report_new(void) {
  struct report *r = calloc(1, sizeof *r);
  if (!r)
    rig_fail("no memory");
  return r;
}

void report_free(struct report *r) { free(r); }

/* ---- Cells --------------------------------------------------------------- */

static bool same(const char *a, const char *b) { return strcmp(a, b) == 0; }

static bool same_table(const struct cell *c, const char *section,
                       const char *metric) {
  return same(c->key.section, section) && same(c->key.metric, metric);
}

static const struct cell *find(const struct report *r, struct report_key key) {
  for (size_t i = 0; i < r->n_cells; i++) {
    const struct cell *c = &r->cells[i];
    if (same_table(c, key.section, key.metric) && same(c->key.row, key.row) &&
        same(c->key.column, key.column))
      return c;
  }
  return NULL;
}

void report_add(struct report *r, struct report_key key, double value) {
  struct cell *c = (struct cell *)find(r, key);
  if (!c) {
    if (r->n_cells == MAX_CELLS)
      rig_fail("the report is full");
    c = &r->cells[r->n_cells++];
    c->key = key;
  }
  if (c->n == REPORT_MAX_ROUNDS)
    rig_fail("%s, %s: too many rounds", key.row, key.column);
  c->samples[c->n++] = value;
}

static double median_of(const double *samples, size_t n) {
  double scratch[REPORT_MAX_ROUNDS];
  if (n == 0)
    return NAN;
  memcpy(scratch, samples, n * sizeof *samples);
  return rig_median(scratch, n);
}

static double median_of_cell(const struct cell *c) {
  return c ? median_of(c->samples, c->n) : NAN;
}

double report_median(const struct report *r, struct report_key key) {
  return median_of_cell(find(r, key));
}

double report_ratio(const struct report *r, struct report_key key,
                    struct report_key other) {
  double ratios[REPORT_MAX_ROUNDS];
  const struct cell *a = find(r, key), *b = find(r, other);
  size_t n = a && b ? (a->n < b->n ? a->n : b->n) : 0;
  for (size_t i = 0; i < n; i++)
    ratios[i] = a->samples[i] / b->samples[i];
  return median_of(ratios, n);
}

double report_ratio_to(const struct report *r, struct report_key key,
                       const char *column) {
  struct report_key other = key;
  other.column = column;
  return report_ratio(r, key, other);
}

static bool is_named(const char *name, const char *const names[]) {
  for (; *names; names++)
    if (same(name, *names))
      return true;
  return false;
}

double report_ratio_to_best(const struct report *r, struct report_key key,
                            bool most, const char *const except[],
                            const char **best) {
  double best_ratio = NAN;
  for (size_t i = 0; i < r->n_cells; i++) {
    const struct cell *c = &r->cells[i];
    if (!same_table(c, key.section, key.metric) || !same(c->key.row, key.row) ||
        same(c->key.column, key.column) || is_named(c->key.column, except))
      continue;
    double ratio = report_ratio_to(r, key, c->key.column);
    if (isnan(best_ratio) || (most ? ratio < best_ratio : ratio > best_ratio)) {
      best_ratio = ratio;
      *best = c->key.column;
    }
  }
  return best_ratio;
}

/* ---- Targets and notes --------------------------------------------------- */

void report_target(struct report *r, enum report_sense sense, double bound,
                   double value, const char *format, ...) {
  va_list args;
  if (isnan(value))
    return; /* what it is held against is missing, and a note says so */
  if (r->n_targets == MAX_TARGETS)
    rig_fail("the report is full");
  struct target *t = &r->targets[r->n_targets++];
  *t = (struct target){.sense = sense, .bound = bound, .value = value};
  va_start(args, format);
  vsnprintf(t->text, sizeof t->text, format, args);
  va_end(args);
}

static bool is_reached(const struct target *t) {
  return t->sense == REPORT_AT_LEAST ? t->value >= t->bound
                                     : t->value <= t->bound;
}

void report_note(struct report *r, const char *section, const char *format,
                 ...) {
  va_list args;
  if (r->n_notes == MAX_NOTES)
    rig_fail("the report is full");
  struct note *n = &r->notes[r->n_notes++];
  n->section = section;
  va_start(args, format);
  vsnprintf(n->text, sizeof n->text, format, args);
  va_end(args);
}

/* ---- Markdown ------------------------------------------------------------ */

static void names_add(struct report_names *names, const char *name) {
  for (size_t i = 0; i < names->n; i++)
    if (same(names->at[i], name))
      return;
  if (names->n < REPORT_MAX_NAMES)
    names->at[names->n++] = name;
}

void report_names_of(const struct report *r, const char *section,
                     const char *metric, struct report_names *rows,
                     struct report_names *columns) {
  rows->n = columns->n = 0;
  for (size_t i = 0; i < r->n_cells; i++) {
    const struct cell *c = &r->cells[i];
    if (!same_table(c, section, metric))
      continue;
    names_add(rows, c->key.row);
    names_add(columns, c->key.column);
  }
}

/* Three digits that count, or what is before the point. */
static void print_number(FILE *out, double value) {
  double size = fabs(value);
  if (isnan(value))
    fputs("-", out);
  else
    fprintf(out, "%.*f",
            size >= 100 || size == 0 ? 0
            : size >= 10             ? 1
                                     : 2,
            value);
}

static void print_table(const struct report *r, const char *section,
                        const char *metric) {
  struct report_names rows, columns;
  report_names_of(r, section, metric, &rows, &columns);
  printf("\n| %s |", metric);
  for (size_t i = 0; i < columns.n; i++)
    printf(" %s |", columns.at[i]);
  printf("\n| --- |");
  for (size_t i = 0; i < columns.n; i++)
    printf(" ---: |");
  for (size_t row = 0; row < rows.n; row++) {
    printf("\n| %s |", rows.at[row]);
    for (size_t i = 0; i < columns.n; i++) {
      struct report_key key = {section, metric, rows.at[row], columns.at[i]};
      printf(" ");
      print_number(stdout, report_median(r, key));
      printf(" |");
    }
  }
  printf("\n");
}

static void print_section(const struct report *r, const char *section) {
  struct report_names metrics = {0};
  printf("\n### %s\n", section);
  for (size_t i = 0; i < r->n_cells; i++)
    if (same(r->cells[i].key.section, section))
      names_add(&metrics, r->cells[i].key.metric);
  for (size_t i = 0; i < metrics.n; i++)
    print_table(r, section, metrics.at[i]);
  for (size_t i = 0; i < r->n_notes; i++)
    if (same(r->notes[i].section, section))
      printf("\n%s\n", r->notes[i].text);
}

static void print_targets(const struct report *r) {
  if (r->n_targets == 0)
    return;
  printf("| figure | measured | to reach | |\n| --- | ---: | --- | --- |\n");
  for (size_t i = 0; i < r->n_targets; i++) {
    const struct target *t = &r->targets[i];
    printf("| %s | ", t->text);
    print_number(stdout, t->value);
    printf(" | at %s %g | %s |\n",
           t->sense == REPORT_AT_LEAST ? "least" : "most", t->bound,
           is_reached(t) ? "reached" : "**missed**");
  }
}

static struct report_names sections_of(const struct report *r) {
  struct report_names sections = {0};
  for (size_t i = 0; i < r->n_cells; i++)
    names_add(&sections, r->cells[i].key.section);
  for (size_t i = 0; i < r->n_notes; i++)
    names_add(&sections, r->notes[i].section);
  return sections;
}

void report_print(const struct report *r) {
  struct report_names sections = sections_of(r);
  print_targets(r);
  for (size_t i = 0; i < sections.n; i++)
    print_section(r, sections.at[i]);
  fflush(stdout);
}

/* ---- JSON ---------------------------------------------------------------- */

/* Names here are plain text. */
static void put_string(FILE *out, const char *text) {
  fputc('"', out);
  for (; *text; text++) {
    if (*text == '"' || *text == '\\')
      fputc('\\', out);
    fputc(*text, out);
  }
  fputc('"', out);
}

static void put_field(FILE *out, const char *name, const char *text) {
  fprintf(out, "\"%s\": ", name);
  put_string(out, text);
  fputs(", ", out);
}

/* JSON has no infinity, and nothing that is no number. */
static void put_number(FILE *out, double value) {
  if (isfinite(value))
    fprintf(out, "%.6g", value);
  else
    fputs("null", out);
}

static void put_cell(FILE *out, const struct cell *c) {
  fputs("    {", out);
  put_field(out, "section", c->key.section);
  put_field(out, "metric", c->key.metric);
  put_field(out, "row", c->key.row);
  put_field(out, "column", c->key.column);
  fputs("\"median\": ", out);
  put_number(out, median_of_cell(c));
  fputs(", \"rounds\": [", out);
  for (size_t i = 0; i < c->n; i++) {
    fputs(i ? ", " : "", out);
    put_number(out, c->samples[i]);
  }
  fputs("]}", out);
}

static void put_target(FILE *out, const struct target *t) {
  fputs("    {", out);
  put_field(out, "figure", t->text);
  fprintf(out, "\"%s\": %g, \"measured\": %.6g, \"reached\": %s}",
          t->sense == REPORT_AT_LEAST ? "at_least" : "at_most", t->bound,
          t->value, is_reached(t) ? "true" : "false");
}

void report_write_json(const struct report *r, const char *path) {
  FILE *out = fopen(path, "we");
  if (!out)
    rig_fail("%s: %s", path, strerror(errno));
  fputs("{\n  \"targets\": [\n", out);
  for (size_t i = 0; i < r->n_targets; i++) {
    put_target(out, &r->targets[i]);
    fputs(i + 1 < r->n_targets ? ",\n" : "\n", out);
  }
  fputs("  ],\n  \"cells\": [\n", out);
  for (size_t i = 0; i < r->n_cells; i++) {
    put_cell(out, &r->cells[i]);
    fputs(i + 1 < r->n_cells ? ",\n" : "\n", out);
  }
  fputs("  ]\n}\n", out);
  if (fclose(out) != 0)
    rig_fail("%s: write: %s", path, strerror(errno));
}
