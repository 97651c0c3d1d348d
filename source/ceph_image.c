#include "source/ceph_image.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rados/librados.h>
#include <rbd/librbd.h>

#include "base/clock.h"
#include "source/remote.h"

enum {
  /* The most bytes of reads that librbd has not ended, with those that were
   * given up.  It is enough for the reads of several images at once. */
  MAX_HELD = 64 << 20,
  /* A map of objects has a bit for each object.  This is enough for 64 TiB in
   * objects of 4 MiB. */
  MAX_OBJECTS = 16 << 20,
  UNWATCHED_LOOK_MS = 10000,
  HEADER_UPDATE = 3, /* of the messages that librbd's users send each other */
  IMAGE_ID_MAX = 128,
  IDENTITY_MAX = 160, /* SOURCE_IDENTITY_MAX */
};

/* What librbd states of an open image. */
struct facts {
  uint64_t size, object_size, snapshot_id;
  char id[IMAGE_ID_MAX];
};

struct ceph_image {
  atomic_uint n_users;  /* acq_rel: the last one sees what the others did */
  atomic_uint n_refs;   /* of the memory: the users together are one, each read
                           that librbd has is one; acq_rel, likewise */
  atomic_size_t n_held; /* bytes; relaxed, a bound */

  struct rbd_target *target;
  rados_t cluster;    /* NULL, as the two below: not yet */
  rados_ioctx_t pool; /* with the namespace */
  rbd_image_t image;
  struct facts facts;             /* fixed, as is the rest, once it is open */
  char header[IMAGE_ID_MAX + 16]; /* the object that is watched */
  char identity[IDENTITY_MAX + 1];
  uint8_t *objects; /* a bit for each object that exists; NULL: unknown */

  bool is_watched;            /* fixed once it is open */
  uint64_t watch;             /* the look's, alone, once it is open; 0: none */
  _Atomic uint64_t looked_ms; /* clock_now_ms(); relaxed: a time */
  atomic_flag is_looking;     /* acquire, release */
  atomic_bool has_lost_watch;
  atomic_bool is_cut_off; /* the cluster does not let this connection go on */
  /* How many changes were reported, and how many of them the last check has
   * seen.  The notice and the check store them (release); readers load them
   * (acquire). */
  atomic_uint n_news, n_seen;
};

/* ---- Failures ------------------------------------------------------------ */

static int status_of(int r) {
  switch (r) {
  case -EPERM:
    return -EACCES;
  case -ESHUTDOWN: /* the cluster blocks this client, or the client is closed */
    return -ECONNRESET;
  case -EACCES:
  case -ENOENT:
  case -ENOMEM:
  case -ETIMEDOUT:
  case -ECONNRESET:
  case -ECONNREFUSED:
  case -EHOSTUNREACH:
  case -ENETUNREACH:
  case -ENOTCONN:
  case -EPIPE:
    return r;
  default:
    return -EIO;
  }
}

/* Sets the message of a failure, and returns its status. */
static int fail(struct source_fault *fault, int r, const char *what,
                const char *name) {
  r = status_of(r);
  snprintf(fault->text, sizeof fault->text, "%s%.100s: %s", what, name,
           r == -ETIMEDOUT ? "nobody answered in time" : strerror(-r));
  return r;
}

/* ---- Connecting ---------------------------------------------------------- */

static int check_files(const struct rbd_target *t, struct source_fault *fault) {
  if (access(t->conf, R_OK) < 0)
    return fail(fault, -errno, "conf ", t->conf);
  if (t->keyring && access(t->keyring, R_OK) < 0)
    return fail(fault, -errno, "keyring ", t->keyring);
  return 0;
}

/* Settings that override the configuration file: librbd must keep no cache,
 * write no log, and open no socket. */
static const char *const settings[][2] = {
    {"log_to_stderr", "false"},
    {"err_to_stderr", "false"},
    {"log_to_syslog", "false"},
    {"err_to_syslog", "false"},
    {"log_file", ""},
    {"admin_socket", ""},
    {"rbd_cache", "false"},
    {"rbd_readahead_max_bytes", "0"},
    {"rbd_parent_cache_enabled", "false"},
    {"rbd_persistent_cache_mode", "disabled"},
    {"rbd_plugins", ""},
};

