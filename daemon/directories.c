#include "daemon/directories.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "daemon/image_sources.h"
#include "daemon/log.h"
#include "source/beneath.h"
#include "source/file.h"
#include "source/version.h"

enum { MAX_HIDDEN = 256 };

/* The directories of a configuration, and the names that were hidden since.  A
 * list never changes: a new one takes its place.  So a thread that has a
 * reference reads it without the lock. */
struct directory_list {
  atomic_uint n_refs; /* acq_rel: the last one sees that the others are done */
  bool share;
  unsigned n;
  char *paths[CONFIG_MAX_DIRECTORIES];
  unsigned n_hidden;
  char hidden[MAX_HIDDEN][FOUND_NAME_MAX + 1];
};

struct directories {
  struct finder_place place;
  pthread_mutex_t lock;        /* a leaf */
  struct directory_list *list; /* guarded by lock */
};

/* ---- The list -------------------------------------------------------------
 */

static void list_unref(struct directory_list *list) {
  if (!list ||
      atomic_fetch_sub_explicit(&list->n_refs, 1, memory_order_acq_rel) > 1)
    return;
  for (unsigned i = 0; i < list->n; i++)
    free(list->paths[i]);
  free(list);
}

CLEANUP_FUNCTION(struct directory_list *, list_unref)

static struct directory_list *list_new(char *const *paths, size_t n,
                                       bool share) {
  CLEANUP(list_unrefp)
  struct directory_list *list = calloc(1, sizeof *list);
  if (!list)
    return NULL;
  atomic_init(&list->n_refs, 1);
  list->share = share;
  for (; list->n < n; list->n++)
    if (!(list->paths[list->n] = strdup(paths[list->n])))
      return NULL;
  return STEAL(list);
}

/* A copy with one more hidden name. */
static struct directory_list *list_hiding(const struct directory_list *before,
                                          const char *name) {
  struct directory_list *list =
      list_new(before->paths, before->n, before->share);
  if (!list)
    return NULL;
  list->n_hidden = before->n_hidden;
  memcpy(list->hidden, before->hidden, sizeof list->hidden);
  memcpy(list->hidden[list->n_hidden++], name, strlen(name) + 1);
  return list;
}

static bool is_hidden(const struct directory_list *list, const char *name) {
  for (unsigned i = 0; i < list->n_hidden; i++)
    if (strcmp(list->hidden[i], name) == 0)
      return true;
  return false;
}

static bool list_names(const struct directory_list *list, const char *path) {
  for (unsigned i = 0; i < list->n; i++)
    if (strcmp(list->paths[i], path) == 0)
      return true;
  return false;
}

static bool list_same(const struct directory_list *a,
                      const struct directory_list *b) {
  bool same = a->n == b->n && (a->share == b->share || a->n == 0);
  for (unsigned i = 0; same && i < a->n; i++)
    same = strcmp(a->paths[i], b->paths[i]) == 0;
  return same;
}

/* The present list; the caller calls list_unref(). */
static struct directory_list *get_list(struct directories *d) {
  pthread_mutex_lock(&d->lock);
  struct directory_list *list = d->list;
  atomic_fetch_add_explicit(&list->n_refs, 1, memory_order_relaxed);
  pthread_mutex_unlock(&d->lock);
  return list;
}

/* Replaces the present list.  Returns whether the directories differ; hidden
 * names do not count. */
static bool put_list(struct directories *d, struct directory_list *fresh) {
  pthread_mutex_lock(&d->lock);
  struct directory_list *before = d->list;
  d->list = fresh;
  pthread_mutex_unlock(&d->lock);
  bool differs = !list_same(before, fresh);
  list_unref(before);
  return differs;
}

/* Whether the kernel can keep an open within the directory: 0 or a negative
 * errno. */
static int check_directory(const char *path) {
  CLEANUP(cleanup_close) int fd = beneath_open_directory(path);
  int r = fd < 0 ? fd : beneath_open(fd, ".", O_PATH);
  if (r >= 0)
    close(r);
  if (r < 0 && r != -ENOSYS)
    log_event(LEVEL_WARN, "directory-missing", LOG_TEXT("path", path),
              LOG_TEXT("reason", strerror(-r)));
  return r == -ENOSYS ? r : 0;
}

int directories_set(struct directories *d, const struct config *config,
                    bool *differs) {
  CLEANUP(list_unrefp) struct directory_list *before = get_list(d);
  CLEANUP(list_unrefp)
  struct directory_list *fresh =
      list_new(config->directories, config->n_directories, config->share);
  int r = fresh ? 0 : -ENOMEM;
  for (unsigned i = 0; r == 0 && i < fresh->n; i++)
    if (!list_names(before, fresh->paths[i]))
      r = check_directory(fresh->paths[i]);
  if (r < 0)
    return r;
  *differs = put_list(d, STEAL(fresh));
  return 0;
}

