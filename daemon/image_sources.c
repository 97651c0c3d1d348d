#include "daemon/image_sources.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "cache/mirror.h"
#include "daemon/config_tree.h"
#include "daemon/log.h"
#include "daemon/missing.h"
#include "daemon/opening.h"
#include "source/file.h"
#include "source/retrying.h"
#include "source/verifier.h"
#include "source/window.h"

enum {
  /* How many sources are opened at once, each by a thread of its own. */
  MAX_OPENINGS = 64,
};

void image_sources_warn_of_format(const char *name, const char *format) {
  if (format)
    log_peer_event(LEVEL_WARN, "image-format", LOG_TEXT("image", name),
                   LOG_TEXT("format", format),
                   LOG_TEXT("advice", "the bytes of the file are served, not "
                                      "those of the disk in it"));
}

/* Once: what it says holds for all images, and until a restart. */
static void warn_of_no_huge_pages(const char *name) {
  static atomic_flag is_said = ATOMIC_FLAG_INIT;
  if (mirror_may_be_huge() || atomic_flag_test_and_set(&is_said))
    return;
  log_event(LEVEL_WARN, "no-huge-pages", LOG_TEXT("image", name),
            LOG_TEXT("advice",
                     mirror_is_overcommit_strict()
                         ? "set vm.overcommit_memory to 0 or 1, and restart: "
                           "an image with huge = on has small pages of the "
                           "kernel's until then"
                         : "set /sys/kernel/mm/transparent_hugepage/"
                           "shmem_enabled to advise, and restart: an image "
                           "with huge = on has small pages of the kernel's "
                           "until then"));
}

/* Says that a source, which has `size` bytes, has not all of the window. */
static void print_window(const struct config_image *image, uint64_t size,
                         char *text, size_t len) {
  const struct window *w = &image->window;
  char length[40] = "";
  if (w->length != WINDOW_TO_END)
    snprintf(length, sizeof length, ",length=%" PRIu64, w->length);
  snprintf(text, len,
           "the window offset=%" PRIu64 "%s reaches past the end of it, which "
           "has %" PRIu64 " bytes",
           w->offset, length, size);
}

/* Replaces `to->source` by the part of it that is to be served, which it has.
 * 0 or -ENOMEM. */
static int cut_window(const struct config_image *image,
                      struct server_image *to) {
  const struct window *w = &image->window;
  return window_is_whole(w)
             ? 0
             : window_source_new_later(to->source, w, &to->source);
}

/* How a source is opened. */
struct opened {
  struct opening *opening;
  struct remote *remote; /* NULL: it is a file that is not verified */
};

/* The name of the tree.  NULL: there is no memory. */
static struct remote *name_tree(const struct config_image *image,
                                struct remotes *remotes) {
  struct config_tree tree;
  int r = config_tree_init(&tree, image);
  struct remote *name =
      r == 0 ? remotes_name(remotes, tree.kind, &tree.uri) : NULL;
  config_tree_fini(&tree);
  return name;
}

static int verify(const struct config_image *image, struct remotes *remotes,
                  struct remote *name) {
  const struct config_verity *v = &image->verity;
  struct source_fault fault;
  const struct verifier *verifier = verifier_find(&fault);
  assert(verifier); /* verifier_is_there() */
  if (v->is_whole)
    return remotes_verify_whole(name, verifier, image->name, v->sha256);
  bool is_inside = config_image_has_tree(image);
  struct remote *tree = is_inside ? NULL : name_tree(image, remotes);
  if (!tree && !is_inside)
    return -ENOMEM;
  int r = remotes_verify(name, verifier, image->name, v->root, v->root_len,
                         tree, v->tree_offset);
  remotes_unref(tree);
  return r;
}

/* NULL: there is no memory. */
static struct remote *name_image(const struct config_image *image,
                                 struct remotes *remotes) {
  struct source_uri uri = config_image_uri(image);
  if (!image->uri)
    uri.text = image->path;
  struct remote *name = remotes_name(remotes, image->kind, &uri);
  struct retrying *retrying = name ? remotes_retrying(name) : NULL;
  if (retrying && image->max_requests)
    retrying_set_max_requests(retrying, image->max_requests);
  if (!name || !config_image_is_verified(image) ||
      verify(image, remotes, name) == 0)
    return name;
  remotes_unref(name);
  return NULL;
}