/* Sets an option.  A version of librados that does not know the option does not
 * do what it would turn off either. */
static int set(rados_t cluster, const char *key, const char *value) {
  int r = rados_conf_set(cluster, key, value);
  return r == -ENOENT ? 0 : r;
}

static int configure(rados_t cluster, const struct rbd_target *t) {
  static const char *const timeouts[] = {
      "client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout"};
  char seconds[16];
  int r = 0;
  snprintf(seconds, sizeof seconds, "%d", t->timeout_ms / 1000);
  for (size_t i = 0; r == 0 && i < sizeof timeouts / sizeof *timeouts; i++)
    r = rados_conf_set(cluster, timeouts[i], seconds);
  for (size_t i = 0; r == 0 && i < sizeof settings / sizeof *settings; i++)
    r = set(cluster, settings[i][0], settings[i][1]);
  if (r == 0 && t->keyring)
    r = rados_conf_set(cluster, "keyring", t->keyring);
  return r;
}

static int connect_to_cluster(struct ceph_image *i,
                              struct source_fault *fault) {
  const struct rbd_target *t = i->target;
  int r = check_files(t, fault);
  if (r < 0)
    return r;
  r = rados_create(&i->cluster, t->id);
  if (r < 0) {
    i->cluster = NULL;
    return fail(fault, r, "client.", t->id);
  }
  r = rados_conf_read_file(i->cluster, t->conf);
  if (r == 0)
    r = configure(i->cluster, t);
  if (r < 0)
    return fail(fault, r, "conf ", t->conf);
  r = rados_connect(i->cluster);
  if (r < 0)
    return fail(fault, r, "connecting as client.", t->id);
  r = rados_ioctx_create(i->cluster, t->pool, &i->pool);
  if (r < 0) {
    i->pool = NULL;
    return fail(fault, r, "pool ", t->pool);
  }
  rados_ioctx_set_namespace(i->pool, t->name_space);
  return 0;
}

/* ---- Opening by name ----------------------------------------------------- */

static int read_facts(rbd_image_t image, const char *snapshot,
                      struct facts *out) {
  rbd_image_info_t info;
  *out = (struct facts){0};
  int r = rbd_stat(image, &info, sizeof info);
  if (r == 0)
    r = rbd_get_id(image, out->id, sizeof out->id);
  if (r == 0 && snapshot)
    r = rbd_snap_get_id(image, snapshot, &out->snapshot_id);
  out->size = info.size;
  out->object_size = info.obj_size;
  return r;
}

static bool facts_same(const struct facts *a, const struct facts *b) {
  return a->size == b->size && a->snapshot_id == b->snapshot_id &&
         strcmp(a->id, b->id) == 0;
}

/* Opens the image that has the name now.  Returns 0 or the error of librbd. */
static int open_by_name(struct ceph_image *i, rbd_image_t *image,
                        struct facts *facts) {
  const struct rbd_target *t = i->target;
  int r = rbd_open_read_only(i->pool, t->image, image, t->snapshot);
  if (r < 0)
    return r;
  r = read_facts(*image, t->snapshot, facts);
  if (r < 0)
    rbd_close(*image);
  return r;
}

static int probe(struct ceph_image *i, struct facts *facts) {
  rbd_image_t image;
  int r = open_by_name(i, &image, facts);
  if (r == 0)
    rbd_close(image);
  return r;
}

/* Sets the identity.  If it is too long, it is left empty. */
static void name_identity(struct ceph_image *i) {
  char fsid[64];
  if (!i->target->snapshot ||
      rados_cluster_fsid(i->cluster, fsid, sizeof fsid) < 0)
    return;
  int n =
      snprintf(i->identity, sizeof i->identity, "rbd %s %lld %s/%s %llu", fsid,
               (long long)rados_ioctx_get_id(i->pool), i->target->name_space,
               i->facts.id, (unsigned long long)i->facts.snapshot_id);
  if (n >= (int)sizeof i->identity)
    i->identity[0] = '\0';
}

/* ---- Watching ------------------------------------------------------------ */

