// Secrets that are planted in what a daemon and its clients are given, and
// looked for in all that either lets out: keys, a password, the bytes of an
// image; what images from afar are asked for with; and what URIs hold.
#include <gtest/gtest.h>

#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/fake_aws.h"
#include "tests/support/fake_s3.h"
#include "tests/support/http_client.h"
#include "tests/support/scripted_http.h"
#include "tests/support/secret_uris.h"

namespace {

const char kPassword[] = "pa55word-that-nobody-may-see";
const char kBytes[] = "bytes-of-an-image-that-are-nobody-elses";

std::string ReadFile(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The lines of the keys in a file, as PEM has them: certificates are public.
std::vector<std::string> KeyLines(const std::string &path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  bool is_key = false;
  for (std::string line; std::getline(file, line);) {
    if (line.find("END") != std::string::npos)
      is_key = false;
    if (is_key)
      lines.push_back(line);
    if (line.find("PRIVATE KEY") != std::string::npos &&
        line.find("BEGIN") != std::string::npos)
      is_key = true;
  }
  return lines;
}

class SecretsTest : public testing::Test {
protected:
  SecretsTest()
      : server_(certificates_.Make("server", "IP:127.0.0.1")),
        reader_(certificates_.Make("reader", "")),
        locked_(certificates_.SplitKey(certificates_.Make("locked", ""),
                                       kPassword)) {
    port_ = std::to_string(DaemonProcess::FreePort());
    std::ofstream(dir_ / "image") << std::string(5000, ' ') << kBytes;
    for (const std::string &path : {server_, reader_, locked_})
      for (const std::string &line : KeyLines(path))
        secrets_.push_back(line);
    EXPECT_GE(secrets_.size(), 6u); // two lines a key at least
    secrets_.push_back(kPassword);
    secrets_.push_back(kBytes);
    EXPECT_NE(SecretIn(ReadFile(server_)), "") << "it would be found";
  }

  void Configure(const std::string &key) {
    std::ofstream(dir_ / "conf")
        << "[images]\nallow = any\n[image image]\nsource = " << (dir_ / "image")
        << "\n[image gone]\nsource = " << (dir_ / "gone")
        << "\n[listen]\naddress = unix:" << (dir_ / "s")
        << "\naddress = tls:127.0.0.1:" << port_
        << "\n[tls]\ncertificate = " << server_ << "\nkey = " << key
        << "\nclient-ca = " << certificates_.ca()
        << "\n[metrics]\naddress = unix:" << (dir_ / "m")
        << "\n[log]\nlevel = debug\n";
  }

  // What the command says, its debugging messages with it, but no data; or what
  // `streams` makes of them.
  std::string Cachet(const std::string &arguments,
                     const std::string &streams = "2>&1 >/dev/null") {
    std::string so = DaemonProcess::Runfile("client/libcachet-client-tls.so.1");
    FILE *f =
        popen(("CACHET_DEBUG=1 LD_LIBRARY_PATH=" + so.substr(0, so.rfind('/')) +
               " " + DaemonProcess::Runfile("client/cachet") + " " + arguments +
               " " + streams)
                  .c_str(),
              "r");
    std::string text;
    char bytes[4096];
    size_t n;
    while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
      text.append(bytes, n);
    pclose(f);
    return text;
  }

  std::string Uri(const std::string &image, const std::string &query) {
    return "'cachets://127.0.0.1:" + port_ + "/" + image +
           "?ca=" + certificates_.ca() + query + "'";
  }

  // The first secret in a text; empty: there is none.
  std::string SecretIn(const std::string &text) {
    for (const std::string &secret : secrets_)
      if (text.find(secret) != std::string::npos)
        return secret;
    return "";
  }
  void ExpectNone(const std::string &what, const std::string &text) {
    EXPECT_EQ(SecretIn(text), "") << what << ": " << text;
  }

  TempDir dir_;
  Certificates certificates_;
  std::string server_, reader_, locked_, port_;
  std::vector<std::string> secrets_;
};

TEST_F(SecretsTest, NoneIsInALogACounterAnErrorOrACommandLine) {
  Configure(server_);
  DaemonProcess daemon({"--config", dir_ / "conf"});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  std::string good = "&cert=" + reader_,
              proc = "/proc/" + std::to_string(daemon.pid());
  EXPECT_EQ(SecretIn(Cachet("cat " + Uri("image", good), "")), kBytes);
  std::string said = Cachet("cat " + Uri("image", good));
  EXPECT_NE(said.find("is open"), std::string::npos) << said;
  ExpectNone("a client's messages", said);
  for (const std::string &arguments :
       {"cat " + Uri("image", ""), "cat " + Uri("gone", good),
        "cat " + Uri("nowhere", good), "get " + Uri("image", good) + " u8 1G",
        "cat " + Uri("image", "&cert=" + locked_),
        "cat " + Uri("image", good + "&key=" + locked_),
        "cat " + Uri("image", "&cert=" + (dir_ / "image")),
        "cat " + Uri("image", good + "&password=" + "x"),
        "invalidate " + Uri("image", good)}) {
    said = Cachet(arguments);
    EXPECT_NE(said, "") << arguments;
    ExpectNone("the error of " + arguments, said);
  }
  said = Cachet("stats --json --socket " + (dir_ / "s"), "2>&1");
  EXPECT_NE(said.find("hits"), std::string::npos) << said;
  ExpectNone("the counters", said);
  for (const char *path : {"/metrics", "/livez", "/readyz"}) {
    HttpReply reply = HttpClient(dir_ / "m").Get(path);
    EXPECT_NE(reply.status, 0) << path;
    ExpectNone(path, reply.head + reply.body);
  }
  // A reload that meets each kind of what is no key.
  size_t n_failed = 0;
  for (const std::string &key : {locked_, dir_ / "image", dir_ / "gone"}) {
    Configure(key);
    daemon.Kill(SIGHUP);
    daemon.AwaitLog("event=reload-failed", ++n_failed);
  }
  EXPECT_EQ(daemon.CountInLog("event=reload-failed"), n_failed);
  ExpectNone("its command line", ReadFile(proc + "/cmdline"));
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_NE(daemon.log().find("level=debug"), std::string::npos);
  ExpectNone("the log", daemon.log());
}

// The servers of remote images are asked with a user's password, a signature in
// a query, and keys for S3, which an instance of EC2 gives.  They send back in
// their errors what they were asked with.
class RemoteSecretsTest : public SecretsTest {
protected:
  RemoteSecretsTest()
      : web_([](const ScriptedHttp::Request &r, ScriptedHttp::Peer &p) {
          Answer(r, p);
        }),
        s3_("bytes of an object") {
    aws_.Give("AKID", kSecretKey, kToken, "2100-01-01T00:00:00Z");
    s3_.SetKeys("AKID", kSecretKey, kToken);
    std::ofstream(dir_ / "keys") << "[default]\naws_access_key_id = AKID\n"
                                    "aws_secret_access_key = "
                                 << kOtherKey << "\n";
    secrets_ = {
        kUser,  kPassword, kSignature, kSecretKey,
        kToken, kOtherKey, "c2VjcmV0" /* base64 of the user's first bytes */};
  }

  static void Answer(const ScriptedHttp::Request &r, ScriptedHttp::Peer &peer) {
    if (r.target.find("/x") == 0 || (r.target.find("/bad") == 0 && r.last == 0))
      return void(peer.Send(
          "HTTP/1.1 206 OK\r\nETag: \"1\"\r\nContent-Range: "
          "bytes " +
          std::to_string(r.first) + "-" + std::to_string(r.last) +
          "/5000\r\nContent-Length: " + std::to_string(r.last - r.first + 1) +
          "\r\n\r\n" + std::string(r.last - r.first + 1, 'x')));
    const std::string body = r.target + " " + r.Field("authorization");
    peer.Send("HTTP/1.1 403 " + body + "\r\nX-Error: " + body +
              "\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n\r\n" + body);
  }

  void ConfigureRemotes(const std::string &more) {
    const std::string web = std::string("http://") + kUser + ":" + kPassword +
                            "@127.0.0.1:" + std::to_string(web_.port()),
                      query = std::string("?signature=") + kSignature,
                      s3 = "s3://bucket/key\nendpoint = " + s3_.endpoint();
    std::ofstream(dir_ / "conf")
        << "[images]\nallow = any\n[image web]\nsource = " << web << "/x"
        << query << "\n[image bad]\nsource = " << web << "/bad" << query
        << "\n[image gone]\nsource = " << web << "/gone" << query
        << "\n[image object]\nsource = " << s3
        << "\n[image locked]\nsource = " << s3
        << "\ncredentials = " << (dir_ / "keys")
        << "\n[listen]\naddress = unix:" << (dir_ / "s")
        << "\n[metrics]\naddress = unix:" << (dir_ / "m")
        << "\n[log]\nlevel = debug\n"
        << (more.empty() ? "" : "[image more]\nsource = " + web + more);
  }

  std::string Local(const std::string &image) const {
    return "'cachet+unix:///" + image + "?socket=" + (dir_ / "s") + "'";
  }

  static constexpr char kUser[] = "secret-user-of-a-server";
  static constexpr char kSignature[] = "signature-of-a-query";
  static constexpr char kSecretKey[] = "secret/key+of-an-instance";
  static constexpr char kToken[] = "token-of-a-session-of-an-instance";
  static constexpr char kOtherKey[] = "secret-key-of-a-file";

  ScriptedHttp web_;
  FakeAws aws_;
  FakeS3 s3_;
};

TEST_F(RemoteSecretsTest, NoneIsInWhatADaemonSaysOfImagesFromAfar) {
  ConfigureRemotes("");
  const Inheritance inheritance = {
      {"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
       "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_EC2_METADATA_DISABLED",
       "AWS_SHARED_CREDENTIALS_FILE=/absent",
       "AWS_EC2_METADATA_SERVICE_ENDPOINT=" + aws_.Url()},
      {},
      ""};
  DaemonProcess daemon(
      {"--config", dir_ / "conf"}, [] {}, inheritance);
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  EXPECT_EQ(Cachet("cat " + Local("object"), "2>/dev/null"), s3_.bytes)
      << daemon.log();
  EXPECT_EQ(Cachet("cat " + Local("web"), "2>/dev/null").size(), 5000u);
  EXPECT_EQ(web_.requests().at(0).Field("authorization").find("Basic c2VjcmV0"),
            0u)
      << "the password is sent, and not shown";
  for (const char *image : {"web", "object", "bad", "gone", "locked"}) {
    const std::string said = Cachet("cat " + Local(image));
    EXPECT_NE(said, "") << image;
    ExpectNone(image, said);
  }
  const std::string counters =
      Cachet("stats --json --socket " + (dir_ / "s"), "2>&1");
  EXPECT_NE(counters.find("source_requests"), std::string::npos) << counters;
  ExpectNone("the counters", counters);
  const HttpReply metrics = HttpClient(dir_ / "m").Get("/metrics");
  EXPECT_NE(metrics.body.find("source_requests"), std::string::npos);
  ExpectNone("the metrics", metrics.head + metrics.body);
  size_t n_failed = 0;
  for (const std::string &more :
       {std::string("/y\nwatch = often\n"), std::string("/y\ncolor = red\n"),
        std::string("\\bad host/\n")}) {
    ConfigureRemotes(more);
    daemon.Kill(SIGHUP);
    daemon.AwaitLog("event=reload-failed", ++n_failed);
  }
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_EQ(daemon.CountInLog("event=reload-failed"), n_failed);
  EXPECT_EQ(daemon.CountInLog("event=image-missing image=gone"), 1u);
  EXPECT_EQ(daemon.CountInLog("event=image-missing image=locked"), 1u);
  ExpectNone("the log", daemon.log());
}

// URIs that are wrong, of each scheme, in each place that takes one.
class UriSecretsTest : public SecretsTest {
protected:
  UriSecretsTest() { secrets_ = {"SECRET"}; }

  // What a daemon says that checks a configuration and ends.
  static std::string Check(std::vector<std::string> arguments) {
    arguments.push_back("--check-config");
    DaemonProcess daemon(arguments);
    daemon.Wait();
    return daemon.log();
  }

  // Calls `take` with parts of the list.
  static void
  InParts(const std::vector<std::string> &uris, size_t n,
          const std::function<void(const std::vector<std::string> &)> &take) {
    for (size_t i = 0; i < uris.size(); i += n)
      take({uris.begin() + i, uris.begin() + std::min(i + n, uris.size())});
  }

  static constexpr char kRoot[] = "verity-root = 0123456789abcdef0123456789abcd"
                                  "ef0123456789abcdef0123456789abcdef\n";
};

// A message for each image: as many as a list of errors holds.
TEST_F(UriSecretsTest, NoneIsInWhatIsWrongInAConfigurationFile) {
  size_t n_messages = 0;
  std::vector<std::string> all = SecretUris();
  // The daemon takes whole paths alone.
  for (const char *uri :
       {"cachet+unix:///p?socket=SECRET", "nbd+unix:///p?socket=SECRET",
        "cachets://h/p?ca=SECRET", "cachets://h/p?cert=/c&key=SECRET"})
    all.push_back(uri);
  InParts(all, 12, [&](const std::vector<std::string> &uris) {
    std::ofstream file(dir_ / "conf");
    for (size_t i = 0; i < uris.size(); i++)
      file << "[image s" << i << "]\nsource = " << uris[i] << "\n[image t" << i
           << "]\nsource = /x\n"
           << kRoot << "verity-tree = " << uris[i] << "\n[image p" << i
           << "]\nsource = cachets://h/x\nparents = " << uris[i] << "\n[image e"
           << i << "]\nsource = s3://b/k\nendpoint = " << uris[i]
           << "\nconnections = " << uris[i] << "\n";
    file.close();
    const std::string said = Check({"--config", dir_ / "conf"});
    for (size_t at = 0; (at = said.find('\n', at)) != std::string::npos; at++)
      n_messages++;
    ExpectNone("what it says", said);
  });
  EXPECT_GT(n_messages, 2 * SecretUris().size());
}

TEST_F(UriSecretsTest, NoneIsInWhatIsWrongInAnotherPlaceOfAFile) {
  for (const std::string uri :
       {"https://u:SECRET@h/p?SECRET", "https//u:SECRET@h/p?SECRET"}) {
    std::ofstream(dir_ / "conf")
        << "[" << uri << "]\n[image " << uri << "]\n"
        << "[images]\ndirectory = " << uri << "\n[cache]\nsize = " << uri
        << "\n[tls]\ncertificate = " << uri << "\n[image a]\nsource = " << uri
        << "x\nwarm = " << uri << "\nmax-age = " << uri << "\nsha256 = " << uri
        << "\n"
        << uri << "\n";
    const std::string said = Check({"--config", dir_ / "conf"});
    EXPECT_NE(said.find("directory: \"https"), std::string::npos) << said;
    ExpectNone("what it says", said);
  }
}

TEST_F(UriSecretsTest, NoneIsInWhatIsWrongInACommandLine) {
  InParts(SecretUris(), 50, [&](const std::vector<std::string> &uris) {
    std::vector<std::string> images;
    for (size_t i = 0; i < uris.size(); i++) {
      // A comma may make an option of the end of either.
      const std::string name = "x" + std::to_string(i) + "=";
      images.push_back("--image");
      images.push_back(i % 2 ? name + uris[i]
                             : name + "/x,verity-tree=" + uris[i] +
                                   ",warm=often");
    }
    ExpectNone("what it says", Check(images));
  });
  for (const std::string uri :
       {"https://u:SECRET@h/p?SECRET", "x=cachets://u:SECRET@h/p",
        "/x,verity-tree=https://u:SECRET@h/p", "--frob=SECRET",
        "--frob=https://u:SECRET@h/p", "--images=nbd://u:SECRET@h/p"}) {
    const std::string said = Check({uri});
    EXPECT_NE(said, "") << uri;
    ExpectNone(uri, said);
  }
}

// Each needs a daemon, or is refused before one is asked.
TEST_F(UriSecretsTest, NoneIsInWhatACommandSays) {
  const std::string socket = " --socket " + (dir_ / "s");
  DaemonProcess daemon({"--image", "image=" + (dir_ / "image"), "--listen",
                        "unix:" + (dir_ / "s"), "--log-level", "debug"});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  for (const std::string uri :
       {"cachets://u:SECRET@127.0.0.1:1/p", "cachet://127.0.0.1:1/p?t=SECRET",
        "cachet+unix://u:SECRET@h/p?SECRET", "file://u:SECRET@h/p",
        "zz://u:SECRET@b/k?SECRET", "https:///u:SECRET@h/p#offset=SECRET",
        "rbd:u:SECRET@p/i?SECRET"}) {
    const std::string quoted = "'" + uri + "'";
    for (const std::string &arguments :
         {"info " + quoted, "info " + quoted + socket, quoted, "ls " + quoted,
          "ls --uri " + quoted, "ls --socket " + quoted, "ls --url=" + quoted,
          "get image " + quoted + " 0" + socket,
          "get image u8 " + quoted + socket, "cat x --offset " + quoted,
          "drain --timeout " + quoted, "add " + quoted + " x" + socket,
          "add x " + quoted + socket, "add x /x,verity-tree=" + quoted + socket,
          "add x cachets://h/p,parents=" + quoted + socket,
          "remove " + quoted + socket}) {
      const std::string said = Cachet(arguments);
      EXPECT_NE(said, "") << arguments;
      ExpectNone(arguments, said);
    }
  }
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_NE(daemon.log().find("change-asked"), std::string::npos);
  ExpectNone("the log", daemon.log());
}

TEST_F(UriSecretsTest, NoneIsInTheLogOfAReloadThatFails) {
  const auto configure = [&](const std::string &source) {
    std::ofstream(dir_ / "conf")
        << "[listen]\naddress = unix:" << (dir_ / "s")
        << "\n[image image]\nsource = " << (dir_ / "image")
        << "\n[log]\nlevel = debug\n[image more]\nsource = " << source << "\n";
  };
  configure(dir_ / "image");
  DaemonProcess daemon({"--config", dir_ / "conf"});
  ASSERT_TRUE(daemon.ready()) << daemon.log();
  size_t n_failed = 0;
  for (const std::string source :
       {"cachets://u:SECRET@h/p", "cachets://h/p?token=SECRET",
        "cachets://h/p?ca=%zzSECRET", "cachet://h:SECRET/p",
        "file://u:SECRET@h/p", "zz://u:SECRET@h/p", "nbds://u:SECRET@h/p",
        "cachets://h/p\nparents = cachets://u:SECRET@i/p"}) {
    configure(source);
    daemon.Kill(SIGHUP);
    daemon.AwaitLog("event=reload-failed", ++n_failed);
  }
  daemon.Kill(SIGTERM);
  EXPECT_EQ(daemon.Wait(), 0);
  EXPECT_EQ(daemon.CountInLog("event=reload-failed"), n_failed);
  ExpectNone("the log", daemon.log());
}

TEST_F(SecretsTest, NoneIsInWhatADaemonSaysThatDoesNotStart) {
  for (const std::string &key : {locked_, dir_ / "image", dir_ / "gone"}) {
    Configure(key);
    DaemonProcess daemon({"--config", dir_ / "conf"});
    EXPECT_FALSE(daemon.ready());
    EXPECT_NE(daemon.Wait(), 0);
    EXPECT_NE(daemon.log(), "");
    ExpectNone("what it says", daemon.log());
  }
}

} // namespace
