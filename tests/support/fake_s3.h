// An S3 with one object, "v1" of it, whatever it is asked for.  It checks
// signatures, and makes its errors.
#ifndef TESTS_SUPPORT_FAKE_S3_H
#define TESTS_SUPPORT_FAKE_S3_H

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "tests/support/scripted_http.h"

class FakeS3 {
public:
  explicit FakeS3(const std::string &bytes);

  std::string endpoint() const { return server_.Url(""); }
  std::vector<ScriptedHttp::Request> requests() const {
    return server_.requests();
  }

  // From the next request on.  At first they are "AKID" and "secret/+key".
  void SetKeys(const std::string &access_key, const std::string &secret_key,
               const std::string &token = "");
  void SetClock(int64_t ahead_s);
  // An error for each request that is signed rightly; empty: none.
  void Fail(const std::string &status, const std::string &code = "");

  const std::string bytes;

private:
  std::string Date() const;
  bool TimeIsRight(const ScriptedHttp::Request &r) const;
  std::string Authorization(const ScriptedHttp::Request &r) const;
  void Answer(const ScriptedHttp::Request &r, ScriptedHttp::Peer &peer);

  std::mutex mutex_; // of all below
  std::string access_key_ = "AKID", secret_key_ = "secret/+key", token_;
  std::string status_, code_;
  int64_t ahead_s_ = 0;
  ScriptedHttp server_; // the last: its threads use the others
};

#endif
