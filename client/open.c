/* Opening and closing handles, over a URI or over a source of the caller. */
#include <assert.h>
#include <errno.h>

#include "base/clock.h"
#include "client/backend_local.h"
#include "client/callback_source.h"
#include "client/handle.h"
#include "client/remote/remote.h"
#include "client/request.h"
#include "client/sources_library.h"
#include "client/uri.h"
#include "source/file.h"

/* Makes a handle over a source of this process, and takes the source over. */
static enum cachet_status open_source(const char *name, struct source *src,
                                      const struct window *window,
                                      const struct options *options,
                                      cachet **out, struct cachet_error *err) {
  struct image_cache *s;
  struct backend *b;
  enum cachet_status status =
      image_cache_new_local(name, src, options, &s, err);
  if (status != CACHET_OK)
    return status;
  status = backend_local_new(s, options->request_timeout_ms, &b, err);
  if (status != CACHET_OK) {
    image_cache_unref(s);
    return status;
  }
  return handle_new(b, window, options, out, err);
}

static enum cachet_status open_file(const struct uri *u,
                                    const struct options *options, cachet **out,
                                    struct cachet_error *err) {
  struct source *src;
  int r = file_source_open(u->path, FILE_CACHED, &src);
  if (r < 0)
    return error_set(err, error_from_errno(-r), -r, "image \"%.180s\": open",
                     u->path);
  return open_source(u->path, src, &u->window, options, out, err);
}

/* No time limit counts as a day. */
static struct timespec deadline_of(const struct options *options) {
  return clock_after_ms(
      options->connect_timeout_ms < 0 ? 86400000 : options->connect_timeout_ms);
}

/* The source has its own words, if it was that. */
static enum cachet_status fail_open(const struct uri *u, int r,
                                    const struct source_fault *fault,
                                    struct cachet_error *err) {
  enum cachet_status status = r == -ENOSYS      ? CACHET_E_UNSUPPORTED
                              : r == -ETIMEDOUT ? CACHET_E_TIMEOUT
                                                : error_from_errno(-r);
  if (!*fault->text)
    return error_set(err, status, -r, "image \"%.180s\": open", u->path);
  error_set(err, status, 0, "image \"%.180s\": open: %s", u->path, fault->text);
  if (err)
    err->sys_errno = -r;
  return status;
}

static enum cachet_status open_remote_source(const struct uri *u,
                                             const struct options *options,
                                             cachet **out,
                                             struct cachet_error *err) {
  const struct source_uri uri = {
      .text = u->source, .options = u->options, .n_options = u->n_options};
  const struct timespec deadline = deadline_of(options);
  struct source *src;
  struct source_fault fault = {.text = ""};
  const struct sources_calls *calls = sources_library_find(&fault);
  int r = calls ? calls->open(&uri, &deadline, &src, &fault) : -ENOSYS;
  if (r < 0)
    return fail_open(u, r, &fault, err);
  if (u->fetch_size)
    src->fetch_size.least = u->fetch_size;
  return open_source(u->path, src, &u->window, options, out, err);
}

static enum cachet_status open_remote(const struct uri *u,
                                      const struct options *options,
                                      cachet **out, struct cachet_error *err) {
  struct backend *b;
  struct options o = *options;
  o.asked_shift = PAGE_SHIFT_MAX; /* the daemon's pages, whatever they are */
  enum cachet_status status = remote_open(u, &o, &b, err);
  if (status != CACHET_OK)
    return status;
  return handle_new(b, &u->window, &o, out, err);
}

static enum cachet_status open_uri(const struct uri *u,
                                   const struct options *options, cachet **out,
                                   struct cachet_error *err) {
  cachet *c;
  enum cachet_status status =
      u->kind == URI_FILE     ? open_file(u, options, &c, err)
      : u->kind == URI_SOURCE ? open_remote_source(u, options, &c, err)
                              : open_remote(u, options, &c, err);
  if (status != CACHET_OK)
    return status;
  uint64_t size = c->epoch->mirror->size;
  if (!window_fits(&u->window, size)) {
    error_set(err, CACHET_E_BOUNDS, 0,
              "image \"%.100s\": a window at %llu reaches past the end at %llu",
              c->image_cache->name, (unsigned long long)u->window.offset,
              (unsigned long long)size);
    cachet_close(c);
    return CACHET_E_BOUNDS;
  }
  *out = c;
  return CACHET_OK;
}