/* Whether it is opened by its name: see daemon/remotes.h. */
static bool is_remote(const struct config_image *image) {
  return image->uri || config_image_is_verified(image);
}

/* NULL in `opening`: there is no memory, or it is opened later. */
static struct opened open_one(const struct config_image *image,
                              struct remotes *remotes,
                              const struct timespec *deadline) {
  if (!is_remote(image))
    return (struct opened){.opening = opening_begin(image->path)};
  struct opened o = {.remote = name_image(image, remotes)};
  if (o.remote && !image->verity.is_whole)
    o.opening = opening_begin_remote(o.remote, deadline);
  return o;
}

/* Serves later what cannot be opened now. */
static int take_missing(const struct config_image *image,
                        const struct opened *opened, int error, const char *why,
                        struct server_image *to) {
  to->missing = error;
  log_event(LEVEL_ERROR, "image-missing", LOG_TEXT("image", image->name),
            LOG_TEXT("path", image->path),
            LOG_TEXT("reason", *why ? why : missing_reason(error)));
  return opened->remote
             ? remotes_open_later(opened->remote, &to->source)
             : file_source_open_later(image->path, FILE_DONTCACHE, &to->source);
}

/* Ends the opening.  A source that has not all of the window is closed. */
static int take_opened(const struct config_image *image,
                       const struct opened *opened, struct source **out,
                       struct source_fault *fault) {
  const char *format = NULL;
  int r = opening_end(opened->opening, out, &format, fault);
  if (r < 0)
    return r;
  image_sources_warn_of_format(image->name, format);
  uint64_t size = (*out)->size;
  if (window_fits(&image->window, size))
    return 0;
  (*out)->ops->close(*out);
  *out = NULL;
  print_window(image, size, fault->text, sizeof fault->text);
  return -ERANGE;
}

/* What is set for a source, whether it is there or not. */
static int set_up(const struct config_image *image, const struct opened *opened,
                  struct server_image *to) {
  if (opened->remote)
    to->retrying = retrying_ref(remotes_retrying(opened->remote));
  else if (image->max_age_s)
    file_source_set_max_age(to->source, image->max_age_s);
  else
    file_source_doubt_writers(to->source);
  int r = cut_window(image, to);
  if (r == 0)
    to->source->fetch_size = config_image_fetch_size(image);
  return r;
}

/* Takes a source whose whole content is hashed first.  That takes long, so the
 * image is missing until then. */
static int take_whole(const struct config_image *image,
                      const struct opened *opened, struct server_image *to) {
  to->missing = EINPROGRESS;
  log_event(LEVEL_INFO, "image-checking", LOG_TEXT("image", image->name),
            LOG_TEXT("path", image->path),
            LOG_TEXT("meaning", "it is read as a whole, and served when its "
                                "SHA-256 is right"));
  int r = remotes_open_later(opened->remote, &to->source);
  return r < 0 ? r : set_up(image, opened, to);
}

/* Takes what was opened.  One that cannot be served now is served once it can.
 * 0 or a negative errno: there is no memory. */
static int take_source(const struct config_image *image,
                       const struct opened *opened, struct server_image *to) {
  struct source_fault fault;
  int r = take_opened(image, opened, &to->source, &fault);
  if (r < 0)
    r = take_missing(image, opened, -r, fault.text, to);
  return r < 0 ? r : set_up(image, opened, to);
}

/* What the server is to know of an image, but for its source. */
static struct server_image describe(const struct config *config,
                                    const struct config_image *image) {
  return (struct server_image){.name = image->name,
                               .share = config_shares(config, image),
                               .allow = image->allow,
                               .warm = image->warm,
                               .page_size = config_page_size(config, image),
                               .path = image->path};
}

/* After a failure nothing is open. */
static int settle(int r, const char *event, struct server_image *to) {
  if (r == 0)
    return 0;
  log_event(LEVEL_ERROR, event, LOG_TEXT("reason", "out of memory"));
  image_sources_close(to, 1);
  *to = (struct server_image){.source = NULL};
  return -EINVAL;
}

