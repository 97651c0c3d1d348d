/* Connections to a daemon that open no image: what it serves, changes of that,
 * its counters, and its end.
 *
 *   D1  `fn` sees an answer only when all of it is here and was found to be
 *       good.  While `in_callback` is set every call is refused.
 *   D2  A forked child (another process than `pid`) sends and receives nothing,
 *       and closes no descriptor but the connection's own. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/shown_uri.h"
#include "client/error.h"
#include "client/options.h"
#include "client/remote/command.h"
#include "client/remote/internal.h"
#include "client/remote/remote.h"
#include "client/uri.h"

struct cachet_admin {
  struct backend *backend;
  pid_t pid;
  bool in_callback;
  struct cachet_error error;
};

/* ---- Life ---------------------------------------------------------------- */

static enum cachet_status check_uri(const char *text, const struct uri *u,
                                    struct cachet_error *err) {
  if (!uri_is_of_daemon(u))
    return error_set(err, CACHET_E_INVAL, 0, "%.180s: not a daemon's", u->path);
  if (!*u->image)
    return CACHET_OK;
  char *shown = shown_uri_of(text);
  enum cachet_status status =
      shown ? error_set(err, CACHET_E_INVAL, 0,
                        "%.180s: an image, not a daemon", shown)
            : error_set(err, CACHET_E_NOMEM, 0, "no memory for a message");
  free(shown);
  return status;
}

static enum cachet_status admin_connect(const struct uri *u,
                                        const struct options *options,
                                        cachet_admin **out,
                                        struct cachet_error *err) {
  cachet_admin *a = calloc(1, sizeof *a);
  if (!a)
    return error_set(err, CACHET_E_NOMEM, 0, "no memory for a connection");
  a->pid = getpid();
  enum cachet_status status = remote_connect(u, options, &a->backend, err);
  if (status != CACHET_OK)
    free(a);
  else
    *out = a;
  return status;
}

enum cachet_status cachet_admin_open(const char *uri,
                                     const struct cachet_options *options,
                                     cachet_admin **out,
                                     struct cachet_error *err) {
  struct options o;
  struct uri u;
  if (!out)
    return error_set(err, CACHET_E_INVAL, 0,
                     "open: nowhere to put a connection");
  enum cachet_status status = options_read(options, &o, err);
  if (status == CACHET_OK)
    status = uri_parse(uri, &u, err);
  if (status != CACHET_OK)
    return status;
  status = check_uri(uri, &u, err);
  if (status == CACHET_OK)
    status = uri_keep_directory(&u, err);
  if (status == CACHET_OK)
    status = admin_connect(&u, &o, out, err);
  uri_fini(&u);
  return status;
}

void cachet_admin_close(cachet_admin *a) {
  if (!a)
    return;
  assert(!a->in_callback);
  if (a->pid != getpid())
    remote_abandon(a->backend); /* D2 */
  a->backend->ops->close(a->backend);
  free(a);
}

const char *cachet_admin_errmsg(const cachet_admin *a) {
  return a->error.message;
}

/* ---- Commands ------------------------------------------------------------ */

/* Whether `a` may be used, for a call with the callback `has_fn`. */
static enum cachet_status admin_enter(cachet_admin *a, bool has_fn) {
  if (a->pid != getpid())
    return error_set(&a->error, CACHET_E_FORKED, 0,
                     "a connection of the parent process");
  if (a->in_callback)
    return error_set(&a->error, CACHET_E_INVAL, 0,
                     "a call that would wait, in a callback");
  if (!has_fn)
    return error_set(&a->error, CACHET_E_INVAL, 0, "no function to call");
  return CACHET_OK;
}

/* ---- Answers in parts ---------------------------------------------------- */

/* The most parts of an answer.  All are kept until the last has arrived
 * (D1). */
enum { MAX_PARTS = 1024 };

struct parts {
  wire_message *list[MAX_PARTS];
  size_t n;
};

/* What an Images and a Stats have in common. */
struct part {
  size_t n;
  const char *first, *last; /* names; empty if there are none */
  bool more;
};

static struct part part_of(const wire_message *msg) {
  bool lists = msg->body_case == CACHET__WIRE__MESSAGE__BODY_IMAGES;
  struct part part = {.n = lists ? msg->images->n_images : msg->stats->n_images,
                      .more = lists ? msg->images->more : msg->stats->more,
                      .first = "",
                      .last = ""};
  if (part.n) {
    size_t end = part.n - 1;
    part.first =
        lists ? msg->images->images[0]->name : msg->stats->images[0]->name;
    part.last =
        lists ? msg->images->images[end]->name : msg->stats->images[end]->name;
  }
  return part;
}

