/* The floor: what the same pages cost a process that has them mapped, or open.
 * No server is asked. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/cells.h"

static const char section[] = "The floor, in this process";
static const char metric[] = "thousand pages/s";

enum { N_PAGES = 200000 };

static volatile uint8_t sink;

struct floor {
  const struct servers *servers;
  struct load_random random;
  uint8_t page[RIG_PAGE];
};

static uint64_t next_offset(struct floor *f) {
  struct load_read read;
  load_pick_random(&f->random, &read);
  return read.offset;
}

static void touch(struct floor *f) { sink = f->servers->map[next_offset(f)]; }

static void copy(struct floor *f) {
  memcpy(f->page, f->servers->map + next_offset(f), RIG_PAGE);
  __asm__ volatile("" : : "r"(f->page) : "memory");
}

static void read_file(struct floor *f) {
  if (pread(f->servers->rig->fd, f->page, RIG_PAGE, (off_t)next_offset(f)) !=
      RIG_PAGE)
    rig_fail("pread: %s", strerror(errno));
}

static const struct way {
  const char *name;
  void (*act)(struct floor *f);
} ways[] = {
    {"touch a mapping", touch},
    {"memcpy from it", copy},
    {"pread", read_file},
};

void cells_floor(struct bench *b) {
  static struct floor f;
  f.servers = &b->servers;
  for (unsigned round = 0; round < b->n_rounds; round++)
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
      load_random_init(&f.random, b->servers.rig->size, RIG_PAGE, RIG_PAGE);
      double start = rig_now_ns(CLOCK_MONOTONIC);
      for (int n = 0; n < N_PAGES; n++)
        ways[i].act(&f);
      double took = rig_now_ns(CLOCK_MONOTONIC) - start;
      struct report_key key = {section, metric, "random 4 KiB", ways[i].name};
      report_add(b->report, key, N_PAGES / took * 1e6);
    }
}