/* 0; or -EINVAL with the reason logged, and nothing is taken. */
static int take_image(const struct config *config,
                      const struct config_image *image,
                      const struct opened *opened, const char *event,
                      struct server_image *to) {
  *to = describe(config, image);
  int r = -ENOMEM;
  if (opened->opening)
    r = take_source(image, opened, to);
  else if (opened->remote && image->verity.is_whole)
    r = take_whole(image, opened, to);
  if (r == 0 && image->huge)
    warn_of_no_huge_pages(image->name);
  return settle(r, event, to);
}

int image_sources_open_missing(const struct config *config,
                               const struct config_image *image,
                               struct remotes *remotes, int error,
                               const char *why, const char *event,
                               struct server_image *out) {
  struct opened opened = {.remote = NULL};
  *out = describe(config, image);
  if (is_remote(image))
    opened.remote = name_image(image, remotes);
  int r = -ENOMEM;
  if (opened.remote || !is_remote(image))
    r = take_missing(image, &opened, error, why, out);
  if (r == 0)
    r = set_up(image, &opened, out);
  remotes_unref(opened.remote);
  return settle(r, event, out);
}

/* Whether what verifies images is needed and cannot be loaded. */
static bool lacks_verifier(const struct config_image *image,
                           struct source_fault *fault) {
  return config_image_is_verified(image) && !verifier_find(fault);
}

/* Whether what verifies images is loaded, if one of them needs it. */
static bool verifier_is_there(const struct config_image *const *images,
                              size_t n, const char *event) {
  struct source_fault fault;
  for (size_t i = 0; i < n; i++) {
    if (!lacks_verifier(images[i], &fault))
      continue;
    log_event(LEVEL_ERROR, event, LOG_TEXT("image", images[i]->name),
              LOG_TEXT("reason", fault.text));
    return false;
  }
  return true;
}

void image_sources_check_module(const struct config *config,
                                struct config_errors *errors) {
  struct source_fault fault;
  for (size_t i = 0; i < config->n_images; i++) {
    const struct config_image *image = &config->images[i];
    const struct config_origin *origin =
        &image->origins[image->verity.is_whole ? CONFIG_IMAGE_SHA256
                                               : CONFIG_IMAGE_VERITY_ROOT];
    if (!lacks_verifier(image, &fault))
      continue;
    if (origin->file)
      config_errors_add(errors, "%s:%u: image \"%s\": %s", origin->file,
                        origin->line, image->name, fault.text);
    else
      config_errors_add(errors, "--image: image \"%s\": %s", image->name,
                        fault.text);
    return; /* once is enough */
  }
}

/* Waits until there is one to be taken: one that has ended, or that there is
 * nothing to wait for with; after `deadline` any. */
static size_t await_opened(const struct opened *opened, size_t n,
                           const struct timespec *deadline) {
  struct opening *openings[MAX_OPENINGS];
  for (size_t i = 0; i < n; i++) {
    if (!opened[i].opening)
      return i;
    openings[i] = opened[i].opening;
  }
  size_t i = opening_await_any(openings, n, deadline);
  return i < n ? i : 0;
}

/* An opening that hangs delays none that begins after it, unless MAX_OPENINGS
 * do. */
int image_sources_open(const struct config *config,
                       const struct config_image *const *images, size_t n,
                       int patience_ms, struct remotes *remotes,
                       const char *event, struct server_image *out) {
  struct opened opened[MAX_OPENINGS];
  size_t whose[MAX_OPENINGS], n_begun = 0, n_opened = 0;
  int r = 0;
  if (!verifier_is_there(images, n, event))
    return -EINVAL;
  struct timespec deadline = clock_after_ms(patience_ms);
  while (n_begun < n || n_opened > 0) {
    for (; n_begun < n && n_opened < MAX_OPENINGS; n_begun++, n_opened++) {
      opened[n_opened] = open_one(images[n_begun], remotes, &deadline);
      whose[n_opened] = n_begun;
    }
    size_t at = await_opened(opened, n_opened, &deadline), i = whose[at];
    if (take_image(config, images[i], &opened[at], event, &out[i]) < 0)
      r = -EINVAL;
    remotes_unref(opened[at].remote);
    n_opened--;
    opened[at] = opened[n_opened];
    whose[at] = whose[n_opened];
  }
  if (r < 0)
    image_sources_close(out, n);
  return r;
}

void image_sources_close(const struct server_image *images, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (images[i].source)
      images[i].source->ops->close(images[i].source);
    retrying_unref(images[i].retrying);
  }
}