/* The last name so far.  The names of the next part come after it. */
static const char *parts_last(const struct parts *p) {
  return p->n ? part_of(p->list[p->n - 1]).last : "";
}

/* Whether the daemon may say this of an image.  One that is not open has no
 * epoch. */
static bool image_is_possible(const Cachet__Wire__ImageInfo *image) {
  struct connection_image unused;
  Cachet__Wire__ImageInfo info = *image;
  if (info.unopened)
    info.epoch = 1;
  return info.missing || connection_read_image(&info, &unused);
}

static bool images_are_possible(const Cachet__Wire__Images *images) {
  for (size_t i = 0; i < images->n_images; i++)
    if (!image_is_possible(images->images[i]))
      return false;
  return true;
}

/* Whether a part may follow the others: the names ascend, and only a part with
 * names may say that there are more.  So the parts end. */
static bool part_is_possible(const struct parts *p, const wire_message *msg) {
  struct part part = part_of(msg);
  if (msg->body_case == CACHET__WIRE__MESSAGE__BODY_IMAGES &&
      !images_are_possible(msg->images))
    return false;
  return p->n < MAX_PARTS && (part.n > 0 || !part.more) &&
         (part.n == 0 || p->n == 0 || strcmp(parts_last(p), part.first) < 0);
}

static wire_message *copy_message(const wire_message *msg) {
  size_t len = cachet__wire__message__get_packed_size(msg);
  uint8_t *packed = malloc(len);
  if (!packed)
    return NULL;
  cachet__wire__message__pack(msg, packed);
  wire_message *copy = cachet__wire__message__unpack(NULL, len, packed);
  free(packed);
  return copy;
}

static int part_answer(void *arg, const wire_message *msg) {
  struct parts *p = arg;
  if (!part_is_possible(p, msg))
    return -EPROTO;
  p->list[p->n] = copy_message(msg);
  if (!p->list[p->n])
    return -ENOMEM;
  p->n++;
  return 0;
}

static void parts_free(struct parts *p) {
  while (p->n > 0)
    cachet__wire__message__free_unpacked(p->list[--p->n], NULL);
  free(p);
}

/* Asks for all parts.  `after` is the field of the request for the last name so
 * far. */
static enum cachet_status parts_get(cachet_admin *a, wire_message *request,
                                    char **after,
                                    Cachet__Wire__Message__BodyCase expected,
                                    struct parts **out) {
  enum cachet_status status;
  struct parts *p = calloc(1, sizeof *p);
  if (!p)
    return error_set(&a->error, CACHET_E_NOMEM, 0, "no memory for an answer");
  do {
    *after = (char *)parts_last(p);
    status = remote_command(a->backend, request, expected, part_answer, p,
                            &a->error);
  } while (status == CACHET_OK && part_of(p->list[p->n - 1]).more);
  if (status == CACHET_OK)
    *out = p;
  else
    parts_free(p);
  return status;
}

/* ---- Images -------------------------------------------------------------- */

static struct cachet_image_info read_info(const Cachet__Wire__ImageInfo *in) {
  struct cachet_image_info info = {.struct_size = sizeof info,
                                   .name = in->name};
  if (in->missing) {
    info.flags = CACHET_IMAGE_MISSING;
    return info;
  }
  info.size = in->size;
  info.page_size = in->page_size;
  if (in->unopened)
    info.flags = CACHET_IMAGE_UNOPENED;
  else
    info.epoch = in->epoch;
  return info;
}

enum cachet_status
cachet_admin_list(cachet_admin *a,
                  int (*fn)(void *arg, const struct cachet_image_info *info),
                  void *arg) {
  Cachet__Wire__List list = CACHET__WIRE__LIST__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_LIST;
  msg.list = &list;
  struct parts *p;
  enum cachet_status status = admin_enter(a, fn != NULL);
  if (status == CACHET_OK)
    status =
        parts_get(a, &msg, &list.after, CACHET__WIRE__MESSAGE__BODY_IMAGES, &p);
  if (status != CACHET_OK)
    return status;
  int stop = 0;
  a->in_callback = true;
  for (size_t k = 0; k < p->n; k++)
    for (size_t i = 0; i < p->list[k]->images->n_images && !stop; i++) {
      struct cachet_image_info info = read_info(p->list[k]->images->images[i]);
      stop = fn(arg, &info);
    }
  a->in_callback = false;
  parts_free(p);
  return CACHET_OK;
}

/* ---- Counters ------------------------------------------------------------ */

