/* The janitor: memory that nobody accounted for.
 *
 * A process that maps a mirror can make its holes take memory by reading them;
 * words and touched bytes of a large image take memory by being looked at; and
 * in a retired mirror pins end without anybody's telling.  Ten times a second
 * what the kernel has allocated is compared with the account, and where it is
 * more:
 *
 *   - absent pages that hold data are punched, by runs; their words say
 *     EVICTING meanwhile, so that no fill writes under the punch;
 *   - pages of words that are all ABSENT are punched, and the touched bytes
 *     beside them;
 *   - in a retired mirror all that is not pinned is punched.
 *
 * Runs on the evictor's thread; where there is none (in process) words are
 * swept when there is no other room. */
#include <assert.h>
#include <string.h>

#include "cache/page_cache_impl.h"

/* Words to look at under one hold of the lock. */
#define CHUNK 1024

/* ---- Absent pages that hold data ----------------------------------------- */

/* Takes the ABSENT words of pages first .. first+n-1; `taken` says which. */
static unsigned take_absent(struct mirror *m, uint64_t first, unsigned n,
                            bool *taken) {
  struct page_cache *pc = m->cache;
  unsigned n_taken = 0;
  pthread_mutex_lock(&pc->lock);
  for (unsigned i = 0; i < n; i++) {
    uint8_t *word = &m->words[first + i];
    taken[i] = residency_look(word) == PAGE_ABSENT &&
               residency_move(word, PAGE_ABSENT, PAGE_EVICTING);
    n_taken += taken[i];
  }
  pthread_mutex_unlock(&pc->lock);
  return n_taken;
}

static void punch_taken(struct mirror *m, uint64_t first, unsigned n,
                        const bool *taken) {
  for (unsigned i = 0; i < n;) {
    unsigned j = i;
    while (j < n && taken[j])
      j++;
    if (j > i)
      mirror_punch(m, first + i, j - i);
    i = j > i ? j : i + 1;
  }
}

static void give_back(struct mirror *m, uint64_t first, unsigned n,
                      const bool *taken) {
  struct page_cache *pc = m->cache;
  pthread_mutex_lock(&pc->lock);
  for (unsigned i = 0; i < n; i++)
    if (taken[i])
      residency_move(&m->words[first + i], PAGE_EVICTING, PAGE_ABSENT);
  struct fetch *woken = verdicts_take_locked(pc);
  pthread_mutex_unlock(&pc->lock);
  fetches_done(woken);
}

static void sweep_absent(struct mirror *m) {
  bool taken[CHUNK];
  uint64_t first = 0, end;
  while (mirror_next_data(m, &first, &end)) {
    for (; first < end; first += CHUNK) {
      unsigned n = end - first < CHUNK ? (unsigned)(end - first) : CHUNK;
      if (take_absent(m, first, n, taken)) {
        punch_taken(m, first, n, taken);
        give_back(m, first, n, taken);
      }
    }
    first = end;
  }
}

/* ---- Words --------------------------------------------------------------- */

static bool all_absent(const uint8_t *words, size_t n) {
  return words[0] == PAGE_ABSENT && memcmp(words, words + 1, n - 1) == 0;
}

/* Punches the page of words that holds the one of `page`, if all say ABSENT. */
static bool sweep_words_page(struct mirror *m, uint64_t page) {
  struct page_cache *pc = m->cache;
  page -= page % MIRROR_WORDS_PAGE;
  uint64_t n = m->n_pages - page;
  if (n > MIRROR_WORDS_PAGE)
    n = MIRROR_WORDS_PAGE;
  /* Every word moves under the lock, so none does while we punch. */
  pthread_mutex_lock(&pc->lock);
  bool absent = all_absent(&m->words[page], n);
  if (absent) {
    mirror_punch_words(m, page);
    m->meta_credit = 0; /* who waits for this room asks the kernel anew */
  }
  pthread_mutex_unlock(&pc->lock);
  return absent;
}

bool janitor_sweep_words(struct mirror *m) {
  bool any = false;
  for (uint64_t page = mirror_next_words(m, 0); page < m->n_pages;
       page = mirror_next_words(m, page + MIRROR_WORDS_PAGE))
    any |= sweep_words_page(m, page);
  for (uint64_t page = mirror_next_touched(m, 0); page < m->n_pages;
       page = mirror_next_touched(m, page + MIRROR_WORDS_PAGE))
    any |= sweep_words_page(m, page);
  return any;
}

/* ---- Retired mirrors ----------------------------------------------------- */

/* Whether all evictions of it are over, and it has something left. */
static bool is_leftover(struct mirror *m) {
  pthread_mutex_lock(&m->cache->lock);
  bool is = mirror_is_retired(m) && m->evicting == 0 && m->filling == 0 &&
            (m->charged_pages > 0 || mirror_page_bytes(m) > 0);
  pthread_mutex_unlock(&m->cache->lock);
  return is;
}

static void sweep_retired(struct mirror *m) {
  struct page_cache *pc = m->cache;
  uint64_t first = 0, end;
  while (mirror_next_data(m, &first, &end)) {
    evict_unpinned(m, first, end - first);
    first = end;
  }
  pthread_mutex_lock(&pc->lock);
  uint64_t left = mirror_page_bytes(m);
  if (left < m->charged_pages) {
    pc->used -= m->charged_pages - left;
    m->charged_pages = left;
  }
  pthread_mutex_unlock(&pc->lock);
}

/* ---- Rounds -------------------------------------------------------------- */

static bool has_excess(struct mirror *m) {
  pthread_mutex_lock(&m->cache->lock);
  bool has = !mirror_is_retired(m) &&
             mirror_page_bytes(m) > m->charged_pages + m->filling;
  pthread_mutex_unlock(&m->cache->lock);
  return has;
}

static void clean(struct mirror *m) {
  if (is_leftover(m))
    sweep_retired(m);
  if (has_excess(m))
    sweep_absent(m);
  if (mirror_meta_bytes(m) > m->cache->budget / META_SHARE)
    janitor_sweep_words(m);
  budget_recharge(m);
}

void janitor_round(struct page_cache *pc) {
  for (uint32_t i = 0;; i++) {
    pthread_mutex_lock(&pc->lock);
    bool end = i >= pc->n_mirrors;
    struct mirror *m = end ? NULL : pc->mirrors[i];
    if (m && !mirror_ref_live(m))
      m = NULL;
    pthread_mutex_unlock(&pc->lock);
    if (end)
      return;
    if (m) {
      clean(m);
      mirror_unref(m);
    }
  }
}