enum cachet_status cachet_open(const char *uri,
                               const struct cachet_options *options,
                               cachet **out, struct cachet_error *err) {
  struct options o;
  struct uri u;
  if (!out)
    return error_set(err, CACHET_E_INVAL, 0, "open: nowhere to put a handle");
  enum cachet_status status = options_read(options, &o, err);
  if (status == CACHET_OK)
    status = uri_parse(uri, &u, err);
  if (status != CACHET_OK)
    return status;
  status = uri_keep_directory(&u, err);
  if (status == CACHET_OK)
    status = open_uri(&u, &o, out, err);
  uri_fini(&u);
  return status;
}

enum cachet_status cachet_make(const struct cachet_source *source,
                               const struct cachet_options *options,
                               cachet **out, struct cachet_error *err) {
  struct options o;
  struct cachet_source given;
  struct source *src;
  if (!out)
    return error_set(err, CACHET_E_INVAL, 0, "make: nowhere to put a handle");
  enum cachet_status status = options_read(options, &o, err);
  if (status == CACHET_OK)
    status = options_read_source(source, &given, err);
  if (status != CACHET_OK)
    return status;
  if (callback_source_new(&given, o.page_shift, &src) < 0)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a source");
  cachet *c;
  status = open_source("made", src, &WINDOW_WHOLE, &o, &c, err);
  if (status != CACHET_OK)
    return status;
  callback_source_arm(src);
  c->image_cache->context = given.ctx;
  *out = c;
  return CACHET_OK;
}

enum cachet_status cachet_copy(cachet *c, cachet **out,
                               struct cachet_error *err) {
  struct backend *b;
  if (*c->alive == 0) {
    enum cachet_status forked = handle_fail_forked(c);
    return error_set(err, forked, 0, "%s", c->error.message);
  }
  if (c->in_callback && c->backend->ops->copy_waits)
    return error_set(err, CACHET_E_INVAL, 0,
                     "a call that would wait, in a callback");
  cachet *copy;
  enum cachet_status status = c->backend->ops->copy(c->backend, &b, err);
  if (status == CACHET_OK)
    status = handle_new(b, &c->window, &c->options, &copy, err);
  if (status != CACHET_OK)
    return status;
  if (c->keeps_epoch && copy->epoch->mirror->epoch != c->epoch->mirror->epoch) {
    cachet_close(copy);
    return handle_end_epoch(c, err);
  }
  *out = copy;
  return CACHET_OK;
}

/* ---- Closing ------------------------------------------------------------- */

/* Runs the callback of each request on a list: what was not delivered yet is
 * CANCELED, however it went. */
static void cancel_all(struct request_list *list) {
  struct cachet_request *r;
  while ((r = TAILQ_FIRST(list))) {
    TAILQ_REMOVE(list, r, link);
    error_set(&r->error, CACHET_E_CANCELED, 0, "the handle was closed");
    request_deliver(r, CACHET_E_CANCELED);
  }
}

static void cancel_waiting(cachet *c) {
  struct request_list *lists[] = {&c->ready, &c->waiting};
  for (int i = 0; i < 2; i++)
    while (!TAILQ_EMPTY(lists[i]))
      request_fail(TAILQ_FIRST(lists[i]), CACHET_E_CANCELED,
                   "the handle was closed");
}

/* Closes a handle in a child process.  It frees only the memory of this
 * process, and takes no lock of the cache: a thread that does not exist in the
 * child may have held it at the fork. */
static void close_forked(cachet *c) {
  cancel_all(&c->ready);
  cancel_all(&c->waiting);
  cancel_all(&c->completed);
  c->backend->ops->close(c->backend);
  free(c);
}

void cachet_close(cachet *c) {
  if (!c)
    return;
  assert(!c->in_callback);
  c->closing = true;
  c->watch = NULL;
  if (*c->alive == 0) {
    close_forked(c);
    return;
  }
  request_check(c);
  cancel_waiting(c);
  cancel_all(&c->completed);
  handle_free(c);
}
