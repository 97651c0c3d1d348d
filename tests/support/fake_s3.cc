#include "tests/support/fake_s3.h"

#include <cstdlib>
#include <ctime>
#include <memory>
#include <sstream>

#include "base/percent.h"
#include "source/s3_sign.h"

namespace {

using Request = ScriptedHttp::Request;
using Peer = ScriptedHttp::Peer;

struct Free {
  void operator()(char *p) const { free(p); }
};
using Text = std::unique_ptr<char, Free>;

std::string Decode(const std::string &text) {
  Text decoded(percent_decode(text.data(), text.size()));
  return decoded ? decoded.get() : "";
}

void Error(Peer &peer, const std::string &status, const std::string &code,
           const std::string &more = "") {
  const std::string body = "<?xml version=\"1.0\"?>\n<Error><Code>" + code +
                           "</Code><Message>m</Message></Error>";
  peer.Send("HTTP/1.1 " + status + " Error\r\n" + more + "Content-Length: " +
            std::to_string(body.size()) + "\r\n\r\n" + body);
}

} // namespace

FakeS3::FakeS3(const std::string &b)
    : bytes(b), server_([this](const Request &r, Peer &p) { Answer(r, p); }) {}

void FakeS3::SetKeys(const std::string &access_key,
                     const std::string &secret_key, const std::string &token) {
  std::lock_guard<std::mutex> lock(mutex_);
  access_key_ = access_key;
  secret_key_ = secret_key;
  token_ = token;
}

void FakeS3::SetClock(int64_t ahead_s) {
  std::lock_guard<std::mutex> lock(mutex_);
  ahead_s_ = ahead_s;
}

void FakeS3::Fail(const std::string &status, const std::string &code) {
  std::lock_guard<std::mutex> lock(mutex_);
  status_ = status;
  code_ = code;
}

// A date of the server's clock, as HTTP has it.
std::string FakeS3::Date() const {
  char text[64];
  time_t t = time(nullptr) + ahead_s_;
  tm fields;
  gmtime_r(&t, &fields);
  strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &fields);
  return text;
}

bool FakeS3::TimeIsRight(const Request &r) const {
  tm fields = {};
  strptime(r.Field("x-amz-date").c_str(), "%Y%m%dT%H%M%SZ", &fields);
  return std::abs(timegm(&fields) - (time(nullptr) + ahead_s_)) < 900;
}

// What the request's own headers have to be signed with.
std::string FakeS3::Authorization(const Request &r) const {
  const std::string given = r.Field("authorization");
  const std::string mark = "SignedHeaders=";
  size_t at = given.find(mark);
  if (at == std::string::npos)
    return "";
  std::istringstream names(
      given.substr(at + mark.size(), given.find(',', at) - at - mark.size()));
  std::vector<std::string> texts;
  for (std::string name; std::getline(names, name, ';');) {
    texts.push_back(name);
    texts.push_back(r.Field(name));
  }
  std::vector<s3_pair> headers, query;
  for (size_t i = 0; i < texts.size(); i += 2)
    headers.push_back({texts[i].c_str(), texts[i + 1].c_str()});
  const std::string path = r.target.substr(0, r.target.find('?'));
  std::string name, value;
  if (path.size() < r.target.size()) {
    const std::string pair = r.target.substr(path.size() + 1);
    name = Decode(pair.substr(0, pair.find('=')));
    value = Decode(pair.substr(pair.find('=') + 1));
    query.push_back({name.c_str(), value.c_str()});
  }
  const s3_request request = {r.method.c_str(), path.c_str(),   query.data(),
                              query.size(),     headers.data(), headers.size(),
                              S3_EMPTY_PAYLOAD};
  const s3_key key = {access_key_.c_str(), secret_key_.c_str(), "us-east-1",
                      "s3"};
  s3_time when = {};
  r.Field("x-amz-date").copy(when.text, sizeof when.text - 1);
  Text text(s3_authorization(&request, &key, &when));
  return text.get();
}

void FakeS3::Answer(const Request &r, Peer &peer) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (r.method == "CONNECT") // it is no proxy for tunnels
    return Error(peer, "405", "MethodNotAllowed");
  const std::string given = r.Field("authorization");
  if (given.empty() && !access_key_.empty())
    return Error(peer, "403", "AccessDenied");
  if (given.find("Credential=" + access_key_ + "/") == std::string::npos &&
      !access_key_.empty())
    return Error(peer, "403", "InvalidAccessKeyId");
  if (r.Field("x-amz-security-token") != token_)
    return Error(peer, "400", "ExpiredToken");
  if (given != (access_key_.empty() ? "" : Authorization(r)))
    return Error(peer, "403", "SignatureDoesNotMatch");
  if (!access_key_.empty() && !TimeIsRight(r))
    return Error(peer, "403", "RequestTimeTooSkewed", Date());
  if (!status_.empty())
    return Error(peer, status_, code_, "Location: /elsewhere\r\n");
  if (r.method == "HEAD")
    return void(
        peer.Send("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: " +
                  std::to_string(bytes.size()) + "\r\n\r\n"));
  peer.Send("HTTP/1.1 206 OK\r\nETag: \"v1\"\r\nContent-Range: bytes " +
            std::to_string(r.first) + "-" + std::to_string(r.last) + "/" +
            std::to_string(bytes.size()) +
            "\r\nContent-Length: " + std::to_string(r.last - r.first + 1) +
            "\r\n\r\n" + bytes.substr(r.first, r.last - r.first + 1));
}
