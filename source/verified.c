#include "source/verified.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "base/cleanup.h"
#include "base/container_of.h"
#include "base/lock.h"

/* The source that contains the hash tree. */
struct tree {
  struct source *source;
  unsigned n_refs; /* guarded by the lock of its struct shared */
};

/* The state that all versions of one image share. */
struct shared {
  char *name;
  void (*corrupt)(const char *name, uint64_t offset, uint64_t len);
  struct verity *verity;   /* NULL: the digests prove the blocks */
  struct digests *digests; /* NULL: the tree proves them */
  uint64_t size;           /* of the image, if there is no tree */
  uint8_t id[32];          /* of the root */
  bool tree_is_inside;     /* the image */
  pthread_mutex_t lock;    /* a leaf */
  /* Guarded by lock. */
  unsigned n_refs;
  struct tree *tree; /* NULL if it is inside */
  LIST_HEAD(, load) loads;
};

struct verified_source {
  struct source base;
  struct source *below; /* ours */
  struct shared *shared;
};

/* A read of a source that calls back.  Only one thread at a time uses it: the
 * one that starts it, then the one that calls done(), then the one that ends
 * the load for which it waits. */
struct verified_read {
  struct source_read read; /* of the source below */
  struct source_read *asked;
  struct verified_source *source;
  uint8_t *wide; /* NULL: what was asked for is whole blocks */
  struct verity_check check;
  bool is_checking;
  int status;
  STAILQ_ENTRY(verified_read) waiting; /* for a load */
};

/* A part of the tree that is being read, once for all reads that wait for it.
 * It has the deadline of the read that began it.  A read with an earlier
 * deadline does not wait for it.  A read with a later one begins another load
 * if this one ends by its deadline. */
struct load {
  struct source_read read;
  struct shared *shared; /* a reference */
  struct tree *tree; /* a reference; NULL: it is in the image of the first that
                        waits */
  LIST_ENTRY(load) link;
  STAILQ_HEAD(waiting_reads, verified_read) waiting; /* guarded by the lock */
};

static struct verified_source *verified_of(struct source *src) {
  return container_of(src, struct verified_source, base);
}

static void close_below(struct source *src) { src->ops->close(src); }
CLEANUP_FUNCTION(struct source *, close_below)

/* ---- What is shared ------------------------------------------------------ */

/* Takes `source` over, but not on failure. */
static int tree_new(struct source *source, struct tree **out) {
  struct tree *tree = malloc(sizeof *tree);
  if (!tree)
    return -ENOMEM;
  *tree = (struct tree){.source = source, .n_refs = 1};
  *out = tree;
  return 0;
}

/* The present tree, with a reference; NULL: it is in the image itself. */
static struct tree *tree_ref(struct shared *shared) {
  pthread_mutex_lock(&shared->lock);
  struct tree *tree = shared->tree;
  if (tree)
    tree->n_refs++;
  pthread_mutex_unlock(&shared->lock);
  return tree;
}

static void tree_unref(struct shared *shared, struct tree *tree) {
  if (!tree)
    return;
  pthread_mutex_lock(&shared->lock);
  bool last = --tree->n_refs == 0;
  pthread_mutex_unlock(&shared->lock);
  if (!last)
    return;
  tree->source->ops->close(tree->source);
  free(tree);
}

static struct shared *shared_ref(struct shared *shared) {
  pthread_mutex_lock(&shared->lock);
  shared->n_refs++;
  pthread_mutex_unlock(&shared->lock);
  return shared;
}

static void shared_unref(struct shared *shared) {
  if (!shared)
    return;
  pthread_mutex_lock(&shared->lock);
  bool last = --shared->n_refs == 0;
  pthread_mutex_unlock(&shared->lock);
  if (!last)
    return;
  assert(LIST_EMPTY(&shared->loads));
  tree_unref(shared, shared->tree);
  verity_free(shared->verity);
  digests_free(shared->digests);
  pthread_mutex_destroy(&shared->lock);
  free(shared->name);
  free(shared);
}
CLEANUP_FUNCTION(struct shared *, shared_unref)

