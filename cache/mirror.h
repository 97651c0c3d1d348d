/* A mirror: the sparse memory that holds the pages of one epoch of an image.
 *
 * Page n of the image is page n of the mirror.  A mirror has three memfds: the
 * pages, the page states (after a header), and the accessed bytes.
 *
 *   M1  Only mirror_write() writes a page, called by the owner of its FILLING
 *       state.  Only the owner of its EVICTING state punches it, or the thread
 *       whose write failed.  So the bytes of a RESIDENT page never change.
 *
 *   M2  `size` and `epoch` are fixed.  A changed image gets a new mirror; the
 *       old one is retired and lives until its last reference.
 *
 *   M3  No state of a retired mirror becomes RESIDENT.  When none is RESIDENT
 *       any more (`states_gone`), the reclaimer punches all pages that are not
 *       pinned, whatever their states. */
#ifndef CACHE_MIRROR_H
#define CACHE_MIRROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "cache/invalidation_log.h"
#include "cache/sequential.h"

#ifdef __cplusplus
extern "C" {
#endif

struct image;
struct mirror;
struct page_cache;
struct pin_table;
struct source;

/* The header of the memfd of the page states, which follow at `states_offset`.
 * In this machine's byte order.  It does not change, except for `retired` and
 * the log. */
struct mirror_header {
  char magic[8]; /* "cachetd\0" */
  uint32_t layout;
  uint32_t page_size;
  uint64_t image_size;
  uint64_t epoch;
  uint64_t states_offset;
  uint32_t membarrier; /* 1: the evictor uses it, so a reader needs no fence */
  uint32_t retired;    /* 1: this epoch has ended; attach again */
  struct invalidation_log log;
};

#define MIRROR_LAYOUT 1

/* The sizes of the smallest and the largest page, as powers of two. */
#define PAGE_SHIFT_MIN 12
#define PAGE_SHIFT_MAX 21

/* Half of the address space of 47 bits. */
#define MIRROR_MAX_SIZE (1ull << 46)

/* The header has a page of memory to itself. */
#define MIRROR_HEADER_LEN 4096

/* A block of page states: those in one page of memory.  Their accessed bytes
 * are in another page.  Both take memory when somebody reads them.  For an
 * image of many TiB that is more than a cache, so blocks that hold nothing are
 * freed. */
struct state_block {
  uint16_t n_live : 15; /* states that are not ABSENT */
  bool is_charged : 1;
  uint16_t n_zero; /* of those, the ones that are ZERO */
};

#define STATES_PER_BLOCK 4096
#define STATE_BLOCK_LEN (2 * 4096u) /* with the accessed bytes */

struct page_run {
  uint64_t first, count;
};

/* The keeper stores the memory of a cache's mirrors for the next process.  The
 * cache notifies it of each mirror of an image: when it was made, before
 * anybody else knows it; when its source was checked and is still that of the
 * image; and before its memory is freed.  Any thread makes the calls, under no
 * lock of the cache.  They must not use the image. */
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
  /* The pages, mapped read-only; NULL while nothing in this process reads them.
   * Written under the cache lock. */
  const uint8_t *base;
  uint8_t *states;
  uint8_t *accessed;
  struct mirror_header *header;
  struct source *source; /* of this epoch; NULL if the caller brings bytes */
  uint32_t kept;         /* the keeper's number for the mirror; 0 at first */

  /* private to cache/ */
  int pages_fd, states_fd, accessed_fd;
  size_t pages_len, states_len, accessed_len; /* of the mappings */
  uint8_t *writable; /* atomic: the pages, mapped for mirror_write(), once that
                        has needed them */
  unsigned n_slow_punches; /* atomic: mirror_begin_slow_punches() */
  unsigned n_lent;         /* atomic, relaxed: how many `tables` are lent */
  unsigned n_refs;         /* atomic; relaxed except for the last */
  bool was_lent; /* atomic: another process may map it.  Not adjacent to fixed
                      fields, which compilers may load together with it */
  /* Fixed; called under no lock.  `released`: the last reference is gone, and
   * the memory must be freed.  Mirrors of a cache have the others, too: see
   * image.c. */
  void (*released)(struct mirror *m);
  void (*on_end)(struct mirror *m);      /* the reclaimer has finished */
  void (*on_lent)(struct mirror *m);     /* another process may map it */
  void (*on_conflict)(struct mirror *m); /* an invalidated page can be neither
                                            punched nor STALE: the mirror must
                                            be retired */

  bool needs_pages; /* other processes may read it; fixed */
  bool is_pageless; /* it has no memory for pages: all stay ABSENT.  Fixed
                       after a view was opened */
  bool is_solid;    /* all states have memory from the start; fixed */
  bool is_huge;     /* mirror_write() asks for huge pages; fixed */

  /* under the cache lock, except for the pointers, which are fixed */
  struct page_cache *cache; /* NULL: another process's */
  struct image *image;      /* referenced */
  bool has_retire_ref; /* the reclaimer's, until it takes the mirror down */
  bool states_gone;    /* it is retired, and no state is RESIDENT */
  uint32_t id;         /* index into the cache's mirrors */
  struct mirror *next_dead; /* the cache's list of those without references */
  struct pin_table *tables; /* of the views open on it; see pins_lock */
  unsigned n_views;         /* of this process */
  bool is_mapping_counted;  /* in the cache's `mapped` */
  struct invalidation_list invalidations; /* that are in progress */
  struct page_run *stale;                 /* pages that are STALE */
  size_t n_stale, max_stale;
  struct state_block *blocks;
  size_t n_blocks;
  uint64_t swept_first, swept_end; /* pages whose states are being swept */
  uint64_t sweep_at;               /* atomic: where a sweep continues */
  uint64_t charged_pages;          /* bytes of the budget: its pages */
  uint64_t charged_meta;           /* of the budget: header, states, accessed */
  uint64_t garbage;                /* of these: blocks that hold nothing */
  uint64_t n_zero;                 /* states that are ZERO */
  uint64_t filling;    /* bytes that fills in flight may have written */
  uint64_t n_uncached; /* fills in flight that install nothing */
  struct sequential_readers
      sequential;    /* of fetches, if its source's blocks grow */
  uint64_t evicting; /* pages in batches in progress */
};

