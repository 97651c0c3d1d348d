// What S3's parsers are given, from hostile bytes.  The first byte says what
// the rest is:
//
//   0   the body of an error
//   1   a file of credentials, which is searched for a key of the profile "p"
//   2   a URI, which is checked with the rest of its line as the endpoint
//   3   what a metadata service answers, in JSON
//   4   what STS answers, in XML
//
// An error comes with a message.  A value is a part of the file, of one line.  A
// URI that is refused is refused with a message.  Keys are such as a header may
// have.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

#include "source/s3.h"
#include "source/s3_answer.h"
#include "source/s3_credentials.h"
#include "source/s3_grant.h"
#include "source/s3_profiles.h"

namespace {

void Require(bool right) {
  if (!right)
    abort();
}

void JudgeBody(const std::string &body) {
  s3_meaning v = s3_answer_judge(body.data(), body.size());
  Require(v.status <= 0 && (v.status < 0) == (v.why != nullptr));
  Require(v.status < 0 || v.remedy == S3_NO_REMEDY);
}

void FindKey(const std::string &text) {
  char *value = s3_profiles_find(text.c_str(), "p", "k");
  if (value)
    Require(*value && !strchr(value, '\n') &&
            strstr(text.c_str(), value) != nullptr);
  free(value);
}

void CheckUri(const std::string &text) {
  size_t end = text.find('\n');
  const std::string uri_text = "s3:" + text.substr(0, end);
  const std::string endpoint =
      end == std::string::npos ? "" : text.substr(end + 1);
  const source_option option = {"endpoint", endpoint.c_str()};
  const source_uri uri = {uri_text.c_str(), &option, !endpoint.empty()};
  source_fault fault = {};
  int status = s3_source_kind.check(&uri, &fault);
  Require(status <= 0 && (status < 0) == (fault.text[0] != '\0'));
}

void RequireHeader(const char *value) {
  Require(value && *value);
  for (; *value; value++)
    Require(*value > ' ' && *value < 0x7f);
}

void TakeGrant(const std::string &text,
               int (*take)(const char *, size_t, s3_credentials *,
                           const char **)) {
  s3_credentials found;
  const char *why = nullptr;
  int status = take(text.data(), text.size(), &found, &why);
  Require(status <= 0 && (status == 0 || why));
  if (status == 0) {
    RequireHeader(found.access_key);
    RequireHeader(found.secret_key);
    RequireHeader(found.token);
  }
  s3_credentials_fini(&found);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size)
    return 0;
  std::string rest(reinterpret_cast<const char *>(data) + 1, size - 1);
  rest.shrink_to_fit();
  switch (data[0]) {
  case 0:
    JudgeBody(rest);
    break;
  case 1:
    FindKey(rest);
    break;
  case 2:
    CheckUri(rest);
    break;
  case 3:
    TakeGrant(rest, s3_grant_of_json);
    break;
  case 4:
    TakeGrant(rest, s3_grant_of_xml);
    break;
  }
  return 0;
}
