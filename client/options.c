#include "client/options.h"

#include <string.h>

#include "cache/image.h"
#include "client/error.h"

enum {
  DEFAULT_PAGE_SHIFT = 12,
  DEFAULT_CACHE_SIZE = 4 << 20,
  DEFAULT_CONNECT_TIMEOUT_MS = 5000,
  DEFAULT_REQUEST_TIMEOUT_MS = 30000,
  /* No struct of ours will ever be so large; a wild `struct_size` is not
   * followed through memory. */
  STRUCT_MAX_SIZE = 4096,
};

/* Copies a caller's struct of `given_size` bytes over ours of `size`. */
static enum cachet_status struct_read(void *out, size_t size, const void *given,
                                      size_t given_size, const char *name,
                                      struct cachet_error *err) {
  if (given_size < sizeof(size_t) || given_size > STRUCT_MAX_SIZE)
    return error_set(err, CACHET_E_INVAL, 0,
                     "struct %s: struct_size %zu: set it to sizeof", name,
                     given_size);
  memset(out, 0, size);
  memcpy(out, given, given_size < size ? given_size : size);
  const unsigned char *bytes = given;
  for (size_t i = size; i < given_size; i++)
    if (bytes[i])
      return error_set(err, CACHET_E_INVAL, 0,
                       "struct %s: byte %zu is of a newer version", name, i);
  return CACHET_OK;
}

static enum cachet_status page_size_read(uint32_t size, struct options *out,
                                         struct cachet_error *err) {
  if ((size & (size - 1)) || size > 1u << PAGE_SHIFT_MAX)
    return error_set(err, CACHET_E_INVAL, 0,
                     "page size %u: not a power of two up to %u", size,
                     1u << PAGE_SHIFT_MAX);
  unsigned shift = size ? (unsigned)__builtin_ctz(size) : DEFAULT_PAGE_SHIFT;
  out->asked_shift = shift;
  out->page_shift = shift < PAGE_SHIFT_MIN ? PAGE_SHIFT_MIN : shift;
  return CACHET_OK;
}

static enum cachet_status timeout_read(int32_t given, int32_t standard,
                                       const char *name, int *out,
                                       struct cachet_error *err) {
  if (given < -1)
    return error_set(err, CACHET_E_INVAL, 0, "%s: %d: -1 means none", name,
                     (int)given);
  *out = given ? given : standard;
  return CACHET_OK;
}

enum cachet_status options_read(const struct cachet_options *given,
                                struct options *out, struct cachet_error *err) {
  struct cachet_options o = {0};
  if (given) {
    enum cachet_status status = struct_read(
        &o, sizeof o, given, given->struct_size, "cachet_options", err);
    if (status != CACHET_OK)
      return status;
  }
  uint32_t known =
      CACHET_NO_SHARED_MEMORY | CACHET_NO_READAHEAD | CACHET_ONE_EPOCH;
  if (o.flags & ~known)
    return error_set(err, CACHET_E_INVAL, 0, "flags %#x: unknown",
                     o.flags & ~known);
  out->flags = o.flags;
  out->cache_size = o.cache_size ? o.cache_size : DEFAULT_CACHE_SIZE;
  enum cachet_status status = page_size_read(o.page_size, out, err);
  if (status == CACHET_OK)
    status = timeout_read(o.connect_timeout_ms, DEFAULT_CONNECT_TIMEOUT_MS,
                          "connect_timeout_ms", &out->connect_timeout_ms, err);
  if (status == CACHET_OK)
    status = timeout_read(o.request_timeout_ms, DEFAULT_REQUEST_TIMEOUT_MS,
                          "request_timeout_ms", &out->request_timeout_ms, err);
  return status;
}

enum cachet_status options_read_source(const struct cachet_source *given,
                                       struct cachet_source *out,
                                       struct cachet_error *err) {
  if (!given)
    return error_set(err, CACHET_E_INVAL, 0, "no source");
  enum cachet_status status = struct_read(
      out, sizeof *out, given, given->struct_size, "cachet_source", err);
  if (status != CACHET_OK)
    return status;
  if (!out->map)
    return error_set(err, CACHET_E_INVAL, 0, "a source without map");
  return CACHET_OK;
}