static inline size_t mirror_page_size(const struct mirror *m) {
  return (size_t)1 << m->page_shift;
}

/* How many bytes of the image are in page `page`: less than a page in the last
 * one. */
static inline size_t mirror_page_len(const struct mirror *m, uint64_t page) {
  uint64_t left = m->size - (page << m->page_shift);
  return left < mirror_page_size(m) ? (size_t)left : mirror_page_size(m);
}

static inline bool mirror_is_retired(const struct mirror *m) {
  return __atomic_load_n(&m->header->retired, __ATOMIC_ACQUIRE) != 0;
}

/* For a reader that copies several pages, see invalidation_log.h: it takes the
 * mark before it loads the first page state. */
static inline uint64_t mirror_mark(const struct mirror *m) {
  return invalidation_log_mark(&m->header->log);
}

/* Whether some of the pages were being invalidated at any time since `mark`.
 * Then the bytes of two pages may be of different times. */
static inline bool mirror_dropped_since(const struct mirror *m, uint64_t mark,
                                        uint64_t first, uint64_t count) {
  return invalidation_log_hit(&m->header->log, mark, first, count);
}

/* Makes a mirror of `size` bytes.  All its pages are ABSENT; it has one
 * reference and no cache. 0 or a negative errno: -EFBIG if the process may not
 * make such a large one. */
int mirror_new(uint64_t size, unsigned page_shift, uint64_t epoch,
               bool membarrier, struct mirror **out);

/* Does the same without memory for pages: every state stays ABSENT. */
int mirror_new_pageless(uint64_t size, unsigned page_shift, uint64_t epoch,
                        struct mirror **out);

/* Maps the pages for reading, and changes nothing: the caller stores the
 * address.  NULL: the process may not map so much. */
const uint8_t *mirror_map_pages(const struct mirror *m);
void mirror_unmap_pages(const struct mirror *m, const uint8_t *base);

/* Whether the kernel promises only memory that exists (strict overcommit): then
 * states get their memory at the start, because the first read of one could
 * otherwise raise SIGBUS.  And whether it uses huge pages for memfds, which are
 * then written in another way.  Both results are those of the first call. */
bool mirror_is_overcommit_strict(void);
bool mirror_is_shmem_huge(void);

/* Whether the kernel is set to give a page of 2 MiB a huge page that is asked
 * for: adjacent memory, for which each process needs one entry of its page
 * tables.  If there is no such memory, the page gets small ones.  False with
 * strict overcommit, where a mapped hole may raise SIGBUS when it is written.
 * The result is that of the first call. */
bool mirror_may_be_huge(void);

/* Prints the reason of an -EFBIG for a message: the limit that an image of
 * `size` bytes exceeds. */
void mirror_print_limit(uint64_t size, char *text, size_t len);

/* Makes a memfd like those of a mirror: sparse, of a fixed size, and such that
 * other users cannot reopen it for writing.  Returns a descriptor or a negative
 * errno. */
enum memfd_use {
  MEMFD_SPARSE,    /* the kernel allocates memory on use */
  MEMFD_LOOKED_AT, /* it has memory from the start if a read could otherwise
                      raise SIGBUS */
};
int mirror_memfd(const char *name, size_t len, enum memfd_use use);

/* Whether a descriptor is that of such a memfd, owned by this user and
 * writable: nobody else can have changed it. */