/* Takes `options->tree` over, also on failure. */
static int shared_new(const struct verified_options *options,
                      struct shared **out) {
  CLEANUP(close_belowp) struct source *tree = options->tree;
  CLEANUP(shared_unrefp) struct shared *shared = calloc(1, sizeof *shared);
  if (!shared)
    return -ENOMEM;
  lock_init(&shared->lock);
  shared->n_refs = 1;
  shared->corrupt = options->corrupt;
  shared->tree_is_inside = !tree;
  LIST_INIT(&shared->loads);
  memcpy(shared->id, options->root, sizeof shared->id);
  shared->name = strdup(options->name);
  if (!shared->name || (tree && tree_new(tree, &shared->tree) < 0))
    return -ENOMEM;
  tree = NULL; /* shared->tree has it */
  *out = STEAL(shared);
  return 0;
}

/* ---- Blocks -------------------------------------------------------------- */

static uint64_t data_size(const struct shared *shared) {
  return shared->verity ? verity_data_size(shared->verity) : shared->size;
}

static uint32_t block_size(const struct shared *shared) {
  return shared->verity ? verity_block_size(shared->verity)
                        : digests_block_size(shared->digests);
}

/* The whole blocks that contain a range, which have to be read to prove it.
 * The last block of the image may be shorter. */
struct blocks {
  uint64_t offset;
  size_t len;
};

static struct blocks blocks_of(const struct verified_source *s, uint64_t offset,
                               size_t len) {
  uint64_t mask = block_size(s->shared) - 1;
  uint64_t begin = offset & ~mask, end = (offset + len + mask) & ~mask;
  if (end > s->base.size)
    end = s->base.size;
  return (struct blocks){begin, (size_t)(end - begin)};
}

static void tell_of_corruption(const struct verified_source *s,
                               uint64_t offset) {
  if (s->shared->corrupt)
    s->shared->corrupt(s->shared->name, offset, block_size(s->shared));
}

static int check_digests(const struct verified_source *s, uint64_t offset,
                         const void *data, size_t len) {
  uint64_t bad;
  int r = digests_check(s->shared->digests, offset, data, len, &bad);
  if (r == -EBADMSG)
    tell_of_corruption(s, bad);
  return r;
}

/* The status of a read whose check has ended. */
static int status_of(const struct verified_source *s,
                     const struct verity_check *check,
                     enum verity_outcome outcome) {
  if (outcome == VERITY_DIFFERS)
    tell_of_corruption(s, check->bad * block_size(s->shared));
  return outcome == VERITY_MATCHES   ? 0
         : outcome == VERITY_DIFFERS ? -EBADMSG
                                     : -ENOMEM;
}

/* ---- Over a source that blocks ------------------------------------------- */

static int load_blocking(struct verified_source *s,
                         const struct verity_check *check) {
  struct tree *tree = tree_ref(s->shared);
  CLEANUP(cleanup_free)
  uint8_t *bytes = calloc(1, check->want.len); /* it may be zeros */
  int r = bytes
              ? source_read_blocking(tree ? tree->source : s->below,
                                     check->want.offset, bytes, check->want.len)
              : -ENOMEM;
  tree_unref(s->shared, tree);
  if (r >= 0)
    verity_give(s->shared->verity, check->want.offset, STEAL(bytes));
  return r;
}

static int check_blocking(struct verified_source *s, uint64_t offset,
                          const void *data, size_t len) {
  struct verity_check check;
  enum verity_outcome outcome;
  int r = 0;
  if (s->shared->digests)
    return check_digests(s, offset, data, len);
  verity_check_begin(&check, s->shared->verity, offset, data, len);
  while (r >= 0 && (outcome = verity_check_step(&check)) == VERITY_WANTS)
    r = load_blocking(s, &check);
  if (r >= 0)
    r = status_of(s, &check, outcome);
  verity_check_end(&check);
  return r;
}

static int read_and_check(struct verified_source *s, struct blocks blocks,
                          void *buf) {
  int r = source_read_blocking(s->below, blocks.offset, buf, blocks.len);
  if (r < 0)
    return r;
  int checked = check_blocking(s, blocks.offset, r == SOURCE_ZEROS ? NULL : buf,
                               blocks.len);
  return checked < 0 ? checked : r;
}