static void add_news(struct ceph_image *i) {
  atomic_fetch_add_explicit(&i->n_news, 1, memory_order_release);
}

/* Whether a message reports a change of the header.  After two bytes of
 * versions and four of a length, a number states the kind of the message.  A
 * message that cannot be parsed counts as a change. */
static bool is_header_update(const uint8_t *message, size_t len) {
  return len < 10 || (message[6] == HEADER_UPDATE && !message[7] &&
                      !message[8] && !message[9]);
}

/* Called on a thread of librados.  It has to answer, because the sender of the
 * notice waits for that. */
static void on_notice(void *arg, uint64_t notice, uint64_t watch,
                      uint64_t notifier, void *message, size_t len) {
  struct ceph_image *i = arg;
  (void)notifier;
  if (is_header_update(message, len))
    add_news(i);
  rados_notify_ack(i->pool, i->header, notice, watch, NULL, 0);
}

static void on_watch_lost(void *arg, uint64_t watch, int error) {
  struct ceph_image *i = arg;
  (void)watch;
  if (error == -ESHUTDOWN)
    atomic_store_explicit(&i->is_cut_off, true, memory_order_relaxed);
  atomic_store_explicit(&i->has_lost_watch, true, memory_order_relaxed);
  add_news(i); /* orders both */
}

static int watch(struct ceph_image *i) {
  atomic_store_explicit(&i->has_lost_watch, false, memory_order_relaxed);
  int r = rados_watch3(i->pool, i->header, &i->watch, on_notice, on_watch_lost,
                       0, i);
  if (r < 0)
    i->watch = 0;
  return r;
}

/* Ends the watch, if there is one: librados uses the number as a pointer, so it
 * must not get 0. */
static void unwatch(struct ceph_image *i) {
  if (i->watch)
    rados_unwatch2(i->pool, i->watch);
  i->watch = 0;
}

static int watch_again(struct ceph_image *i) {
  unwatch(i);
  int r = watch(i);
  if (r < 0)
    atomic_store_explicit(&i->has_lost_watch, true, memory_order_relaxed);
  return r;
}

/* 0, or a status: H1. */
static int watch_first(struct ceph_image *i, struct source_fault *fault) {
  snprintf(i->header, sizeof i->header, "rbd_header.%s", i->facts.id);
  int r = watch(i);
  i->is_watched = r == 0;
  if (r == 0 || (r == -EPERM && i->target->snapshot))
    return 0;
  if (r != -EPERM)
    return fail(fault, r, "watching image ", i->target->image);
  snprintf(fault->text, sizeof fault->text,
           "image %.60s: without a snapshot it has to be watched, which "
           "client.%.60s may not (profile rbd would do)",
           i->target->image, i->target->id);
  return -EACCES;
}

/* ---- Zeros --------------------------------------------------------------- */

struct object_map {
  uint8_t *bits;
  uint64_t object_size, n_objects;
};

static int note_objects(uint64_t offset, size_t len, int exists, void *arg) {
  struct object_map *map = arg;
  if (!exists || len == 0)
    return 0;
  uint64_t first = offset / map->object_size;
  uint64_t last = (offset + len - 1) / map->object_size;
  if (last >= map->n_objects)
    return -ERANGE;
  for (uint64_t n = first; n <= last; n++)
    map->bits[n / 8] |= (uint8_t)(1u << n % 8);
  return 0;
}

/* Whether librbd knows which objects exist without asking for each.  The
 * objects of a parent image are not among them. */
static bool has_object_map(rbd_image_t image) {
  uint64_t features, flags, overlap;
  return rbd_get_features(image, &features) == 0 &&
         features & RBD_FEATURE_FAST_DIFF &&
         rbd_get_flags(image, &flags) == 0 &&
         !(flags &
           (RBD_FLAG_OBJECT_MAP_INVALID | RBD_FLAG_FAST_DIFF_INVALID)) &&
         rbd_get_overlap(image, &overlap) == 0 && overlap == 0;
}

/* Learns which objects of a snapshot exist; a snapshot gets no more objects.
 * If that fails, reads find the zeros. */