bool mirror_is_own_memfd(int fd, size_t len);

/* The descriptors that another process needs to read a mirror; close-on-exec.
 */
struct mirror_fds {
  int pages, states; /* read-only */
  int accessed;
};

/* Opens descriptors for another process; the caller calls mirror_fds_close(). 0
 * or a negative errno. */
int mirror_lend(struct mirror *m, struct mirror_fds *out);
void mirror_fds_close(struct mirror_fds *fds);

/* Maps a mirror that another process owns.  Takes ownership of the descriptors,
 * also on failure, and keeps that of the pages.  It checks everything before it
 * uses it: -EPROTO if it is not a mirror of that size, page size and epoch, or
 * could be shortened later. */
int mirror_borrow(struct mirror_fds *fds, uint64_t size, unsigned page_shift,
                  uint64_t epoch, struct mirror **out);

/* Copies bytes of a mirror by a system call, where a load from `base` might
 * have a page fault, which costs several times as much.  The same rules hold as
 * for such a load: a pin, and a RESIDENT page.  False: it failed, and `buf` has
 * any bytes. */
bool mirror_copy(const struct mirror *m, uint64_t offset, void *buf,
                 size_t len);

/* The descriptor of mirror_copy(): whether it is still that file, which it is
 * not in a program that closes descriptors that it does not know; and sets
 * another one, or -1, with which mirror_copy() fails.  The latter returns the
 * old one, and closes nothing. */
bool mirror_fd_is(const struct mirror *m, dev_t dev, ino_t ino);
int mirror_set_fd(struct mirror *m, int fd);

/* The memory of a mirror that an earlier process left, opened for reading and
 * writing. */
struct mirror_remains {
  uint64_t size, epoch;
  unsigned page_shift;
  struct mirror_fds fds;
};

/* Makes a mirror of the memory that an earlier process left; adopt.h says what
 * follows.  Takes ownership of the descriptors, also on failure.  It does not
 * trust the memory: -EPROTO if it is not that of such a mirror, or if anybody
 * but this user might have changed it. */
int mirror_adopt(struct mirror_remains *remains, struct mirror **out);

/* Makes the readers of the memory that an earlier process left look for another
 * mirror, if that memory can be that of a mirror. */
void mirror_retire_remains(const struct mirror_fds *fds);

/* mirror_ref() adds a reference; mirror_unref() releases one, and with the last
 * one the memory. */
struct mirror *mirror_ref(struct mirror *m);
void mirror_unref(struct mirror *m);

/* Adds a reference to a mirror that was found in a table, whose lock is held.
 * False: its last reference is being released. */
bool mirror_ref_live(struct mirror *m);

/* Frees the memory.  NULL is allowed.  Others call mirror_unref(). */
void mirror_free(struct mirror *m);

/* This process ignores SIGXFSZ, so a write past RLIMIT_FSIZE is only an error:
 * mirror_write() need not look at the limit first.  To be called before there
 * is a mirror, or another thread. */
void mirror_survives_file_limit(void);

/* Copies `len` bytes into the hole at `page`. 0 or a negative errno. */
int mirror_write(struct mirror *m, uint64_t page, const void *bytes,
                 size_t len);

/* Says that punches which take long begin, and that they have ended.  Several
 * threads may do so at a time.  mirror_write() does not wait for such a punch:
 * it writes through a mapping, see budget_allows_writing_mapped(). */
void mirror_begin_slow_punches(struct mirror *m);
void mirror_end_slow_punches(struct mirror *m);

/* Punches `count` pages. 0 or a negative errno; then they may still have
 * memory, and their bytes are the old ones or zeros.  Only memory is lost by
 * this: a fill overwrites them. */
int mirror_punch(struct mirror *m, uint64_t page, uint64_t count);

/* The bytes that the memfds have allocated: for the pages; and for states and
 * accessed bytes. */
uint64_t mirror_page_bytes(const struct mirror *m);
uint64_t mirror_meta_bytes(const struct mirror *m);

/* The largest possible value of mirror_meta_bytes(). */
uint64_t mirror_meta_len(const struct mirror *m);

/* Finds the next run of pages from `*first` on that hold data.  False: there is
 * none. */
bool mirror_next_data(const struct mirror *m, uint64_t *first, uint64_t *end);

/* Punches the states of pages `first` to `end` - 1, and their accessed bytes:
 * whole blocks, whose states are all ZERO, or ABSENT and stay so. 0; or a
 * negative errno, and the states are unchanged. */
int mirror_punch_states(struct mirror *m, uint64_t first, uint64_t end);

/* The first page from `page` on that begins a block whose states or accessed
 * bytes have memory; n_pages if there is none. */
uint64_t mirror_next_states(const struct mirror *m, uint64_t page);

#ifdef __cplusplus
}
#endif

#endif