/* Reads the blocks again, once, if they do not match.  A disk may return the
 * right bytes the second time, and a file may just have been replaced. */
static int read_blocks(struct verified_source *s, struct blocks blocks,
                       void *buf) {
  int r = read_and_check(s, blocks, buf);
  if (r == -EBADMSG)
    r = read_and_check(s, blocks, buf);
  return r;
}

static int blocking_read(struct source *src, uint64_t offset, void *buf,
                         size_t len) {
  struct verified_source *s = verified_of(src);
  struct blocks blocks = blocks_of(s, offset, len);
  if (blocks.len == len)
    return read_blocks(s, blocks, buf);
  CLEANUP(cleanup_free) uint8_t *wide = malloc(blocks.len);
  int r = wide ? read_blocks(s, blocks, wide) : -ENOMEM;
  if (r == 0)
    memcpy(buf, wide + (offset - blocks.offset), len);
  return r;
}

/* ---- Over a source that calls back --------------------------------------- */

/* Ends a read and frees it.  The caller calls done() if start() was PENDING. */
static void read_end(struct verified_read *v) {
  v->asked->status = v->status;
  v->asked->sent_ns = v->read.sent_ns;
  v->asked->first_ns = v->read.first_ns;
  if (v->is_checking)
    verity_check_end(&v->check);
  free(v->wide);
  free(v);
}

static void read_finish(struct verified_read *v) {
  struct source_read *asked = v->asked;
  read_end(v);
  asked->done(asked); /* the source may be gone */
}

static bool read_go_on(struct verified_read *v);

static void load_free(struct load *load) {
  tree_unref(load->shared, load->tree);
  shared_unref(load->shared);
  free(load->read.buf);
  free(load);
}
CLEANUP_FUNCTION(struct load *, load_free)

/* Whether a load ended by its deadline although a read that waits for it has
 * more time. */
static bool has_more_time(const struct verified_read *v,
                          const struct source_read *load) {
  uint64_t of_load = load->deadline_ms, own = v->asked->deadline_ms;
  return load->status == -ETIMEDOUT && of_load && (!own || own > of_load);
}

/* Ends a load: gives its bytes to the tree, and moves the reads that wait for
 * it to `waiting`.  The load is taken off the list under the lock, so no read
 * can join it after that. */
static void load_ended(struct load *load, struct waiting_reads *waiting) {
  struct shared *shared = load->shared;
  int status = load->read.status < 0 ? load->read.status : 0;
  struct verified_read *v;
  if (status == 0) {
    verity_give(shared->verity, load->read.offset, load->read.buf);
    load->read.buf = NULL;
  }
  STAILQ_INIT(waiting);
  pthread_mutex_lock(&shared->lock);
  LIST_REMOVE(load, link);
  STAILQ_CONCAT(waiting, &load->waiting);
  pthread_mutex_unlock(&shared->lock);
  STAILQ_FOREACH(v, waiting, waiting)
  v->status = has_more_time(v, &load->read) ? 0 : status;
  load_free(load);
}

/* Continues the reads that waited for a load.  A read that ends may close the
 * source.  That is safe, because each read that is left keeps the source
 * open. */
static void waiting_go_on(struct waiting_reads *waiting) {
  struct verified_read *v;
  while ((v = STAILQ_FIRST(waiting))) {
    STAILQ_REMOVE_HEAD(waiting, waiting);
    if (v->status < 0 || read_go_on(v))
      read_finish(v);
  }
}

static void load_done(struct source_read *read) {
  struct waiting_reads waiting;
  load_ended(container_of(read, struct load, read), &waiting);
  waiting_go_on(&waiting);
}

static bool is_over_by(const struct load *load, uint64_t deadline_ms) {
  uint64_t own = load->read.deadline_ms;
  return deadline_ms == 0 || (own && own <= deadline_ms);
}

/* A load of the same part for which a read with that deadline can wait, or
 * NULL. */
static struct load *find_load_locked(struct shared *shared, uint64_t offset,
                                     uint64_t deadline_ms) {
  lock_assert_held(&shared->lock);
  struct load *load;
  LIST_FOREACH(load, &shared->loads, link)
    if (load->read.offset == offset && is_over_by(load, deadline_ms))
      return load;
  return NULL;
}