/* ---- Opening --------------------------------------------------------------
 */

static bool is_any(void *arg) {
  struct directories *d = arg;
  pthread_mutex_lock(&d->lock);
  bool any = d->list->n > 0;
  pthread_mutex_unlock(&d->lock);
  return any;
}

/* Whether the errno of an open says that there is no such image. */
static bool is_absence(int r) {
  switch (r) {
  case -ENOENT:
  case -ENOTDIR:
  case -EISDIR:
  case -ENODEV: /* neither a file nor a block device */
  case -EXDEV:  /* it leads out of the directory */
  case -ELOOP:
    return true;
  }
  return false;
}

static int open_in(const char *directory, const char *name, bool share,
                   struct found_image *out) {
  struct source *src = NULL;
  char *path;
  int r = file_source_open_beneath(directory, name, FILE_DONTCACHE, &src);
  if (r < 0)
    return r;
  if (asprintf(&path, "%s/%s", directory, name) < 0) {
    src->ops->close(src);
    return -ENOMEM;
  }
  file_source_doubt_writers(src);
  image_sources_warn_of_format(name, file_source_format(src));
  *out = (struct found_image){.source = src, .path = path, .share = share};
  return 0;
}

static int open_image(void *arg, const char *name, struct found_image *out) {
  int r = -ENOENT;
  if (!config_image_name_is_valid(name, strlen(name)))
    return r;
  struct directory_list *list = get_list(arg);
  unsigned n = is_hidden(list, name) ? 0 : list->n;
  for (unsigned i = 0; i < n && is_absence(r); i++)
    r = open_in(list->paths[i], name, list->share, out);
  list_unref(list);
  return is_absence(r) ? -ENOENT : r;
}

static bool is_current(void *arg, const char *path, bool share) {
  struct directory_list *list = get_list(arg);
  size_t len = (size_t)(strrchr(path, '/') - path);
  bool may_be = list->share == share && !is_hidden(list, path + len + 1);
  bool is = false;
  for (unsigned i = 0; may_be && i < list->n && !is; i++)
    is =
        strlen(list->paths[i]) == len && memcmp(list->paths[i], path, len) == 0;
  list_unref(list);
  return is;
}

/* ---- Listing --------------------------------------------------------------
 */

/* The first names of a directory, as a heap with the last of them at its root:
 * no name comes before one of its children, at 2i+1 and 2i+2.  So a directory
 * of any size needs room only for the names that are wanted. */
struct first_names {
  struct found_name *heap;
  unsigned n, most;
};

static bool is_behind(const struct first_names *f, unsigned a, unsigned b) {
  return strcmp(f->heap[a].name, f->heap[b].name) > 0;
}

static void swap(struct first_names *f, unsigned a, unsigned b) {
  struct found_name t = f->heap[a];
  f->heap[a] = f->heap[b];
  f->heap[b] = t;
}

static void sift_up(struct first_names *f, unsigned i) {
  for (; i > 0 && is_behind(f, i, (i - 1) / 2); i = (i - 1) / 2)
    swap(f, i, (i - 1) / 2);
}

static void sift_down(struct first_names *f) {
  for (unsigned i = 0, last; (last = 2 * i + 1) < f->n; i = last) {
    if (last + 1 < f->n && is_behind(f, last + 1, last))
      last++;
    if (!is_behind(f, last, i))
      return;
    swap(f, i, last);
  }
}

static bool is_wanted(const struct first_names *f, const char *name) {
  return f->n < f->most || strcmp(name, f->heap[0].name) < 0;
}

static void put(struct first_names *f, const char *name) {
  bool is_full = f->n == f->most;
  unsigned at = is_full ? 0 : f->n++;
  memcpy(f->heap[at].name, name, strlen(name) + 1);
  if (is_full)
    sift_down(f);
  else
    sift_up(f, at);
}

/* Whether there is an image of that name, and of what size. */
static bool peek(int directory, const char *name, uint64_t *size) {
  int node = beneath_open(directory, name, O_PATH);
  if (node < 0)
    return false;
  int r = version_peek_size(node, size);
  close(node);
  return r == 0;
}

/* Whether an entry is an image.  The target of a link has to be checked. */
static bool is_image(int directory, const struct dirent *entry) {
  uint64_t size;
  switch (entry->d_type) {
  case DT_REG:
  case DT_BLK:
    return true;
  case DT_LNK:
  case DT_UNKNOWN:
    return peek(directory, entry->d_name, &size);
  }
  return false;
}

