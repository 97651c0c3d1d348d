#include "cache/source.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/container_of.h"
#include "base/latch.h"

enum source_outcome source_start(struct source *src, struct source_read *r) {
  return src->ops->start ? src->ops->start(src, r) : SOURCE_BLOCKS;
}

/* A read that its thread waits for. */
struct awaited_read {
  struct source_read read;
  struct latch ended;
};

static void awaited_done(struct source_read *r) {
  latch_open(&container_of(r, struct awaited_read, read)->ended);
}

/* For a source that calls back. */
static int start_and_wait(struct source *src, struct source_read read) {
  struct awaited_read a = {.read = read, .ended = LATCH_INITIALIZER};
  a.read.done = awaited_done;
  enum source_outcome outcome = source_start(src, &a.read);
  assert(outcome == SOURCE_DONE || outcome == SOURCE_PENDING);
  if (outcome == SOURCE_DONE)
    latch_open(&a.ended);
  latch_wait(&a.ended);
  return a.read.status;
}

int source_read_until(struct source *src, uint64_t offset, void *buf,
                      size_t len, uint64_t deadline_ms) {
  if (src->ops->read)
    return src->ops->read(src, offset, buf, len);
  return start_and_wait(src, (struct source_read){.offset = offset,
                                                  .buf = buf,
                                                  .len = len,
                                                  .deadline_ms = deadline_ms});
}

int source_read_blocking(struct source *src, uint64_t offset, void *buf,
                         size_t len) {
  return source_read_until(src, offset, buf, len, 0);
}

uint64_t source_worth(struct source *src) {
  const struct source_fetch_size *size = &src->fetch_size;
  uint64_t worth =
      src->ops->worth && size->most > size->least ? src->ops->worth(src) : 0;
  if (worth < size->least)
    return size->least;
  return worth < size->most ? worth : size->most;
}

bool source_is_whole(int status) {
  switch (-status) {
  case EACCES:
  case EAGAIN:
  case ENOENT:
  case EPROTO:
  case EREMOTEIO:
  case ESTALE:
  case ETIMEDOUT:
    return true;
  default:
    return source_is_cut_off(status);
  }
}

bool source_is_cut_off(int status) {
  switch (-status) {
  case ECONNABORTED:
  case ECONNREFUSED:
  case ECONNRESET:
  case EHOSTDOWN:
  case EHOSTUNREACH:
  case ENETDOWN:
  case ENETUNREACH:
  case ENOTCONN:
  case EPIPE:
    return true;
  default:
    return false;
  }
}

bool source_knows_zeros(struct source *src, uint64_t offset, uint64_t len) {
  return src->ops->knows_zeros && src->ops->knows_zeros(src, offset, len);
}

void source_listen(struct source *src, struct source_listener *l) {
  if (src->ops->listen)
    src->ops->listen(src, l);
}

int source_reopen(struct source *src, struct source **out) {
  *out = NULL;
  return src->ops->reopen ? src->ops->reopen(src, out) : 0;
}

void source_advise(struct source *src, uint64_t offset, uint64_t len) {
  if (src->ops->advise)
    src->ops->advise(src, offset, len);
}

void source_forget(struct source *src) {
  if (src->ops->forget)
    src->ops->forget(src);
}

void source_identify(struct source *src, struct source_identity *out) {
  *out = (struct source_identity){0};
  if (src->ops->identify)
    src->ops->identify(src, out);
}

bool source_resume(struct source *src, const struct source_identity *id) {
  return id->len > 0 && id->len <= SOURCE_IDENTITY_MAX && src->ops->resume &&
         src->ops->resume(src, id);
}

bool source_is_identity(struct source *src, const struct source_identity *id) {
  struct source_identity own;
  source_identify(src, &own);
  return own.len > 0 && memcmp(&own, id, sizeof own) == 0;
}

void source_identity_add(struct source_identity *id, const void *bytes,
                         size_t len) {
  if (len > SOURCE_IDENTITY_MAX - id->len) {
    *id = (struct source_identity){0};
    return;
  }
  memcpy(id->bytes + id->len, bytes, len);
  id->len += (uint32_t)len;
  if (id->content_len)
    id->content_len += (uint32_t)len;
}

bool source_identity_cut(struct source_identity *id, const void *bytes,
                         size_t len) {
  if (len > id->len || memcmp(id->bytes + id->len - len, bytes, len) != 0)
    return false;
  id->len -= (uint32_t)len;
  memset(id->bytes + id->len, 0, len);
  id->content_len -= id->content_len < len ? id->content_len : (uint32_t)len;
  return true;
}