static struct load *load_new(struct shared *shared,
                             const struct verity_check *check,
                             const struct source_read *asked) {
  CLEANUP(load_freep) struct load *load = calloc(1, sizeof *load);
  if (!load)
    return NULL;
  load->read = (struct source_read){.offset = check->want.offset,
                                    .buf = calloc(1, check->want.len),
                                    .len = check->want.len,
                                    .deadline_ms = asked->deadline_ms,
                                    .anew = asked->anew,
                                    .done = load_done};
  if (!load->read.buf) /* cleared above, because the tree may be zeros */
    return NULL;
  load->shared = shared_ref(shared);
  load->tree = tree_ref(shared);
  STAILQ_INIT(&load->waiting);
  return STEAL(load);
}

/* Makes the read wait for a load.  Returns NULL if one is in progress, or
 * `fresh`, which the caller has to start.  As soon as the lock is free another
 * thread may end the read. */
static struct load *wait_for_load(struct verified_read *v, struct load *fresh) {
  struct shared *shared = fresh->shared;
  pthread_mutex_lock(&shared->lock);
  struct load *load =
      find_load_locked(shared, fresh->read.offset, fresh->read.deadline_ms);
  bool is_under_way = load != NULL;
  if (!is_under_way) {
    load = fresh;
    LIST_INSERT_HEAD(&shared->loads, load, link);
  }
  STAILQ_INSERT_TAIL(&load->waiting, v, waiting);
  pthread_mutex_unlock(&shared->lock);
  return is_under_way ? NULL : load;
}

static void read_matched(struct verified_read *v) {
  v->status = v->read.status;
  if (v->status == 0 && v->wide)
    memcpy(v->asked->buf, v->wide + (v->asked->offset - v->read.offset),
           v->asked->len);
}

/* Continues the check.  True: the read has ended, and the caller has to free
 * it.  False: it waits for a load, or another thread has ended it already. */
static bool read_go_on(struct verified_read *v) {
  enum verity_outcome outcome;
  while ((outcome = verity_check_step(&v->check)) == VERITY_WANTS) {
    struct load *fresh = load_new(v->source->shared, &v->check, v->asked);
    if (!fresh) {
      v->status = -ENOMEM;
      return true;
    }
    struct source *from = fresh->tree ? fresh->tree->source : v->source->below;
    if (!wait_for_load(v, fresh)) { /* `v` may be gone */
      load_free(fresh);
      return false;
    }
    enum source_outcome started = source_start(from, &fresh->read);
    if (started == SOURCE_PENDING)
      return false; /* likewise */
    assert(started == SOURCE_DONE);
    struct waiting_reads waiting;
    load_ended(fresh, &waiting);
    STAILQ_REMOVE(&waiting, v, verified_read, waiting);
    waiting_go_on(&waiting);
    if (v->status < 0)
      return true;
  }
  v->status = status_of(v->source, &v->check, outcome);
  if (v->status == 0)
    read_matched(v);
  return true;
}

/* The source below has answered.  True: the read has ended. */
static bool read_answered(struct verified_read *v) {
  const struct verified_source *s = v->source;
  const void *data = v->read.status == SOURCE_ZEROS ? NULL : v->read.buf;
  v->status = v->read.status;
  v->asked->sent_ns = v->read.sent_ns;
  v->asked->first_ns = v->read.first_ns;
  if (v->status < 0)
    return true;
  if (s->shared->digests) {
    v->status = check_digests(s, v->read.offset, data, v->read.len);
    if (v->status == 0)
      read_matched(v);
    return true;
  }
  verity_check_begin(&v->check, s->shared->verity, v->read.offset, data,
                     v->read.len);
  v->is_checking = true;
  return read_go_on(v);
}

static void below_done(struct source_read *read) {
  struct verified_read *v = container_of(read, struct verified_read, read);
  if (read_answered(v))
    read_finish(v);
}