struct counter {
  int (*fn)(void *arg, const char *image, const char *name, uint64_t value);
  void *arg;
};

/* Whether `fn` has ended the walk. */
static int count_all(const struct counter *c, const char *image,
                     Cachet__Wire__Stat *const *stats, size_t n) {
  int stop = 0;
  for (size_t i = 0; i < n && !stop; i++)
    stop = c->fn(c->arg, image, stats[i]->name, stats[i]->value);
  return stop;
}

static int count_part(const struct counter *c, const Cachet__Wire__Stats *s) {
  int stop = count_all(c, NULL, s->daemon, s->n_daemon);
  for (size_t i = 0; i < s->n_images && !stop; i++)
    stop = count_all(c, s->images[i]->name, s->images[i]->stats,
                     s->images[i]->n_stats);
  return stop;
}

enum cachet_status cachet_admin_stats(cachet_admin *a,
                                      int (*fn)(void *arg, const char *image,
                                                const char *name,
                                                uint64_t value),
                                      void *arg) {
  Cachet__Wire__GetStats get = CACHET__WIRE__GET_STATS__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_GET_STATS;
  msg.get_stats = &get;
  struct counter c = {fn, arg};
  struct parts *p;
  enum cachet_status status = admin_enter(a, fn != NULL);
  if (status == CACHET_OK)
    status =
        parts_get(a, &msg, &get.after, CACHET__WIRE__MESSAGE__BODY_STATS, &p);
  if (status != CACHET_OK)
    return status;
  a->in_callback = true;
  for (size_t k = 0; k < p->n && !count_part(&c, p->list[k]->stats); k++)
    ;
  a->in_callback = false;
  parts_free(p);
  return CACHET_OK;
}

/* ---- Changes ------------------------------------------------------------- */

/* Checks the texts of a change before they are sent. */
static enum cachet_status change_check(cachet_admin *a, const char *name,
                                       const char *source) {
  enum cachet_status status = admin_enter(a, true);
  if (status != CACHET_OK)
    return status;
  if (!name || !source)
    return error_set(&a->error, CACHET_E_INVAL, 0, "no name, or no source");
  /* A daemon would end the connection over a message that is too long. */
  if (strlen(name) + strlen(source) > FRAME_MAX_MESSAGE / 2)
    return error_set(&a->error, CACHET_E_INVAL, 0, "too long a name or source");
  if (!connection_limits(remote_of(a->backend)->connection)->change)
    return error_set(&a->error, CACHET_E_UNSUPPORTED, 0,
                     "the daemon takes no changes of what it serves");
  return CACHET_OK;
}

enum cachet_status cachet_admin_add(cachet_admin *a, const char *name,
                                    const char *source) {
  Cachet__Wire__Add add = CACHET__WIRE__ADD__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  add.name = (char *)name;
  add.source = (char *)source;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_ADD;
  msg.add = &add;
  enum cachet_status status = change_check(a, name, source);
  if (status != CACHET_OK)
    return status;
  return remote_command(a->backend, &msg, CACHET__WIRE__MESSAGE__BODY_DONE,
                        NULL, NULL, &a->error);
}

enum cachet_status cachet_admin_remove(cachet_admin *a, const char *name) {
  Cachet__Wire__Remove remove = CACHET__WIRE__REMOVE__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  remove.name = (char *)name;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_REMOVE;
  msg.remove = &remove;
  enum cachet_status status = change_check(a, name, "");
  if (status != CACHET_OK)
    return status;
  return remote_command(a->backend, &msg, CACHET__WIRE__MESSAGE__BODY_DONE,
                        NULL, NULL, &a->error);
}

/* ---- Draining ------------------------------------------------------------ */

enum cachet_status cachet_admin_drain(cachet_admin *a, int timeout_ms) {
  Cachet__Wire__Drain drain = CACHET__WIRE__DRAIN__INIT;
  wire_message msg = CACHET__WIRE__MESSAGE__INIT;
  drain.timeout_ms = timeout_ms;
  msg.body_case = CACHET__WIRE__MESSAGE__BODY_DRAIN;
  msg.drain = &drain;
  enum cachet_status status = admin_enter(a, true);
  if (status != CACHET_OK)
    return status;
  if (!connection_limits(remote_of(a->backend)->connection)->drain)
    return error_set(&a->error, CACHET_E_UNSUPPORTED, 0,
                     "the daemon is of a version that does not drain");
  return remote_command(a->backend, &msg, CACHET__WIRE__MESSAGE__BODY_DONE,
                        NULL, NULL, &a->error);
}
