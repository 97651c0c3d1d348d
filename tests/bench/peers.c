/* peers: cachetd's socket path beside servers that others wrote, and beside the
 * least that such a server can do.
 *
 *   peers [--quick] [--json FILE] [--svg DIR] [--only SECTION]
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "tests/bench/cells.h"

struct options {
  bool is_quick;
  const char *json, *svg, *only;
};

static const struct section {
  const char *name;
  void (*run)(struct bench *b);
} sections[] = {
    {"batch", cells_batch},
    {"ranges", cells_ranges},
    {"idle", cells_idle},
    {"isolation", cells_isolation},
};

enum { N_SECTIONS = sizeof sections / sizeof *sections };

static bool parse(int argc, char **argv, struct options *out) {
  *out = (struct options){0};
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    const char **where = NULL;
    if (strcmp(argv[i], "--quick") == 0) {
      out->is_quick = true;
      continue;
    }
    if (strcmp(argv[i], "--json") == 0)
      where = &out->json;
    else if (strcmp(argv[i], "--svg") == 0)
      where = &out->svg;
    else if (strcmp(argv[i], "--only") == 0)
      where = &out->only;
    if (!where || !value)
      return false;
    *where = value;
    i++;
  }
  return true;
}

static void note_missing(const struct bench *b) {
  for (enum system system = 0; system < N_SYSTEMS; system++)
    if (b->servers.missing[system][0])
      report_note(b->report, "Missing", "%s", b->servers.missing[system]);
}

/* For thousands of connections, here and in the servers. */
static void raise_file_limit(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
  static struct bench b;
  struct options o;
  if (!parse(argc, argv, &o)) {
    fputs("usage: peers [--quick] [--json FILE] [--svg DIR] [--only SECTION]\n",
          stderr);
    return 2;
  }
  b.is_quick = o.is_quick;
  b.n_rounds = o.is_quick ? 3 : 5;
  b.seconds = o.is_quick ? 0.08 : 0.5;
  b.report = report_new();
  raise_file_limit();
  servers_start(&b.servers, rig_make(256 << 20, RIG_CHUNK));
  note_missing(&b);
  for (size_t i = 0; i < N_SECTIONS; i++)
    if (!o.only || strcmp(o.only, sections[i].name) == 0)
      sections[i].run(&b);
  report_print(b.report);
  if (o.json)
    report_write_json(b.report, o.json);
  report_free(b.report);
  return 0;
}
