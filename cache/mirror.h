/* A mirror: one epoch's sparse twin of an image, in memory.
 *
 * Page n of the image is page n of the mirror.  Three memfds: the pages, the
 * page states (behind a header), the accessed bytes.
 *
 *   M1  A page is written by mirror_write() alone, by the owner of its FILLING
 *       state.  It is punched only by the owner of its EVICTING state, or by
 *       the thread that wrote it when that failed half way.  So the bytes under
 *       a RESIDENT state never change.
 *
 *   M2  `size` and `epoch` are fixed.  A changed image gets a new mirror; the
 *       old one is retired and lives until its last reference.
 *
 *   M3  A retired mirror gains no RESIDENT state.  Once it has lost all of them
 *       (`states_gone`) the reclaimer punches all that is not pinned, and does
 *       not ask for the states. */
#ifndef CACHE_MIRROR_H
#define CACHE_MIRROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cache/invalidation_log.h"
#include "cache/scan.h"

#ifdef __cplusplus
extern "C" {
#endif

struct image;
struct mirror;
struct page_cache;
struct pin_table;
struct source;

/* What stands at the start of the words' memfd; the words follow at
 * `words_offset`.  In this machine's byte order; fixed but for `retired` and
 * the log. */
struct mirror_header {
  char magic[8]; /* "cachetd\0" */
  uint32_t layout;
  uint32_t page_size;
  uint64_t image_size;
  uint64_t epoch;
  uint64_t words_offset;
  uint32_t membarrier; /* 1: the evictor uses it, a reader needs no fence */
  uint32_t retired;    /* 1: this epoch is over; attach again */
  struct invalidation_log log;
};

#define MIRROR_LAYOUT 1

/* The least and the most that a page may have, as powers of two. */
#define PAGE_SHIFT_MIN 12
#define PAGE_SHIFT_MAX 21

/* Half of what 47 bits of address space can map. */
#define MIRROR_MAX_SIZE (1ull << 46)

/* The header has a page of memory of its own. */
#define MIRROR_HEADER_LEN 4096

/* A block of page states: those that lie in one page of memory.  As many
 * accessed bytes lie in another.  Both take memory when they are looked at, a
 * byte each for a page of the image, and for an image of many TiB that is more
 * than a cache: so blocks that hold nothing are given back. */
struct state_block {
  uint16_t n_live : 15; /* states that are not ABSENT */
  bool is_charged : 1;
  uint16_t n_zero; /* of those, the ones that are ZERO */
};

#define STATES_PER_BLOCK 4096
#define STATE_BLOCK_LEN (2 * 4096u) /* with its accessed bytes */

struct page_run {
  uint64_t first, count;
};

/* The keeper of a cache's mirrors' memory for a process to come.  It
 * is told of each mirror of an image: when it was made, before anybody else
 * knows of it; when its source was looked at and is still the image's; and
 * before its memory goes.  Any thread, under no lock of the cache's; neither
 * call may use the image. */
struct mirror_keeper {
  void (*made)(struct mirror_keeper *keeper, struct mirror *m,
               const char *image);
  void (*looked)(struct mirror_keeper *keeper, struct mirror *m);
  void (*ended)(struct mirror_keeper *keeper, struct mirror *m);
};

struct mirror {
  uint64_t epoch;
  uint64_t size; /* of the image, in bytes */
  uint64_t n_pages;
  unsigned page_shift;
  /* The pages, mapped read-only; NULL while nothing in this process reads
   * them.  Written under the cache lock. */
  const uint8_t *base;
  uint8_t *words;
  uint8_t *touched;
  struct mirror_header *header;
  struct source *source; /* this epoch's; NULL where the caller brings bytes */
  uint32_t kept;         /* the keeper's: what he calls it, and 0 at first */

  /* private to cache/ */
  int pages_fd, words_fd, touched_fd;
  size_t pages_len, words_len, touched_len; /* of the mappings */
  unsigned n_refs;                          /* atomic; relaxed but the last */
  bool was_lent; /* atomic: another process may map it.  Not beside what is
                    fixed: compilers read that by the word */
  /* Fixed, by whose it is; under no lock.  `released`: the last reference is
   * gone, and the memory is to go.  Those of a cache have the others, too: see
   * image.c. */
  void (*released)(struct mirror *m);
  void (*on_end)(struct mirror *m);      /* the reclaimer is done with it */
  void (*on_lent)(struct mirror *m);     /* another process may map it */
  void (*on_conflict)(struct mirror *m); /* an invalidated page can be neither
                                            punched nor STALE: it must be
                                            retired */

  bool needs_pages; /* other processes may read it; fixed */
  bool is_pageless; /* there is no memory for pages: all stay ABSENT.  Fixed
                       once a view was opened */
  bool is_solid;    /* all states have memory from the start; fixed */

  /* under the cache lock, but for the pointers, which are fixed */
  struct page_cache *cache; /* NULL: another process's */
  struct image *image;      /* referenced */
  bool abandoned;           /* its image is freed */
  bool has_retire_ref;      /* the reclaimer's, until it has begun with it */
  bool states_gone;         /* it is retired, and no state is RESIDENT */
  uint32_t id;              /* index into the cache's mirrors */
  struct mirror *next_dead; /* the cache's list of those without references */
  struct pin_table *tables; /* of the views open on it */
  unsigned n_views;         /* of this process */
  struct invalidation_list invalidations; /* that are under way */
  struct page_run *stale;                 /* pages that are STALE */
  size_t n_stale, max_stale;
  struct state_block *blocks;
  size_t n_blocks;
  uint64_t swept_first, swept_end; /* pages whose states are being swept */
  uint64_t sweep_at;               /* atomic: where a sweep goes on */
  uint64_t charged_pages;          /* bytes of the budget: its pages */
  uint64_t charged_meta;           /* of the budget: header, states, accessed */
  uint64_t garbage;                /* of that: blocks that hold nothing */
  uint64_t n_zero;                 /* states that are ZERO */
  uint64_t filling;    /* bytes that fills in flight may have written */
  uint64_t n_uncached; /* fills in flight that install nothing */
  struct scans scans;  /* of fetches, if its source's blocks grow */
  uint64_t evicting;   /* pages in batches under way */
};

static inline size_t mirror_page_size(const struct mirror *m) {
  return (size_t)1 << m->page_shift;
}

/* How many bytes of the image page `page` has: less in the last one. */
static inline size_t mirror_page_len(const struct mirror *m, uint64_t page) {
  uint64_t left = m->size - (page << m->page_shift);
  return left < mirror_page_size(m) ? (size_t)left : mirror_page_size(m);
}

static inline bool mirror_is_retired(const struct mirror *m) {
  return __atomic_load_n(&m->header->retired, __ATOMIC_ACQUIRE) != 0;
}

/* For a reader that copies several pages, see invalidation_log.h: it takes the
 * mark before its first look at a page. */
static inline uint64_t mirror_mark(const struct mirror *m) {
  return invalidation_log_mark(&m->header->log);
}

/* Whether some of the pages were being invalidated at any time since `mark`:
 * then bytes of two pages may be of different times. */
static inline bool mirror_dropped_since(const struct mirror *m, uint64_t mark,
                                        uint64_t first, uint64_t count) {
  return invalidation_log_hit(&m->header->log, mark, first, count);
}

/* Makes a mirror of `size` bytes, all absent, with one reference and no cache.
 * 0 or a negative errno: -EFBIG where the process may not make one so large. */
int mirror_new(uint64_t size, unsigned page_shift, uint64_t epoch,
               bool membarrier, struct mirror **out);

/* The same with no memory for pages: every state stays ABSENT. */
int mirror_new_pageless(uint64_t size, unsigned page_shift, uint64_t epoch,
                        struct mirror **out);

/* Maps the pages, for reading, and nothing but that: the caller stores the
 * address.  NULL: the process may not map so much. */
const uint8_t *mirror_map_pages(const struct mirror *m);
void mirror_unmap_pages(const struct mirror *m, const uint8_t *base);

/* Whether the kernel promises no more memory than there is: then states are
 * given theirs from the start, since the first look at one could else be a
 * SIGBUS.  And whether it gives huge pages to the memory of memfds, which is
 * then written another way.  Both as of the first call. */
bool mirror_is_overcommit_strict(void);
bool mirror_is_shmem_huge(void);

/* Says why -EFBIG, for a message: which limit an image of `size` bytes is
 * past. */
void mirror_print_limit(uint64_t size, char *text, size_t len);

/* A memfd as those of a mirror are: sparse, of a fixed size, and not to be
 * reopened for writing by other users.  A descriptor or a negative errno. */
enum memfd_use {
  MEMFD_SPARSE,    /* memory comes with use */
  MEMFD_LOOKED_AT, /* it has memory from the start where a look may else be a
                      SIGBUS */
};
int mirror_memfd(const char *name, size_t len, enum memfd_use use);

/* Whether a descriptor is that of such a memfd, of this user's, and may be
 * written to: nobody else can have changed it. */
bool mirror_is_own_memfd(int fd, size_t len);

/* What another process needs to read a mirror.  Descriptors, close-on-exec. */
struct mirror_fds {
  int pages, words; /* read-only */
  int touched;
};

/* Opens descriptors to give away; mirror_fds_close() them.  0 or a negative
 * errno. */
int mirror_lend(struct mirror *m, struct mirror_fds *out);
void mirror_fds_close(struct mirror_fds *fds);

/* Maps a mirror that another process owns.  Takes the descriptors over, also
 * on failure: they are closed.  Nothing that they hold is believed before it
 * was checked: -EPROTO if it is not a mirror of that size, page size and
 * epoch, or can be cut short under us. */
int mirror_borrow(struct mirror_fds *fds, uint64_t size, unsigned page_shift,
                  uint64_t epoch, struct mirror **out);

/* What another process has left of a mirror: its memory, opened for reading and
 * writing. */
struct mirror_remains {
  uint64_t size, epoch;
  unsigned page_shift;
  struct mirror_fds fds;
};

/* Makes a mirror over what the process before has left; see adopt.h for what
 * becomes of it then.  Takes the descriptors over, also on failure.  The memory
 * is checked like a stranger's: -EPROTO if it is not that of such a mirror, or
 * if anybody but this user might have changed it. */
int mirror_adopt(struct mirror_remains *remains, struct mirror **out);

/* Has the readers of what another process has left of a mirror look for its
 * successor, if that memory can be that of a mirror. */
void mirror_retire_remains(const struct mirror_fds *fds);

/* Another reference; mirror_unref() gives one back, and with the last one the
 * memory. */
struct mirror *mirror_ref(struct mirror *m);
void mirror_unref(struct mirror *m);

/* A reference to a mirror that is found in a table, whose lock is held; false
 * if its last reference is just being given back. */
bool mirror_ref_live(struct mirror *m);

/* Frees the memory; NULL is fine.  Others use mirror_unref(). */
void mirror_free(struct mirror *m);

/* Copies `len` bytes into the hole at `page`.  0 or a negative errno. */
int mirror_write(struct mirror *m, uint64_t page, const void *bytes,
                 size_t len);

/* Makes `count` pages a hole again.  0 or a negative errno: then they may still
 * have memory, and their bytes are whatever they were or zeros.  Nothing but
 * memory is lost by that: a fill overwrites them. */
int mirror_punch(struct mirror *m, uint64_t page, uint64_t count);

/* Bytes that the memfds have allocated: the pages; words and touched bytes. */
uint64_t mirror_page_bytes(const struct mirror *m);
uint64_t mirror_meta_bytes(const struct mirror *m);

/* The most that mirror_meta_bytes() can come to. */
uint64_t mirror_meta_len(const struct mirror *m);

/* Finds the next run of pages from `*first` on that hold data.  False: there is
 * none. */
bool mirror_next_data(const struct mirror *m, uint64_t *first, uint64_t *end);

/* Makes the states of pages `first` to `end` - 1, and their accessed bytes, a
 * hole again: whole blocks, in which all are ABSENT and stay it, or ZERO.  0;
 * or a negative errno, and the states are what they were. */
int mirror_punch_states(struct mirror *m, uint64_t first, uint64_t end);

/* The first page from `page` on, which begins a block, whose state or accessed
 * byte is in memory; n_pages if there is none. */
uint64_t mirror_next_states(const struct mirror *m, uint64_t page);

#ifdef __cplusplus
}
#endif

#endif
