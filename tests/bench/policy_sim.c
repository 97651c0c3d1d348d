#include "tests/bench/policy_sim.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cache/s3fifo.h"
#include "tests/bench/rig.h"

static void *must_calloc(size_t n, size_t size) {
  void *p = calloc(n, size);
  if (!p)
    rig_fail("no memory");
  return p;
}

/* ---- Traces -------------------------------------------------------------- */

/* How much more than the cache there is. */
enum { ZIPF_TIMES = 10, SCAN_TIMES = 10 };
#define LOOP_TIMES 1.05

/* The readers of one scan, and how many pages each is behind the one before. */
enum { N_READERS = 8, LAG = 16 };

static double random_part(uint64_t *state) {
  return (double)(rig_random(state) >> 11) * 0x1p-53;
}

/* Popularity falls with the rank, to the power of 0.99; which pages are popular
 * is spread over all of them. */
static void make_zipf(struct sim_trace *t, uint32_t n_cached) {
  uint64_t state = 11;
  t->n_pages = n_cached * ZIPF_TIMES;
  double *sums = must_calloc(t->n_pages + 1, sizeof *sums);
  for (uint32_t i = 0; i < t->n_pages; i++)
    sums[i + 1] = sums[i] + pow(i + 1, -0.99);
  for (size_t i = 0; i < t->n_reads; i++) {
    double at = random_part(&state) * sums[t->n_pages];
    uint32_t low = 0, high = t->n_pages;
    while (high - low > 1) {
      uint32_t middle = low + (high - low) / 2;
      if (sums[middle] <= at)
        low = middle;
      else
        high = middle;
    }
    t->reads[i] = (uint32_t)((uint64_t)low * 40503 % t->n_pages);
  }
  free(sums);
}

/* Half the reads are of a hot set as large as half the cache, the others walk
 * through ten times the cache. */
static void make_scan(struct sim_trace *t, uint32_t n_cached) {
  uint64_t state = 12;
  uint32_t hot = n_cached / 2, at = 0, walked = n_cached * SCAN_TIMES;
  t->n_pages = hot + walked;
  for (size_t i = 0; i < t->n_reads; i++)
    t->reads[i] =
        i % 2 ? (uint32_t)(rig_random(&state) % hot) : hot + at++ % walked;
}

static void make_loop(struct sim_trace *t, uint32_t n_cached) {
  t->n_pages = (uint32_t)(n_cached * LOOP_TIMES);
  for (size_t i = 0; i < t->n_reads; i++)
    t->reads[i] = (uint32_t)(i % t->n_pages);
}

/* Beside such a hot set, each page of the walk is read twice, the second time
 * just before the next page. */
static void make_paired(struct sim_trace *t, uint32_t n_cached) {
  uint64_t state = 13;
  uint32_t hot = n_cached / 2, walked = n_cached * SCAN_TIMES;
  t->n_pages = hot + walked;
  for (size_t i = 0; i < t->n_reads; i++)
    t->reads[i] = i % 3 ? hot + (uint32_t)(i / 3 % walked)
                        : (uint32_t)(rig_random(&state) % hot);
}

/* Beside such a hot set, which gets a third of the reads, several readers walk
 * one behind the other. */
static void make_lagging(struct sim_trace *t, uint32_t n_cached) {
  uint64_t state = 14;
  uint32_t hot = n_cached / 2, walked = n_cached * SCAN_TIMES;
  t->n_pages = hot + walked;
  for (size_t i = 0, turn = 0; i < t->n_reads; turn++) {
    size_t at = turn / N_READERS, behind = turn % N_READERS * LAG;
    if (at >= behind)
      t->reads[i++] = hot + (uint32_t)((at - behind) % walked);
    if (turn % 2 && i < t->n_reads)
      t->reads[i++] = (uint32_t)(rig_random(&state) % hot);
  }
}

