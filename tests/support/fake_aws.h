// Servers that give keys for a while, on loopback: the metadata service of EC2,
// the agent of containers and STS, all at one address.
#ifndef TESTS_SUPPORT_FAKE_AWS_H
#define TESTS_SUPPORT_FAKE_AWS_H

#include <condition_variable>
#include <mutex>
#include <string>

#include "tests/support/scripted_http.h"

class FakeAws {
public:
  FakeAws();
  ~FakeAws();

  // From the next question on.  The expiration is as ISO 8601 has it.
  void Give(const std::string &access_key, const std::string &secret_key,
            const std::string &token, const std::string &expiration);
  // Another answer than keys, with that status; empty: keys again.
  void Say(const std::string &status, const std::string &body = "");

  // No keys are given until Go(); and waits until somebody waits for some.
  void Hold();
  void AwaitAsker();
  void Go();

  std::string Url(const std::string &path = "") const {
    return server_.Url(path);
  }
  std::vector<ScriptedHttp::Request> requests() const {
    return server_.requests();
  }
  // How often keys were asked for.
  int n_asked() const;

  // What the agent wants to hear.
  static constexpr const char *kWord = "Bearer of the word";
  // What the STS believes.
  static constexpr const char *kIdentity = "eyJ.a/web+identity=.x";
  static constexpr const char *kRole = "arn:aws:iam::1:role/a b";

private:
  void Answer(const ScriptedHttp::Request &r, ScriptedHttp::Peer &peer);
  void GiveKeys(ScriptedHttp::Peer &peer, bool by_xml);

  mutable std::mutex mutex_; // of all below
  std::condition_variable changed_;
  bool is_held_ = false;
  int n_asked_ = 0, n_waiting_ = 0;
  std::string access_key_ = "AK", secret_key_ = "SK/+=", token_ = "TK",
              expiration_ = "2100-01-01T00:00:00Z";
  std::string status_, body_;
  ScriptedHttp server_; // the last: its threads use the others
};

#endif
