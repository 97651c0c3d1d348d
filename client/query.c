/* Queries of the image and the cache, hints, and what a caller does to either.
 * What is said of the image is said of its present epoch. */
#include "client/handle.h"

#include "client/readahead.h"
#include "client/request.h"

/* What a handle says of its image is of the image's present epoch, as far as it
 * is known here.  The handle takes that one, so that the next load reads it. */
static struct mirror *query_mirror(cachet *c) {
  struct cachet_error unused;
  if (*c->alive)
    handle_adopt_epoch(c, &unused); /* failed: the old one still stands */
  return c->epoch->mirror;
}

/* The public calls that ask take a const handle, since they load nothing and
 * no slice changes by them.  Here ends what const says: each of those that may
 * take an epoch begins with this. */
static cachet *query_begin(const cachet *c) { return (cachet *)c; }

const char *cachet_errmsg(const cachet *c) { return c->error.message; }

void cachet_last_error(const cachet *c, struct cachet_error *out) {
  *out = c->error;
}

void *cachet_context(const cachet *c) { return c->image_cache->context; }

uint64_t cachet_size(const cachet *c) {
  query_mirror(query_begin(c));
  return c->size;
}

size_t cachet_page_size(const cachet *c) { return (size_t)1 << c->asked_shift; }

uint64_t cachet_epoch(const cachet *c) {
  return query_mirror(query_begin(c))->epoch;
}

bool cachet_is_shared(const cachet *c) { return c->epoch->shared != NULL; }

uint64_t cachet_hits(const cachet *c) { return handle_hits(c); }

uint64_t cachet_misses(const cachet *c) { return c->n_misses; }

/* What was read ahead, and waits to be put into the cache, is cached. */
bool cachet_is_cached(const cachet *c, uint64_t addr) {
  const struct mirror *m = query_mirror(query_begin(c));
  const struct backend *b = c->backend;
  uint64_t page = (c->window.offset + addr) >> m->page_shift;
  if (*c->alive == 0 || addr >= c->size || !handle_is_trusted(c))
    return false;
  return view_is_known(&c->epoch->view, page) ||
         (b->ops->has && !c->epoch->shared && b->ops->has(b, m, page));
}

uint64_t cachet_pages(const cachet *c, uint64_t addr, uint64_t len) {
  uint64_t first;
  const struct mirror *m = query_mirror(query_begin(c));
  return handle_pages(c, m, c->asked_shift, addr, len, &first);
}

/* ---- Steering ------------------------------------------------------------ */

enum cachet_status cachet_adopt_epoch(cachet *c) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  c->keeps_epoch = false;
  enum cachet_status status = request_renew_epoch(c);
  c->keeps_epoch = c->options.flags & CACHET_ONE_EPOCH;
  if (status == CACHET_OK)
    c->is_past = false;
  handle_set_gate(c);
  return status;
}

enum cachet_status cachet_prefetch(cachet *c, uint64_t addr, uint64_t len) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  struct mirror *m = query_mirror(c);
  uint64_t first = 0,
           count = handle_pages(c, m, m->page_shift, addr, len, &first);
  uint64_t most = 2 * readahead_longest(c, m); /* as for reading ahead */
  if (count > most)
    count = most;
  if (count)
    c->backend->ops->prefetch(c->backend, m, first, (uint32_t)count);
  return CACHET_OK;
}

enum cachet_status cachet_invalidate(cachet *c, uint64_t addr, uint64_t len) {
  if (!handle_enter(c))
    return handle_fail_forked(c);
  if (c->in_callback && c->backend->ops->invalidate_waits)
    return handle_fail(c, CACHET_E_INVAL, 0,
                       "a call that would wait, in a callback");
  uint64_t first, count;
  count = handle_pages(c, query_mirror(c), c->shift, addr, len, &first);
  if (!count)
    return CACHET_OK;
  handle_drop_cursor(c);
  return c->backend->ops->invalidate(c->backend, first, count, &c->error);
}