void sim_traces_make(struct sim_trace traces[SIM_N_TRACES], uint32_t n_cached,
                     size_t n_reads) {
  static const struct {
    const char *name;
    void (*make)(struct sim_trace *t, uint32_t n_cached);
  } kinds[SIM_N_TRACES] = {
      {"zipf 0.99 over 10 caches", make_zipf},
      {"a scan, and a hot set of half the cache", make_scan},
      {"a scan that reads pages twice, and such a hot set", make_paired},
      {"eight scans, each 16 pages behind the one before, and such a hot set",
       make_lagging},
      {"a loop of 1.05 caches", make_loop},
  };
  for (int i = 0; i < SIM_N_TRACES; i++) {
    struct sim_trace *t = &traces[i];
    t->name = kinds[i].name;
    t->n_cached = n_cached;
    t->n_reads = n_reads;
    t->reads = must_calloc(n_reads, sizeof *t->reads);
    kinds[i].make(t, n_cached);
  }
}

void sim_traces_free(struct sim_trace traces[SIM_N_TRACES]) {
  for (int i = 0; i < SIM_N_TRACES; i++)
    free(traces[i].reads);
}

uint32_t sim_count_pages(const struct sim_trace *t) {
  uint8_t *seen = must_calloc(t->n_pages, 1);
  uint32_t n = 0;
  for (size_t i = 0; i < t->n_reads; i++) {
    n += !seen[t->reads[i]];
    seen[t->reads[i]] = 1;
  }
  free(seen);
  return n;
}

/* ---- S3-FIFO, the daemon's own ------------------------------------------- */

enum { RESIDENT = 1, USED = 2 };

/* A read: marks a page that is resident.  False: it is not. */
static bool hit(uint8_t *state) {
  if (!(*state & RESIDENT))
    return false;
  *state |= USED;
  return true;
}

/* The accessed bytes. */
static bool take_used(void *arg, uint64_t key) {
  uint8_t *state = (uint8_t *)arg + key;
  bool used = *state & USED;
  *state &= (uint8_t)~USED;
  return used;
}

static uint32_t unused(void *arg, uint64_t first) {
  const uint8_t *states = (const uint8_t *)arg + first;
  uint32_t bits = 0;
  for (unsigned i = 0; i < S3FIFO_GROUP; i++)
    bits |= (uint32_t)(states[i] == RESIDENT) << i;
  return bits;
}

/* With groups, as the daemon evicts: one pick may bring a few victims. */
static uint32_t evict_some(struct s3fifo *p, uint8_t *states) {
  uint64_t keys[S3FIFO_GROUP];
  unsigned chances = S3FIFO_SECOND_CHANCES;
  size_t n = s3fifo_pick(p, 1, keys, S3FIFO_GROUP, &chances);
  for (size_t i = 0; i < n; i++) {
    states[keys[i]] = 0;
    s3fifo_gone(p);
  }
  return (uint32_t)n;
}

static size_t simulate_s3_fifo(const struct sim_trace *t,
                               uint32_t window_percent) {
  struct s3fifo p;
  uint32_t n_cached = t->n_cached;
  uint8_t *states = must_calloc(t->n_pages + S3FIFO_GROUP, 1);
  uint32_t n = 0;
  size_t n_misses = 0;
  if (s3fifo_init(&p, n_cached, take_used, unused, states) < 0)
    rig_fail("no memory");
  p.window_percent = window_percent;
  for (size_t i = 0; i < t->n_reads; i++) {
    uint32_t page = t->reads[i];
    if (hit(&states[page]))
      continue;
    n_misses++;
    while (n >= n_cached)
      n -= evict_some(&p, states);
    s3fifo_insert(&p, page);
    if (window_percent == 0)
      s3fifo_take_in(&p); /* no use of a fresh page counts, as in a window */
    states[page] = RESIDENT;
    n++;
  }
  s3fifo_fini(&p);
  free(states);
  return n_misses;
}

size_t sim_s3_fifo(const struct sim_trace *t) {
  return simulate_s3_fifo(t, S3FIFO_WINDOW_PERCENT);
}

size_t sim_s3_fifo_without_window(const struct sim_trace *t) {
  return simulate_s3_fifo(t, 0);
}

/* ---- LRU ----------------------------------------------------------------- */

/* A ring of pages by their last use, through a head beyond them. */
struct lru {
  uint32_t *newer, *older;
};

static void lru_unlink(struct lru *l, uint32_t page) {
  l->older[l->newer[page]] = l->older[page];
  l->newer[l->older[page]] = l->newer[page];
}