static void read_names(const struct directory_list *list, DIR *dir,
                       const char *after, struct first_names *f) {
  struct dirent *entry;
  while ((entry = readdir(dir)))
    if (strcmp(entry->d_name, after) > 0 && is_wanted(f, entry->d_name) &&
        config_image_name_is_valid(entry->d_name, strlen(entry->d_name)) &&
        !is_hidden(list, entry->d_name) && is_image(dirfd(dir), entry))
      put(f, entry->d_name);
}

static int by_name(const void *a, const void *b) {
  const struct found_name *x = a, *y = b;
  return strcmp(x->name, y->name);
}

/* The first names of a directory of the list, in their order. */
static void list_directory(const struct directory_list *list, const char *path,
                           const char *after, struct first_names *f) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *dir = fd < 0 ? NULL : fdopendir(fd);
  f->n = 0;
  if (!dir) {
    log_peer_event(LEVEL_WARN, "directory-missing", LOG_TEXT("path", path),
                   LOG_TEXT("reason", strerror(errno)));
    if (fd >= 0)
      close(fd);
    return;
  }
  read_names(list, dir, after, f);
  qsort(f->heap, f->n, sizeof *f->heap, by_name);
  for (unsigned i = 0; i < f->n; i++) {
    f->heap[i].size = 0;
    peek(dirfd(dir), f->heap[i].name, &f->heap[i].size);
  }
  closedir(dir);
}

/* Merges `more` into the `n` names of `names`.  Of a name that is in both, that
 * of `names` stays (D2).  `merged` has room for as many as `names`. */
static unsigned merge(struct found_name *names, unsigned n,
                      const struct first_names *more,
                      struct found_name *merged) {
  unsigned n_merged = 0, i = 0, k = 0;
  while (n_merged < more->most && (i < n || k < more->n)) {
    int order = i == n         ? 1
                : k == more->n ? -1
                               : by_name(&names[i], &more->heap[k]);
    merged[n_merged++] = order <= 0 ? names[i] : more->heap[k];
    i += order <= 0;
    k += order >= 0;
  }
  memcpy(names, merged, n_merged * sizeof *names);
  return n_merged;
}

static int list_images(void *arg, const char *after, struct found_name *names,
                       unsigned most) {
  unsigned n = 0;
  struct found_name *room = calloc(most, 2 * sizeof *room);
  struct first_names first = {.heap = room, .most = most};
  if (!room)
    return -ENOMEM;
  struct directory_list *list = get_list(arg);
  for (unsigned i = 0; i < list->n; i++) {
    list_directory(list, list->paths[i], after, &first);
    n = merge(names, n, &first, room + most);
  }
  list_unref(list);
  free(room);
  return (int)n;
}

/* ---- Hiding ---------------------------------------------------------------
 */

static bool list_has(const struct directory_list *list, const char *name) {
  bool has = false;
  for (unsigned i = 0; i < list->n && !has; i++) {
    uint64_t size;
    CLEANUP(cleanup_close) int fd = beneath_open_directory(list->paths[i]);
    has = fd >= 0 && peek(fd, name, &size);
  }
  return has;
}

int directories_hide(struct directories *d, const char *name) {
  if (!config_image_name_is_valid(name, strlen(name)))
    return -ENOENT;
  CLEANUP(list_unrefp) struct directory_list *list = get_list(d);
  if (is_hidden(list, name) || !list_has(list, name))
    return -ENOENT;
  if (list->n_hidden == MAX_HIDDEN)
    return -ENOSPC;
  struct directory_list *fresh = list_hiding(list, name);
  if (!fresh)
    return -ENOMEM;
  put_list(d, fresh);
  return 0;
}

/* ---- Life -----------------------------------------------------------------
 */

CLEANUP_FUNCTION(struct directories *, directories_free)

struct directories *directories_new(void) {
  CLEANUP(directories_freep) struct directories *d = calloc(1, sizeof *d);
  if (!d)
    return NULL;
  pthread_mutex_init(&d->lock, NULL);
  d->list = list_new(NULL, 0, false);
  if (!d->list)
    return NULL;
  d->place = (struct finder_place){.is_any = is_any,
                                   .open = open_image,
                                   .is_current = is_current,
                                   .list = list_images,
                                   .arg = d};
  return STEAL(d);
}

void directories_free(struct directories *d) {
  if (!d)
    return;
  list_unref(d->list);
  pthread_mutex_destroy(&d->lock);
  free(d);
}

const struct finder_place *directories_place(const struct directories *d) {
  return &d->place;
}