static struct verified_read *read_new(struct verified_source *s,
                                      struct source_read *asked) {
  struct blocks blocks = blocks_of(s, asked->offset, asked->len);
  CLEANUP(cleanup_free) struct verified_read *v = calloc(1, sizeof *v);
  if (!v || (blocks.len != asked->len && !(v->wide = malloc(blocks.len))))
    return NULL;
  v->asked = asked;
  v->source = s;
  v->read = (struct source_read){.offset = blocks.offset,
                                 .buf = v->wide ? v->wide : asked->buf,
                                 .len = blocks.len,
                                 .deadline_ms = asked->deadline_ms,
                                 .anew = asked->anew,
                                 .done = below_done};
  return STEAL(v);
}

static enum source_outcome calling_start(struct source *src,
                                         struct source_read *asked) {
  struct verified_read *v = read_new(verified_of(src), asked);
  if (!v) {
    asked->status = -ENOMEM;
    return SOURCE_DONE;
  }
  enum source_outcome outcome = source_start(v->source->below, &v->read);
  if (outcome == SOURCE_PENDING)
    return SOURCE_PENDING; /* `v` may be gone */
  assert(outcome == SOURCE_DONE);
  if (!read_answered(v))
    return SOURCE_PENDING;
  read_end(v);
  return SOURCE_DONE;
}

/* ---- Versions ------------------------------------------------------------ */

static int make_source(struct source *below, struct shared *shared,
                       struct source **out);

/* Whether an image of that size can belong to the tree. */
static bool size_is_right(const struct shared *shared, uint64_t size) {
  return shared->verity && shared->tree_is_inside
             ? size >= verity_tree_end(shared->verity)
             : size == data_size(shared);
}

/* Opens the source of the tree again, if that has changed.  The root is the
 * same, so hashes of the new source are proven as those of the old one were. */
static void renew_tree(struct shared *shared) {
  struct tree *old = tree_ref(shared), *fresh;
  CLEANUP(close_belowp) struct source *source = NULL;
  if (old)
    source_reopen(old->source, &source);
  if (source && source->size >= verity_tree_end(shared->verity) &&
      tree_new(source, &fresh) == 0) {
    source = NULL; /* `fresh` has it */
    pthread_mutex_lock(&shared->lock);
    shared->tree = fresh;
    pthread_mutex_unlock(&shared->lock);
    tree_unref(shared, old); /* the reference that `shared` had */
  }
  tree_unref(shared, old);
}

static int verified_reopen(struct source *src, struct source **out) {
  struct verified_source *s = verified_of(src);
  struct source *below;
  *out = NULL;
  renew_tree(s->shared);
  int r = source_reopen(s->below, &below);
  if (!below)
    return r;
  r = size_is_right(s->shared, below->size) ? make_source(below, s->shared, out)
                                            : -EBADMSG;
  if (r < 0)
    below->ops->close(below);
  return r;
}

/* The identity is the root and the size, whatever the source below is: the root
 * has proven the bytes, and does not contain the size.  Bytes that were read
 * without this root are not kept. */
static void verified_identify(struct source *src, struct source_identity *out) {
  const struct shared *shared = verified_of(src)->shared;
  const uint64_t size = htole64(src->size);
  const char *kind = shared->verity ? "verity" : "sha256";
  source_identity_add(out, kind, strlen(kind));
  source_identity_add(out, shared->id, sizeof shared->id);
  source_identity_add(out, &size, sizeof size);
  out->content_len = sizeof shared->id + sizeof size;
}

static uint64_t verified_worth(struct source *src) {
  struct source *below = verified_of(src)->below;
  return below->ops->worth ? below->ops->worth(below) : 0;
}

static void verified_advise(struct source *src, uint64_t offset, uint64_t len) {
  source_advise(verified_of(src)->below, offset, len);
}

static void verified_forget(struct source *src) {
  source_forget(verified_of(src)->below);
}

static void verified_listen(struct source *src, struct source_listener *l) {
  source_listen(verified_of(src)->below, l);
}

static void verified_close(struct source *src) {
  struct verified_source *s = verified_of(src);
  s->below->ops->close(s->below);
  shared_unref(s->shared);
  free(s);
}

static const struct source_ops blocking_ops = {
    .kind = "verified",
    .read = blocking_read,
    .reopen = verified_reopen,
    .identify = verified_identify,
    .resume = source_is_identity,
    .worth = verified_worth,
    .advise = verified_advise,
    .forget = verified_forget,
    .listen = verified_listen,
    .close = verified_close,
};