static void lru_push(struct lru *l, uint32_t head, uint32_t page) {
  l->older[page] = l->older[head];
  l->newer[page] = head;
  l->newer[l->older[head]] = page;
  l->older[head] = page;
}

size_t sim_lru(const struct sim_trace *t) {
  uint32_t head = t->n_pages, n = 0;
  struct lru l = {must_calloc(head + 1, sizeof *l.newer),
                  must_calloc(head + 1, sizeof *l.older)};
  uint8_t *resident = must_calloc(t->n_pages, 1);
  size_t n_misses = 0;
  l.newer[head] = l.older[head] = head;
  for (size_t i = 0; i < t->n_reads; i++) {
    uint32_t page = t->reads[i];
    if (resident[page]) {
      lru_unlink(&l, page);
    } else {
      n_misses++;
      if (n == t->n_cached) {
        uint32_t victim = l.newer[head]; /* the oldest */
        lru_unlink(&l, victim);
        resident[victim] = 0;
      } else {
        n++;
      }
      resident[page] = 1;
    }
    lru_push(&l, head, page);
  }
  free(l.newer);
  free(l.older);
  free(resident);
  return n_misses;
}

/* ---- ARC ----------------------------------------------------------------- */

/* Megiddo and Modha, "ARC: a self-tuning, low overhead replacement cache", FAST
 * 2003, with the names that it uses: T1 has pages that were read once lately,
 * T2 more often, B1 and B2 remember pages that left those; `p` is how long T1
 * is to be. */
enum arc_list { NOWHERE, T1, T2, B1, B2, N_LISTS };

struct arc {
  struct lru lists; /* the rings of four lists, through n_pages + list */
  uint32_t n_pages, c, len[N_LISTS];
  uint8_t *where;
  double p;
};

static void arc_move(struct arc *a, uint32_t page, enum arc_list to) {
  if (a->where[page])
    lru_unlink(&a->lists, page);
  a->len[a->where[page]]--;
  a->where[page] = (uint8_t)to;
  a->len[to]++;
  if (to)
    lru_push(&a->lists, a->n_pages + to, page);
}

/* Moves the oldest page of a list. */
static void arc_pass_on(struct arc *a, enum arc_list from, enum arc_list to) {
  arc_move(a, a->lists.newer[a->n_pages + from], to);
}

/* Makes room for one page, if there is none. */
static void arc_replace(struct arc *a, bool is_in_b2) {
  if (a->len[T1] + a->len[T2] < a->c)
    return;
  if (a->len[T1] > 0 && (a->len[T1] > a->p || (is_in_b2 && a->len[T1] >= a->p)))
    arc_pass_on(a, T1, B1);
  else
    arc_pass_on(a, T2, B2);
}

/* A page that is remembered comes back: its list should have been longer. */
static void arc_adapt(struct arc *a, enum arc_list list) {
  double mine = a->len[list], other = a->len[list == B1 ? B2 : B1];
  double step = other > mine ? other / mine : 1;
  a->p = list == B1 ? fmin(a->p + step, a->c) : fmax(a->p - step, 0);
}

/* A page that is not known: the lists stay within c and 2 c. */
static void arc_make_way(struct arc *a) {
  if (a->len[T1] + a->len[B1] == a->c) {
    if (a->len[T1] == a->c) {
      arc_pass_on(a, T1, NOWHERE);
      return;
    }
    arc_pass_on(a, B1, NOWHERE);
  } else if (a->len[T1] + a->len[T2] + a->len[B1] + a->len[B2] == 2 * a->c) {
    arc_pass_on(a, B2, NOWHERE);
  }
  arc_replace(a, false);
}

/* False: a miss. */
static bool arc_read(struct arc *a, uint32_t page) {
  enum arc_list list = (enum arc_list)a->where[page];
  if (list == B1 || list == B2) {
    arc_adapt(a, list);
    arc_replace(a, list == B2);
  } else if (list == NOWHERE) {
    arc_make_way(a);
  }
  arc_move(a, page, list == NOWHERE ? T1 : T2);
  return list == T1 || list == T2;
}