static void learn_zeros(struct ceph_image *i) {
  struct object_map map = {.object_size = i->facts.object_size};
  if (!i->target->snapshot || map.object_size == 0 || i->facts.size == 0 ||
      !has_object_map(i->image))
    return;
  map.n_objects = (i->facts.size - 1) / map.object_size + 1;
  if (map.n_objects > MAX_OBJECTS ||
      !(map.bits = calloc((size_t)map.n_objects / 8 + 1, 1)))
    return;
  if (rbd_diff_iterate2(i->image, NULL, 0, i->facts.size, 0, 1, note_objects,
                        &map) == 0)
    i->objects = map.bits;
  else
    free(map.bits);
}

bool ceph_image_is_zeros(const struct ceph_image *i, uint64_t offset,
                         uint64_t len) {
  if (!i->objects || len == 0)
    return false;
  uint64_t last = (offset + len - 1) / i->facts.object_size;
  for (uint64_t n = offset / i->facts.object_size; n <= last; n++)
    if (i->objects[n / 8] & 1u << n % 8)
      return false;
  return true;
}

/* ---- Opening and closing ------------------------------------------------- */

static void unref_memory(struct ceph_image *i) {
  if (atomic_fetch_sub_explicit(&i->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  rbd_target_free(i->target);
  free(i->objects);
  free(i);
}

struct ceph_image *ceph_image_ref(struct ceph_image *i) {
  atomic_fetch_add_explicit(&i->n_users, 1, memory_order_relaxed);
  return i;
}

/* The close of the image waits for all reads.  But librbd may call on_read()
 * for the last of them after the close has returned.  So each read has a
 * reference of its own. */
void ceph_image_unref(struct ceph_image *i) {
  if (!i || atomic_fetch_sub_explicit(&i->n_users, 1, memory_order_acq_rel) > 1)
    return;
  if (i->is_watched) {
    unwatch(i);
    rados_watch_flush(i->cluster); /* waits for calls of on_notice() */
  }
  if (i->image)
    rbd_close(i->image);
  if (i->pool)
    rados_ioctx_destroy(i->pool);
  if (i->cluster)
    rados_shutdown(i->cluster);
  unref_memory(i);
}

/* Watches the image before it opens it for reading: a change between the open
 * and the watch would go unnoticed. */
static int open_image(struct ceph_image *i, struct source_fault *fault) {
  struct facts now;
  const char *what = i->target->snapshot ? "snapshot " : "image ";
  const char *name =
      i->target->snapshot ? i->target->snapshot : i->target->image;
  int r = connect_to_cluster(i, fault);
  if (r < 0)
    return r;
  r = probe(i, &i->facts);
  if (r < 0)
    return fail(fault, r, what, name);
  r = watch_first(i, fault);
  if (r < 0)
    return r;
  r = open_by_name(i, &i->image, &now);
  if (r < 0) {
    i->image = NULL;
    return fail(fault, r, what, name);
  }
  if (!facts_same(&now, &i->facts))
    return fail(fault, -EIO, "changes while it is opened: ", name);
  return 0;
}

int ceph_image_open(const struct rbd_target *t, struct ceph_image **out,
                    struct source_fault *fault) {
  struct ceph_image *i = calloc(1, sizeof *i);
  if (i)
    i->target = rbd_target_copy(t);
  if (!i || !i->target) {
    free(i);
    return fail(fault, -ENOMEM, "image ", t->image);
  }
  atomic_init(&i->n_users, 1);
  atomic_init(&i->n_refs, 1);
  atomic_init(&i->n_held, 0);
  atomic_init(&i->has_lost_watch, false);
  atomic_init(&i->is_cut_off, false);
  atomic_init(&i->n_news, 0);
  atomic_init(&i->n_seen, 0);
  int r = open_image(i, fault);
  if (r < 0) {
    ceph_image_unref(i);
    return r;
  }
  name_identity(i);
  learn_zeros(i);
  atomic_init(&i->looked_ms, clock_now_ms());
  *out = i;
  return 0;
}

uint64_t ceph_image_size(const struct ceph_image *i) { return i->facts.size; }

const char *ceph_image_identity(const struct ceph_image *i) {
  return i->identity;
}

/* ---- Reading ------------------------------------------------------------- */

static void reading_end(struct ceph_image *i, size_t len) {
  atomic_fetch_sub_explicit(&i->n_held, len, memory_order_relaxed);
  unref_memory(i);
}

/* Called on a thread of librbd.  An object that does not exist is zeros.  If
 * the image or the snapshot does not exist, the error is ENOENT. */
static void on_read(rbd_completion_t completion, void *arg) {
  struct ceph_read *r = arg;
  struct ceph_image *i = r->image;
  ssize_t n = rbd_aio_get_return_value(completion);
  rbd_aio_release(completion);
  if (n == -ESHUTDOWN)
    atomic_store_explicit(&i->is_cut_off, true, memory_order_relaxed);
  if (n == -ENOENT || n == -ESHUTDOWN)
    add_news(i);
  if (n >= 0)
    r->status = (size_t)n == r->len ? 0 : -EIO;
  else
    r->status = n == -ENOENT ? -ESTALE : status_of((int)n);
  reading_end(i, r->len);
  r->done(r);
}

/* Takes room for the bytes. */
static bool hold(struct ceph_image *i, size_t len) {
  size_t before =
      atomic_fetch_add_explicit(&i->n_held, len, memory_order_relaxed);
  if (before == 0 || before + len <= MAX_HELD)
    return true;
  atomic_fetch_sub_explicit(&i->n_held, len, memory_order_relaxed);
  return false;
}

int ceph_image_read(struct ceph_image *i, struct ceph_read *r) {
  rbd_completion_t completion;
  if (!hold(i, r->len))
    return -EAGAIN;
  atomic_fetch_add_explicit(&i->n_refs, 1, memory_order_relaxed);
  r->image = i;
  int failed = rbd_aio_create_completion(r, on_read, &completion);
  if (failed == 0) {
    failed = rbd_aio_read2(i->image, r->offset, r->len, r->buf, completion, 0);
    if (failed < 0)
      rbd_aio_release(completion);
  }
  if (failed == 0)
    return 0;
  reading_end(i, r->len);
  return status_of(failed);
}

/* ---- Doubts -------------------------------------------------------------- */

bool ceph_image_is_doubted(const struct ceph_image *i) {
  return atomic_load_explicit(&i->n_news, memory_order_acquire) !=
         atomic_load_explicit(&i->n_seen, memory_order_acquire);
}

bool ceph_image_wants_look(struct ceph_image *i) {
  return ceph_image_is_doubted(i) ||
         (!i->is_watched &&
          clock_now_ms() -
                  atomic_load_explicit(&i->looked_ms, memory_order_relaxed) >=
              UNWATCHED_LOOK_MS);
}

/* Of a snapshot whose connection goes on. */
static int look(struct ceph_image *i, bool *is_other) {
  struct facts now;
  unsigned news = atomic_load_explicit(&i->n_news, memory_order_acquire);
  int r = 0;
  if (atomic_load_explicit(&i->has_lost_watch, memory_order_relaxed))
    r = watch_again(i);
  if (r == 0)
    r = probe(i, &now);
  if (r < 0) {
    if (r == -ESHUTDOWN)
      atomic_store_explicit(&i->is_cut_off, true, memory_order_relaxed);
    if (r == -ENOENT)
      add_news(i);
    return status_of(r);
  }
  *is_other = !facts_same(&now, &i->facts);
  atomic_store_explicit(&i->looked_ms, clock_now_ms(), memory_order_relaxed);
  if (!*is_other)
    atomic_store_explicit(&i->n_seen, news, memory_order_release);
  return 0;
}

int ceph_image_look(struct ceph_image *i, bool *is_other) {
  *is_other = !i->target->snapshot ||
              atomic_load_explicit(&i->is_cut_off, memory_order_relaxed);
  if (*is_other)
    return 0;
  if (atomic_flag_test_and_set_explicit(&i->is_looking, memory_order_acquire))
    return -ETIMEDOUT; /* a check that was given up has not returned yet */
  int r = look(i, is_other);
  atomic_flag_clear_explicit(&i->is_looking, memory_order_release);
  return r;
}
