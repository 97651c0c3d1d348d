#include "tests/bench/plot.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/bench/rig.h"

enum {
  WIDTH = 800,
  HEIGHT = 400,
  LEFT = 64,
  RIGHT = 580,
  TOP = 56,
  BOTTOM = 350
};

static const char *const colors[] = {"#0b62a4", "#222222", "#c1432b",
                                     "#2f8f4e", "#8a5fbf", "#c98a12",
                                     "#3aa6b9", "#7f7f7f"};

enum { N_COLORS = sizeof colors / sizeof *colors };

/* Where values are on the page: x in powers of two, y from 0 up. */
struct scale {
  double x_min, x_max, y_max, y_step;
};

static double x_at(const struct scale *s, double x) {
  double span = s->x_max > s->x_min ? log2(s->x_max / s->x_min) : 1;
  return LEFT + log2(x / s->x_min) / span * (RIGHT - LEFT);
}

static double y_at(const struct scale *s, double y) {
  return BOTTOM - y / s->y_max * (BOTTOM - TOP);
}

/* About five steps of 1, 2 or 5 times a power of ten. */
static double round_step(double max) {
  double step = pow(10, floor(log10(max / 5)));
  return max / 5 <= step ? step : max / 5 <= 2 * step ? 2 * step : 5 * step;
}

static struct scale find_scale(const struct report *r, const struct plot *p,
                               const struct report_names *rows,
                               const struct report_names *columns) {
  struct scale s = {.x_min = INFINITY};
  double max = 0;
  for (size_t i = 0; i < rows->n; i++) {
    s.x_min = fmin(s.x_min, strtod(rows->at[i], NULL));
    s.x_max = fmax(s.x_max, strtod(rows->at[i], NULL));
    for (size_t k = 0; k < columns->n; k++) {
      struct report_key key = {p->section, p->metric, rows->at[i],
                               columns->at[k]};
      max = fmax(max, report_median(r, key));
    }
  }
  s.y_step = round_step(max);
  s.y_max = ceil(max / s.y_step) * s.y_step;
  return s;
}

static void put_text(FILE *out, double x, double y, const char *more,
                     const char *text) {
  fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>%s</text>\n", x, y, more, text);
}

static void draw_axes(FILE *out, const struct plot *p, const struct scale *s,
                      const struct report_names *rows) {
  char text[32];
  put_text(out, LEFT, 20, "font-weight=\"bold\"", p->title);
  put_text(out, LEFT, TOP - 8, "fill=\"#555\"", p->metric);
  put_text(out, (LEFT + RIGHT) / 2.0, HEIGHT - 10,
           "fill=\"#555\" text-anchor=\"middle\"", p->x_label);
  for (double y = 0; y <= s->y_max * 1.001; y += s->y_step) {
    fprintf(out,
            "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" "
            "stroke=\"#ddd\"/>\n",
            LEFT, RIGHT, y_at(s, y), y_at(s, y));
    snprintf(text, sizeof text, "%g", y);
    put_text(out, LEFT - 6, y_at(s, y) + 4, "text-anchor=\"end\"", text);
  }
  for (size_t i = 0; i < rows->n; i++)
    put_text(out, x_at(s, strtod(rows->at[i], NULL)), BOTTOM + 18,
             "text-anchor=\"middle\"", rows->at[i]);
}

static void draw_line(FILE *out, const struct report *r, const struct plot *p,
                      const struct scale *s, const struct report_names *rows,
                      const char *column, size_t index) {
  const char *color = colors[index % N_COLORS];
  double legend_y = TOP + 8 + 20.0 * (double)index;
  fprintf(out,
          "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"",
          color);
  for (size_t i = 0; i < rows->n; i++) {
    struct report_key key = {p->section, p->metric, rows->at[i], column};
    double value = report_median(r, key);
    if (!isnan(value))
      fprintf(out, "%.1f,%.1f ", x_at(s, strtod(rows->at[i], NULL)),
              y_at(s, value));
  }
  fprintf(out,
          "\"/>\n<rect x=\"%d\" y=\"%.1f\" width=\"14\" height=\"4\" "
          "fill=\"%s\"/>\n",
          RIGHT + 14, legend_y - 6, color);
  put_text(out, RIGHT + 34, legend_y, "", column);
}

void plot_write(const struct report *r, const struct plot *p, const char *dir) {
  struct report_names rows, columns;
  char path[512];
  report_names_of(r, p->section, p->metric, &rows, &columns);
  if (rows.n == 0)
    return;
  mkdir(dir, 0777); /* if it is not there; else the next call tells */
  snprintf(path, sizeof path, "%s/%s", dir, p->file);
  FILE *out = fopen(path, "we");
  if (!out)
    rig_fail("%s: %s", path, strerror(errno));
  struct scale scale = find_scale(r, p, &rows, &columns);
  fprintf(out,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
          "font-family=\"sans-serif\" font-size=\"12\">\n"
          "<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
          WIDTH, HEIGHT, WIDTH, HEIGHT);
  draw_axes(out, p, &scale, &rows);
  for (size_t i = 0; i < columns.n; i++)
    draw_line(out, r, p, &scale, &rows, columns.at[i], i);
  fputs("</svg>\n", out);
  if (fclose(out) != 0)
    rig_fail("%s: write: %s", path, strerror(errno));
}