static const struct source_ops calling_ops = {
    .kind = "verified",
    .start = calling_start,
    .reopen = verified_reopen,
    .identify = verified_identify,
    .resume = source_is_identity,
    .worth = verified_worth,
    .advise = verified_advise,
    .forget = verified_forget,
    .listen = verified_listen,
    .close = verified_close,
};

static int make_source(struct source *below, struct shared *shared,
                       struct source **out) {
  struct verified_source *s = calloc(1, sizeof *s);
  if (!s)
    return -ENOMEM;
  s->base.ops = below->ops->read ? &blocking_ops : &calling_ops;
  s->base.size = data_size(shared);
  s->base.fetch_size = below->fetch_size;
  s->below = below;
  s->shared = shared_ref(shared);
  *out = &s->base;
  return 0;
}

/* ---- Opening ------------------------------------------------------------- */

/* Reads the superblock, and makes `shared->verity` from it. */
static int open_verity(struct shared *shared,
                       const struct verified_options *options,
                       struct source *below, struct source_fault *fault) {
  struct source *from = shared->tree ? shared->tree->source : below;
  uint8_t superblock[VERITY_SUPERBLOCK_LEN] = {0}; /* it may be zeros */
  char why[VERITY_WHY_LEN];
  if (options->tree_offset > from->size ||
      from->size - options->tree_offset < sizeof superblock)
    return remote_fault(fault, -EBADMSG,
                        "its hash tree: there are %" PRIu64
                        " bytes, and none at "
                        "%" PRIu64,
                        from->size, options->tree_offset);
  int r = source_read_blocking(from, options->tree_offset, superblock,
                               sizeof superblock);
  if (r < 0)
    return remote_fault(fault, r, "its hash tree cannot be read: %s",
                        strerror(-r));
  r = verity_new(superblock, options->tree_offset, options->root,
                 options->root_len, &shared->verity, why);
  if (r == -EINVAL)
    return remote_fault(fault, -EBADMSG, "its hash tree: %s", why);
  return r;
}

/* Whether the tree belongs to that image, and is complete. */
static int check_sizes(const struct shared *shared,
                       const struct verified_options *options,
                       const struct source *below, struct source_fault *fault) {
  uint64_t data = verity_data_size(shared->verity);
  uint64_t end = verity_tree_end(shared->verity);
  const struct source *from = shared->tree ? shared->tree->source : below;
  if (from->size < end)
    return remote_fault(fault, -EBADMSG,
                        "its hash tree ends at %" PRIu64
                        ", and should at %" PRIu64,
                        from->size, end);
  if (shared->tree_is_inside && data > options->tree_offset)
    return remote_fault(fault, -EBADMSG,
                        "its hash tree at %" PRIu64 " is of %" PRIu64 " bytes",
                        options->tree_offset, data);
  if (!size_is_right(shared, below->size))
    return remote_fault(fault, -EBADMSG,
                        "it has %" PRIu64
                        " bytes, and its hash tree is of %" PRIu64
                        "; fill it up with zeros to whole blocks of %" PRIu32
                        ", and make the tree of that",
                        below->size, data, verity_block_size(shared->verity));
  return 0;
}

int verified_source_open(const struct verified_options *options,
                         struct source *below, struct source **out,
                         struct source_fault *fault) {
  CLEANUP(shared_unrefp) struct shared *shared = NULL;
  remote_fault(fault, 0, "its hash tree: out of memory");
  int r = shared_new(options, &shared);
  if (r == 0)
    r = open_verity(shared, options, below, fault);
  if (r == 0)
    r = check_sizes(shared, options, below, fault);
  return r < 0 ? r : make_source(below, shared, out);
}

int verified_source_by_digests(const struct verified_options *options,
                               struct digests *digests, struct source *below,
                               struct source **out) {
  CLEANUP(shared_unrefp) struct shared *shared = NULL;
  int r = shared_new(options, &shared);
  if (r < 0)
    return r;
  shared->digests = digests;
  shared->size = below->size;
  r = make_source(below, shared, out);
  if (r < 0)
    shared->digests = NULL; /* it stays the caller's */
  return r;
}
