#include "tests/support/fake_aws.h"

namespace {

using Request = ScriptedHttp::Request;
using Peer = ScriptedHttp::Peer;

constexpr const char kRoles[] = "/latest/meta-data/iam/security-credentials/";
constexpr const char kInstanceRole[] = "a-role+of@it";
constexpr const char kSession[] = "session/token==";

void Respond(Peer &peer, const std::string &status, const std::string &body) {
  peer.Send("HTTP/1.1 " + status + " Words\r\nContent-Length: " +
            std::to_string(body.size()) + "\r\n\r\n" + body);
}

} // namespace

FakeAws::FakeAws()
    : server_([this](const Request &r, Peer &p) { Answer(r, p); }) {}

FakeAws::~FakeAws() { Go(); }

void FakeAws::Give(const std::string &access_key, const std::string &secret_key,
                   const std::string &token, const std::string &expiration) {
  std::lock_guard<std::mutex> lock(mutex_);
  access_key_ = access_key;
  secret_key_ = secret_key;
  token_ = token;
  expiration_ = expiration;
}

void FakeAws::Say(const std::string &status, const std::string &body) {
  std::lock_guard<std::mutex> lock(mutex_);
  status_ = status;
  body_ = body;
}

void FakeAws::Hold() {
  std::lock_guard<std::mutex> lock(mutex_);
  is_held_ = true;
}

void FakeAws::AwaitAsker() {
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return n_waiting_ > 0; });
}

void FakeAws::Go() {
  std::lock_guard<std::mutex> lock(mutex_);
  is_held_ = false;
  changed_.notify_all();
}

int FakeAws::n_asked() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return n_asked_;
}

void FakeAws::GiveKeys(Peer &peer, bool by_xml) {
  std::unique_lock<std::mutex> lock(mutex_);
  n_asked_++;
  n_waiting_++;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !is_held_; });
  n_waiting_--;
  const std::string xml =
      "<AssumeRoleWithWebIdentityResponse><Credentials><SessionToken>" +
      token_ + "</SessionToken><SecretAccessKey>" + secret_key_ +
      "</SecretAccessKey><Expiration>" + expiration_ +
      "</Expiration><AccessKeyId>" + access_key_ +
      "</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResponse>";
  const std::string json = "{\"Code\": \"Success\", \"AccessKeyId\": \"" +
                           access_key_ + "\", \"SecretAccessKey\": \"" +
                           secret_key_ + "\", \"Token\": \"" + token_ +
                           "\", \"Expiration\": \"" + expiration_ + "\"}";
  if (!status_.empty())
    Respond(peer, status_, body_);
  else
    Respond(peer, "200", by_xml ? xml : json);
}

void FakeAws::Answer(const Request &r, Peer &peer) {
  const bool has_session = r.Field("x-aws-ec2-metadata-token") == kSession;
  if (r.method == "PUT" && r.target == "/latest/api/token")
    return r.Field("x-aws-ec2-metadata-token-ttl-seconds").empty()
               ? Respond(peer, "400", "")
               : Respond(peer, "200", kSession);
  if (r.target.find(kRoles) == 0 && !has_session)
    return Respond(peer, "401", "");
  if (r.method == "GET" && r.target == kRoles)
    return Respond(peer, "200", std::string(kInstanceRole) + "\nanother");
  if (r.method == "GET" && r.target == std::string(kRoles) + kInstanceRole)
    return GiveKeys(peer, false);
  if (r.method == "GET" && r.target == "/agent")
    return r.Field("authorization") == kWord ? GiveKeys(peer, false)
                                             : Respond(peer, "401", "");
  if (r.method == "POST" && r.target == "/sts")
    return r.body == "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
                     "&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fa%20b"
                     "&RoleSessionName=me"
                     "&WebIdentityToken=eyJ.a%2Fweb%2Bidentity%3D.x"
               ? GiveKeys(peer, true)
               : Respond(peer, "400", "<Code>InvalidIdentityToken</Code>");
  Respond(peer, "404", "");
}
