// Heads of HTTP from hostile bytes: whatever is taken is what was asked for,
// and what would be sent back to a server cannot end a line there.
//
// The first two bytes are the range that was asked for; lines follow.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "source/http_answer.h"

namespace {

constexpr uint64_t kUnit = 1024;

void Require(bool right) {
  if (!right)
    abort();
}

void RequireSendable(const char *text, size_t max) {
  Require(strlen(text) <= max);
  for (const char *c = text; *c; c++)
    Require(static_cast<unsigned char>(*c) >= 0x20 && *c != 0x7f);
}

http_answer AnswerOf(const uint8_t *data, size_t size) {
  http_answer a;
  http_answer_init(&a);
  while (size) {
    const void *end = memchr(data, '\n', size);
    size_t len =
        end ? size_t(static_cast<const uint8_t *>(end) - data) + 1 : size;
    // A copy of its own, so that a read past the end is seen.
    std::string line(reinterpret_cast<const char *>(data), len);
    line.shrink_to_fit();
    http_answer_line(&a, line.data(), line.size());
    data += len;
    size -= len;
  }
  return a;
}

void RequireObject(const http_object &o) {
  Require(o.size <= INT64_MAX);
  RequireSendable(o.etag, HTTP_ETAG_MAX);
  RequireSendable(o.last_modified, HTTP_DATE_LEN);
  Require(o.size == 0 || o.etag[0] || o.last_modified[0]);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2)
    return 0;
  const uint64_t offset = data[0] * kUnit, len = data[1] * kUnit + 1;
  http_answer a = AnswerOf(data + 2, size - 2);
  int64_t wait = http_answer_wait_s(&a, 0);
  Require(wait >= 0 && wait <= HTTP_RETRY_AFTER_MAX_S);

  http_object learned;
  const char *why = nullptr;
  if (http_answer_learn(&a, &learned, &why) == 0)
    RequireObject(learned);
  else
    Require(why != nullptr);

  // Its own object: what is taken then is a range of it.
  http_object o = {};
  o.size = offset + len + kUnit;
  strcpy(o.etag, "\"a\"");
  why = nullptr;
  if (http_answer_confirm(&a, &o, &why) == 0)
    Require(a.code == 200 && a.length == o.size && strcmp(a.etag, o.etag) == 0);
  else
    Require(why != nullptr);
  uint64_t skip = 0, n_body = 0;
  if (http_answer_check(&a, &o, offset, len, &skip, &n_body, &why) == 0) {
    Require(strcmp(a.etag, o.etag) == 0 && !a.etag_is_weak && !a.is_coded);
    Require(a.code == 206 ? skip == 0 && n_body == len && a.first == offset &&
                                a.last == offset + len - 1 && a.size == o.size
                          : a.code == 200 && skip == offset &&
                                n_body == o.size && a.length == o.size);
  }
  return 0;
}