size_t sim_arc(const struct sim_trace *t) {
  size_t n_misses = 0, n = t->n_pages + N_LISTS;
  struct arc a = {.lists = {must_calloc(n, sizeof(uint32_t)),
                            must_calloc(n, sizeof(uint32_t))},
                  .n_pages = t->n_pages,
                  .c = t->n_cached,
                  .where = must_calloc(t->n_pages, 1)};
  for (uint32_t head = t->n_pages; head < n; head++)
    a.lists.newer[head] = a.lists.older[head] = head;
  a.len[NOWHERE] = t->n_pages;
  for (size_t i = 0; i < t->n_reads; i++)
    n_misses += !arc_read(&a, t->reads[i]);
  free(a.lists.newer);
  free(a.lists.older);
  free(a.where);
  return n_misses;
}

/* ---- CLOCK --------------------------------------------------------------- */

size_t sim_clock(const struct sim_trace *t) {
  uint32_t n_cached = t->n_cached;
  uint8_t *states = must_calloc(t->n_pages, 1);
  uint32_t *frames = must_calloc(n_cached, sizeof *frames), n = 0, hand = 0;
  size_t n_misses = 0;
  for (size_t i = 0; i < t->n_reads; i++) {
    uint32_t page = t->reads[i];
    if (hit(&states[page]))
      continue;
    n_misses++;
    if (n < n_cached) {
      frames[n++] = page;
    } else {
      for (; states[frames[hand]] & USED; hand = (hand + 1) % n_cached)
        states[frames[hand]] = RESIDENT;
      states[frames[hand]] = 0;
      frames[hand] = page;
      hand = (hand + 1) % n_cached;
    }
    states[page] = RESIDENT;
  }
  free(frames);
  free(states);
  return n_misses;
}

/* ---- The optimum --------------------------------------------------------- */

/* A heap of resident pages, with the one on top that is read again last.  An
 * entry whose page was read since is out of date, and dropped when it comes
 * up: it is above the one that replaced it only if it is not, so it never hides
 * a page that is due. */
struct due {
  size_t next; /* read of the page; SIZE_MAX: none */
  uint32_t page;
};

struct heap {
  struct due *at;
  size_t n;
};

static void heap_push(struct heap *h, struct due due) {
  size_t i = h->n++;
  for (; i > 0 && h->at[(i - 1) / 2].next < due.next; i = (i - 1) / 2)
    h->at[i] = h->at[(i - 1) / 2];
  h->at[i] = due;
}

static struct due heap_pop(struct heap *h) {
  struct due top = h->at[0], last = h->at[--h->n];
  size_t i = 0, child;
  while ((child = 2 * i + 1) < h->n) {
    if (child + 1 < h->n && h->at[child + 1].next > h->at[child].next)
      child++;
    if (h->at[child].next <= last.next)
      break;
    h->at[i] = h->at[child];
    i = child;
  }
  h->at[i] = last;
  return top;
}

/* For each read, which read is the next of the same page. */
static size_t *find_next(const struct sim_trace *t) {
  size_t *next = must_calloc(t->n_reads, sizeof *next);
  size_t *seen = must_calloc(t->n_pages, sizeof *seen);
  for (uint32_t page = 0; page < t->n_pages; page++)
    seen[page] = SIZE_MAX;
  for (size_t i = t->n_reads; i-- > 0;) {
    next[i] = seen[t->reads[i]];
    seen[t->reads[i]] = i;
  }
  free(seen);
  return next;
}

size_t sim_optimum(const struct sim_trace *t) {
  size_t *next = find_next(t), n_misses = 0;
  /* When each page is read next, by its last read; 0: it is not resident. */
  size_t *due = must_calloc(t->n_pages, sizeof *due);
  struct heap h = {must_calloc(t->n_reads, sizeof *h.at), 0};
  uint32_t n = 0;
  for (size_t i = 0; i < t->n_reads; i++) {
    uint32_t page = t->reads[i];
    if (!due[page]) {
      n_misses++;
      while (n == t->n_cached) {
        struct due top = heap_pop(&h);
        if (due[top.page] == top.next) {
          due[top.page] = 0;
          n--;
        }
      }
      n++;
    }
    due[page] = next[i];
    heap_push(&h, (struct due){next[i], page});
  }
  free(h.at);
  free(due);
  free(next);
  return n_misses;
}
