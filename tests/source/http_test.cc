// Images by HTTP: from servers that answer rightly, and from such as do not.
#include "source/http.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <future>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "cache/source.h"
#include "source/reactor.h"
#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/nginx.h"
#include "tests/support/scripted_http.h"

namespace {

using Bytes = std::vector<uint8_t>;
using Request = ScriptedHttp::Request;
using Peer = ScriptedHttp::Peer;

struct Close {
  void operator()(source *src) const { src->ops->close(src); }
};
using SourcePtr = std::unique_ptr<source, Close>;

constexpr uint64_t kSize = 3000001;

Bytes RandomBytes(uint64_t size, unsigned seed) {
  std::minstd_rand rng(seed);
  Bytes bytes(size);
  for (uint8_t &b : bytes)
    b = uint8_t(rng() >> 8);
  return bytes;
}

// An object, and answers of a server that has it.
struct Object {
  Bytes bytes;
  std::string etag = "\"v1\"";

  std::string Slice(uint64_t first, uint64_t last) const {
    return std::string(bytes.begin() + long(first),
                       bytes.begin() + long(last) + 1);
  }

  std::string Range(const Request &r) const {
    return "Content-Range: bytes " + std::to_string(r.first) + "-" +
           std::to_string(r.last) + "/" + std::to_string(bytes.size()) + "\r\n";
  }

  std::string Tag() const { return "ETag: " + etag + "\r\n"; }

  // The head of a right answer, with `more` lines.
  std::string Head(const Request &r, const std::string &more = "") const {
    return "HTTP/1.1 206 Partial Content\r\n" + Tag() + Range(r) +
           "Content-Length: " + std::to_string(r.last - r.first + 1) + "\r\n" +
           more + "\r\n";
  }

  void Answer(const Request &r, Peer &peer) const {
    const std::string match = r.Field("if-match");
    if (!match.empty() && match != etag)
      peer.Send("HTTP/1.1 412 No\r\nContent-Length: 0\r\n\r\n");
    else if (r.method == "HEAD")
      peer.Send("HTTP/1.1 200 OK\r\n" + Tag() +
                "Content-Length: " + std::to_string(bytes.size()) + "\r\n\r\n");
    else
      peer.Send(Head(r) + Slice(r.first, r.last));
  }
};

std::string Status(const std::string &code, const std::string &more = "") {
  return "HTTP/1.1 " + code + " Words\r\n" + more +
         "Content-Length: 6\r\n\r\nwords\n";
}

class HttpTest : public testing::Test {
protected:
  HttpTest() {
    EXPECT_EQ(reactor_new(&reactor_), 0);
    object_.bytes = RandomBytes(kSize, 1);
  }
  ~HttpTest() override { reactor_free(reactor_); }

  using Options = std::vector<source_option>;

  // NULL: it cannot be opened, `fault_` says why.
  SourcePtr Open(const std::string &url, int expected = 0,
                 const Options &options = {}) {
    const source_uri uri = {url.c_str(), options.data(), options.size()};
    timespec deadline;
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += 60;
    source *src = nullptr;
    fault_ = {};
    EXPECT_EQ(http_source_kind.check(&uri, &fault_), 0) << fault_.text;
    EXPECT_EQ(http_source_kind.open(reactor_, &uri, &deadline, &src, &fault_),
              expected)
        << fault_.text;
    return SourcePtr(src);
  }

  // Looks whether there is another version, until the server has had so many
  // requests.
  static void Watch(source *src, const ScriptedHttp &server, size_t n_requests,
                    source **fresh) {
    while (!*fresh && server.requests().size() < n_requests) {
      ASSERT_EQ(src->ops->reopen(src, fresh), 0);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  }

  static std::string Methods(const ScriptedHttp &server) {
    std::string methods;
    for (const Request &r : server.requests())
      methods += r.method + " ";
    return methods;
  }

  // The status of a read, which writes no more than its buffer.
  int Read(source *src, uint64_t offset, size_t len, Bytes *out = nullptr) {
    constexpr size_t kGuard = 64;
    Bytes bytes(len + 2 * kGuard, 0xa5);
    int status = source_read_blocking(src, offset, bytes.data() + kGuard, len);
    for (size_t i = 0; i < kGuard; i++)
      EXPECT_TRUE(bytes[i] == 0xa5 && bytes[kGuard + len + i] == 0xa5);
    if (out)
      out->assign(bytes.begin() + kGuard, bytes.end() - kGuard);
    return status;
  }

  void ExpectBytes(source *src, uint64_t offset, size_t len) {
    Bytes read;
    ASSERT_EQ(Read(src, offset, len, &read), 0);
    EXPECT_TRUE(memcmp(read.data(), object_.bytes.data() + offset, len) == 0);
  }

  ScriptedHttp::Handler Right() {
    return [this](const Request &r, Peer &peer) { object_.Answer(r, peer); };
  }

  // The status of a read whose answer is `handler`'s; after which a read of the
  // same source succeeds.
  int StatusOf(const ScriptedHttp::Handler &handler,
               const Options &options = {}) {
    ScriptedHttp server(Right());
    SourcePtr src = Open(server.Url(), 0, options);
    if (!src)
      return 1;
    server.Handle(handler);
    int status = Read(src.get(), 4096, 8192);
    server.Handle(Right());
    ExpectBytes(src.get(), 4096, 8192);
    return status;
  }

  // The same for an answer that is one text.
  int StatusOfText(const std::string &text) {
    return StatusOf([&](const Request &, Peer &peer) { peer.Send(text); });
  }

  struct reactor *reactor_ = nullptr;
  Object object_;
  source_fault fault_ = {};
};

TEST_F(HttpTest, ItHasTheBytesOfTheObject) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  ASSERT_EQ(src->size, kSize);
  ExpectBytes(src.get(), 0, kSize);
  ExpectBytes(src.get(), kSize - 1, 1);
  std::mt19937_64 rng(TestSeed());
  for (int i = 0; i < 50; i++) {
    uint64_t offset = rng() % kSize;
    ExpectBytes(src.get(), offset,
                size_t(1 + rng() % std::min<uint64_t>(kSize - offset, 70000)));
  }
  EXPECT_EQ(server.n_connections(), 1u);
}

TEST_F(HttpTest, ARequestIsARangeOfTheVersionThatWasOpened) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url("/a%20b?c=d"));
  ASSERT_TRUE(src);
  ExpectBytes(src.get(), 512, 1024);
  const Request asked = server.requests().at(1);
  EXPECT_EQ(asked.method, "GET");
  EXPECT_EQ(asked.target, "/a%20b?c=d");
  EXPECT_EQ(asked.Field("range"), "bytes=512-1535");
  EXPECT_EQ(asked.Field("if-match"), "\"v1\"");
  EXPECT_EQ(asked.Field("accept-encoding"), "identity");
}

TEST_F(HttpTest, WithoutAnETagItIsTheTimeOfTheChange) {
  std::string modified = "Sun, 06 Nov 1994 08:49:37 GMT";
  ScriptedHttp server([&](const Request &r, Peer &peer) {
    peer.Send("HTTP/1.1 206 OK\r\nDate: Sun, 06 Nov 1995 08:49:37 GMT\r\n"
              "Last-Modified: " +
              modified + "\r\n" + object_.Range(r) +
              "Content-Length: " + std::to_string(r.last - r.first + 1) +
              "\r\n\r\n" + object_.Slice(r.first, r.last));
  });
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  ExpectBytes(src.get(), 100, 1000);
  EXPECT_EQ(server.requests().at(1).Field("if-unmodified-since"), modified);
  modified = "Sun, 06 Nov 1994 08:49:38 GMT";
  EXPECT_EQ(Read(src.get(), 100, 1000), -ESTALE);
}

TEST_F(HttpTest, AnObjectThatWasModifiedThisMomentIsAskedForAgain) {
  int n = 0;
  ScriptedHttp server([&](const Request &r, Peer &peer) {
    const std::string second = n++ == 0 ? "37" : "39";
    peer.Send(
        object_.Head(r, "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: "
                        "Sun, 06 Nov 1994 08:49:" +
                            second + " GMT\r\n") +
        object_.Slice(r.first, r.last));
  });
  object_.etag = "\"2ebc98a1-2dc6c1\"";
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  EXPECT_EQ(server.requests().size(), 2u);
}

// ---- Faults -----------------------------------------------------------------

TEST_F(HttpTest, EachStatusIsAKindOfFailure) {
  const struct {
    const char *code;
    int status;
  } cases[] = {{"401", -EACCES},    {"403", -EACCES},    {"404", -ENOENT},
               {"412", -ESTALE},    {"416", -EPROTO},    {"429", -EAGAIN},
               {"500", -EREMOTEIO}, {"502", -EREMOTEIO}, {"503", -EAGAIN},
               {"204", -EPROTO}};
  for (const auto &c : cases)
    EXPECT_EQ(StatusOfText(Status(c.code)), c.status) << c.code;
}

TEST_F(HttpTest, AShortBodyIsALostConnectionAndDeliversNothing) {
  EXPECT_EQ(StatusOf([&](const Request &r, Peer &peer) {
              peer.Send(object_.Head(r) + object_.Slice(r.first, r.last - 1));
              peer.Close();
            }),
            -ECONNRESET);
}

TEST_F(HttpTest, AShortBodyWithAnEndIsALie) {
  EXPECT_EQ(StatusOf([&](const Request &r, Peer &peer) {
              peer.Send("HTTP/1.1 206 OK\r\n" + object_.Tag() +
                        object_.Range(r) +
                        "Transfer-Encoding: chunked\r\n\r\n"
                        "a\r\n0123456789\r\n0\r\n\r\n");
            }),
            -EPROTO);
}

TEST_F(HttpTest, ABodyOfUnknownLengthIsGoodIfItIsWhole) {
  EXPECT_EQ(StatusOf([&](const Request &r, Peer &peer) {
              peer.Send("HTTP/1.1 206 OK\r\n" + object_.Tag() +
                        object_.Range(r) + "Connection: close\r\n\r\n" +
                        object_.Slice(r.first, r.last));
              peer.Close();
            }),
            0);
}

TEST_F(HttpTest, ABodyThatGoesOnIsALieAndIsNotWritten) {
  EXPECT_EQ(StatusOf([&](const Request &r, Peer &peer) {
              peer.Send("HTTP/1.1 206 OK\r\n" + object_.Tag() +
                        object_.Range(r) + "Connection: close\r\n\r\n");
              while (peer.Send(std::string(65536, 'x')))
                ;
              peer.Close();
            }),
            -EPROTO);
}

TEST_F(HttpTest, AnotherRangeIsALie) {
  EXPECT_EQ(StatusOf([&](const Request &r, Peer &peer) {
              Request moved = r;
              moved.first++;
              moved.last++;
              peer.Send(object_.Head(moved) +
                        object_.Slice(moved.first, moved.last));
            }),
            -EPROTO);
}

TEST_F(HttpTest, AWholeObjectInPlaceOfARangeIsRefused) {
  EXPECT_EQ(StatusOf([&](const Request &, Peer &peer) {
              peer.Send("HTTP/1.1 200 OK\r\n" + object_.Tag() +
                        "Content-Length: " + std::to_string(kSize) +
                        "\r\n\r\n" + object_.Slice(0, kSize - 1));
              peer.Close();
            }),
            -EPROTO);
}

TEST_F(HttpTest, AWeakETagProvesNothing) {
  EXPECT_EQ(StatusOf([&](const Request &r, Peer &peer) {
              Object weak = object_;
              weak.etag = "W/\"v1\"";
              peer.Send(weak.Head(r) + weak.Slice(r.first, r.last));
            }),
            -ESTALE);
}

TEST_F(HttpTest, AConnectionThatIsResetInABodyIsLost) {
  EXPECT_EQ(StatusOf([&](const Request &r, Peer &peer) {
              peer.Send(object_.Head(r) + "some");
              peer.Reset();
            }),
            -ECONNRESET);
}

TEST_F(HttpTest, AConnectionThatIsClosedWithoutAnAnswerIsLost) {
  EXPECT_EQ(StatusOf([](const Request &, Peer &peer) { peer.Close(); }),
            -ECONNRESET);
}

TEST_F(HttpTest, AnAnswerThatIsNotHttpIsALie) {
  EXPECT_EQ(StatusOf([](const Request &, Peer &peer) {
              peer.Send("220 smtp.example ready\r\n");
              peer.Close();
            }),
            -EPROTO);
}

TEST_F(HttpTest, AServerThatSaysNothingIsGivenUp) {
  EXPECT_EQ(StatusOf([](const Request &, Peer &peer) { peer.AwaitClose(); },
                     {{"attempt-timeout", "1"}}),
            -ETIMEDOUT);
}

TEST_F(HttpTest, AReadIsOverByItsDeadlineHoweverLongAnAttemptMayTake) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url(), 0, {{"attempt-timeout", "3600"}});
  ASSERT_TRUE(src);
  server.Handle([](const Request &, Peer &peer) { peer.AwaitClose(); });
  Bytes bytes(8192);
  EXPECT_EQ(source_read_until(src.get(), 0, bytes.data(), bytes.size(),
                              clock_now_ms() + 100),
            -ETIMEDOUT);
  EXPECT_EQ(source_read_until(src.get(), 0, bytes.data(), bytes.size(),
                              clock_now_ms()),
            -ETIMEDOUT);
}

TEST_F(HttpTest, AServerThatStopsInABodyIsGivenUp) {
  EXPECT_EQ(StatusOf(
                [&](const Request &r, Peer &peer) {
                  peer.Send(object_.Head(r) + "some");
                  peer.AwaitClose();
                },
                {{"attempt-timeout", "1"}}),
            -ETIMEDOUT);
}

TEST_F(HttpTest, AServerThatDripsIsGivenUp) {
  EXPECT_EQ(StatusOf(
                [&](const Request &r, Peer &peer) {
                  peer.Send(object_.Head(r));
                  while (peer.Send("x"))
                    std::this_thread::sleep_for(std::chrono::milliseconds(50));
                  peer.Close();
                },
                {{"attempt-timeout", "1"}}),
            -ETIMEDOUT);
}

TEST_F(HttpTest, AServerThatIsGoneIsRefused) {
  auto server = std::make_unique<ScriptedHttp>(Right());
  SourcePtr src = Open(server->Url());
  ASSERT_TRUE(src);
  server.reset();
  int status = Read(src.get(), 0, 4096);
  EXPECT_TRUE(status == -ECONNREFUSED || status == -ECONNRESET) << status;
  EXPECT_EQ(Read(src.get(), 0, 4096), -ECONNREFUSED);
}

TEST_F(HttpTest, AFailureOfOneReadIsNoneOfAnother) {
  ScriptedHttp server([&](const Request &r, Peer &peer) {
    if (r.first == 4096)
      peer.Send(Status("500"));
    else
      object_.Answer(r, peer);
  });
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 16; i++)
    readers.emplace_back([&, i] {
      if (i == 1)
        EXPECT_EQ(Read(src.get(), 4096, 4096), -EREMOTEIO);
      else
        ExpectBytes(src.get(), i * 4096, 4096);
    });
  for (std::thread &t : readers)
    t.join();
}

TEST_F(HttpTest, AReadThatIsToBeAnewHasAConnectionOfItsOwn) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  ExpectBytes(src.get(), 0, 100);
  const size_t before = server.n_connections();
  struct Anew {
    source_read read = {};
    std::promise<int> ended;
    uint8_t bytes[100];
  } anew;
  anew.read.buf = anew.bytes;
  anew.read.len = sizeof anew.bytes;
  anew.read.anew = true;
  anew.read.done = [](source_read *r) {
    reinterpret_cast<Anew *>(r)->ended.set_value(r->status);
  };
  ASSERT_EQ(source_start(src.get(), &anew.read), SOURCE_PENDING);
  EXPECT_EQ(anew.ended.get_future().get(), 0);
  EXPECT_TRUE(memcmp(anew.bytes, object_.bytes.data(), 100) == 0);
  EXPECT_EQ(server.n_connections(), before + 1);
}

// ---- Redirects --------------------------------------------------------------

std::string RedirectTo(const std::string &where) {
  return Status("301", "Location: " + where + "\r\n");
}

TEST_F(HttpTest, ARedirectIsFollowedForEachRequest) {
  ScriptedHttp server(Right());
  ScriptedHttp first([&](const Request &, Peer &peer) {
    peer.Send(RedirectTo(server.Url("/y")));
  });
  SourcePtr src = Open(first.Url());
  ASSERT_TRUE(src);
  ExpectBytes(src.get(), 4096, 4096);
  EXPECT_EQ(server.requests().at(1).Field("if-match"), "\"v1\"");
  EXPECT_EQ(server.requests().at(1).target, "/y");
}

TEST_F(HttpTest, ALoopOfRedirectsIsALie) {
  EXPECT_EQ(StatusOfText(RedirectTo("/x")), -EPROTO);
  ScriptedHttp server(
      [](const Request &, Peer &peer) { peer.Send(RedirectTo("/x")); });
  EXPECT_FALSE(Open(server.Url(), -EPROTO));
  EXPECT_EQ(server.requests().size(), 6u);
}

TEST_F(HttpTest, ARedirectToNowhereOrToAFileIsALie) {
  EXPECT_EQ(StatusOfText(Status("301")), -EPROTO);
  TempDir dir;
  std::ofstream(dir / "file") << object_.Slice(0, 99999);
  EXPECT_NE(StatusOfText(RedirectTo("file://" + (dir / "file"))), 0);
}

TEST_F(HttpTest, AUserIsNamedToHisOwnHostAlone) {
  ScriptedHttp other(Right());
  ScriptedHttp server(
      [&](const Request &, Peer &peer) { peer.Send(RedirectTo(other.Url())); });
  SourcePtr src =
      Open("http://user:secret@127.0.0.1:" + std::to_string(server.port()));
  ASSERT_TRUE(src);
  EXPECT_EQ(server.requests().at(0).Field("authorization"),
            "Basic dXNlcjpzZWNyZXQ=");
  EXPECT_EQ(other.requests().at(0).Field("authorization"), "");
}

// ---- Opening, and versions --------------------------------------------------

TEST_F(HttpTest, AnObjectThatIsReplacedIsStaleAndHasASuccessor) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  source *fresh = nullptr;
  EXPECT_EQ(src->ops->reopen(src.get(), &fresh), 0);
  EXPECT_EQ(fresh, nullptr);

  Object next = {RandomBytes(5000, 2), "\"v2\""};
  server.Handle([&](const Request &r, Peer &peer) { next.Answer(r, peer); });
  EXPECT_EQ(Read(src.get(), 0, 100), -ESTALE);
  ASSERT_EQ(src->ops->reopen(src.get(), &fresh), 0);
  ASSERT_NE(fresh, nullptr);
  SourcePtr successor(fresh);
  src.reset();
  EXPECT_EQ(successor->size, 5000u);
  Bytes read;
  EXPECT_EQ(Read(successor.get(), 0, 5000, &read), 0);
  EXPECT_EQ(read, next.bytes);
}

TEST_F(HttpTest, NobodyIsAskedWhileReadsProveTheVersion) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  ExpectBytes(src.get(), 0, 100);
  object_.etag = "\"v2\"";
  source *fresh = nullptr;
  EXPECT_EQ(src->ops->reopen(src.get(), &fresh), 0);
  EXPECT_EQ(fresh, nullptr);
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST_F(HttpTest, AnObjectThatIsWatchedIsAskedForNowAndThen) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url(), 0, {{"watch", "1"}});
  ASSERT_TRUE(src);
  object_.etag = "\"v2\"";
  source *fresh = nullptr;
  while (!fresh)
    Watch(src.get(), server, server.requests().size() + 2, &fresh);
  EXPECT_EQ(Methods(server), "GET HEAD GET ");
  fresh->ops->close(fresh);
}

TEST_F(HttpTest, AHeadProvesThatAWatchedObjectIsTheSame) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url(), 0, {{"watch", "1"}});
  ASSERT_TRUE(src);
  source *fresh = nullptr;
  Watch(src.get(), server, 3, &fresh);
  EXPECT_EQ(fresh, nullptr);
  EXPECT_EQ(Methods(server), "GET HEAD HEAD ");
}

TEST_F(HttpTest, WhereAHeadProvesNothingTheFirstByteIsAskedFor) {
  for (const std::string &answer :
       {Status("405"),
        std::string("HTTP/1.1 200 OK\r\nContent-Length: ") +
            std::to_string(kSize) + "\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" + object_.Tag() + "\r\n"}) {
    ScriptedHttp server([&](const Request &r, Peer &peer) {
      if (r.method != "HEAD")
        return object_.Answer(r, peer);
      peer.Send(answer.substr(0, answer.find("\r\n\r\n") + 4));
      peer.Close();
    });
    SourcePtr src = Open(server.Url(), 0, {{"watch", "1"}});
    ASSERT_TRUE(src);
    source *fresh = nullptr;
    Watch(src.get(), server, 3, &fresh);
    EXPECT_EQ(fresh, nullptr);
    EXPECT_EQ(Methods(server), "GET HEAD GET ");
  }
}

TEST_F(HttpTest, AnObjectThatIsGoneHasNoSuccessorUntilItIsBack) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  server.Handle([](const Request &, Peer &peer) { peer.Send(Status("404")); });
  source *fresh = nullptr;
  EXPECT_EQ(Read(src.get(), 0, 100), -ENOENT);
  EXPECT_EQ(src->ops->reopen(src.get(), &fresh), -ENOENT);
  EXPECT_EQ(fresh, nullptr);
  server.Handle(Right());
  EXPECT_EQ(src->ops->reopen(src.get(), &fresh), 0);
  EXPECT_EQ(fresh, nullptr);
  ExpectBytes(src.get(), 0, 100);
}

TEST_F(HttpTest, AVersionIsIdentifiedByItsURLAndItsETag) {
  ScriptedHttp server(Right());
  SourcePtr a = Open(server.Url()), b = Open(server.Url());
  SourcePtr elsewhere = Open(server.Url("/y"));
  object_.etag = "\"v2\"";
  SourcePtr c = Open(server.Url());
  ASSERT_TRUE(a && b && c && elsewhere);
  source_identity id;
  source_identify(a.get(), &id);
  EXPECT_GT(id.len, 0u);
  EXPECT_TRUE(source_resume(b.get(), &id));
  EXPECT_FALSE(source_resume(c.get(), &id));
  EXPECT_FALSE(source_resume(elsewhere.get(), &id));
}

// It is shown to others, who could guess a secret by its hash.
TEST_F(HttpTest, AVersionIsTheSameContentWhoeverAsksForIt) {
  ScriptedHttp server(Right());
  const std::string host = "127.0.0.1:" + std::to_string(server.port());
  auto content = [](const SourcePtr &src) {
    source_identity id;
    source_identify(src.get(), &id);
    EXPECT_GT(id.content_len, 0u);
    EXPECT_LT(id.content_len, id.len);
    return std::string(id.bytes + id.len - id.content_len, id.bytes + id.len);
  };
  SourcePtr a = Open("http://user:pass@" + host + "/x?signature=abc");
  SourcePtr b = Open("http://" + host + "/x");
  SourcePtr elsewhere = Open("http://" + host + "/y");
  object_.etag = "\"v2\"";
  SourcePtr c = Open("http://" + host + "/x");
  ASSERT_TRUE(a && b && c && elsewhere);
  EXPECT_EQ(content(a), content(b));
  EXPECT_NE(content(a), content(c));
  EXPECT_NE(content(a), content(elsewhere));
}

TEST_F(HttpTest, WhatCannotBeOpenedSaysWhyWithoutSecrets) {
  ScriptedHttp server(
      [](const Request &, Peer &peer) { peer.Send(Status("403")); });
  const std::string host = "127.0.0.1:" + std::to_string(server.port());
  EXPECT_FALSE(Open("http://user:pass@" + host + "/x?signature=abc", -EACCES));
  EXPECT_EQ(std::string(fault_.text),
            "http://" + host +
                "/x: the server refuses access (HTTP status 403)");
}

TEST_F(HttpTest, ASmallObjectIsServedByAServerWithoutRanges) {
  object_.bytes.resize(20000);
  ScriptedHttp server([&](const Request &, Peer &peer) {
    peer.Send("HTTP/1.1 200 OK\r\n" + object_.Tag() +
              "Content-Length: 20000\r\n\r\n" + object_.Slice(0, 19999));
  });
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  ExpectBytes(src.get(), 0, 20000);
  ExpectBytes(src.get(), 5000, 1000);
  ExpectBytes(src.get(), 19999, 1);
  EXPECT_EQ(server.n_connections(), 1u);
}

TEST_F(HttpTest, UrisAndOptionsAreCheckedWithoutAServer) {
  auto check = [this](const char *url, const Options &options = {}) {
    const source_uri uri = {url, options.data(), options.size()};
    return http_source_kind.check(&uri, &fault_);
  };
  EXPECT_EQ(check("http://host/x"), 0);
  EXPECT_EQ(check("HTTPS://[::1]:8443/x?y", {{"ca", "/c"}}), 0);
  for (const char *bad : {"http://", "http://host:0x/", "http://host/a b",
                          "ftp://host/x", "host/x", ""})
    EXPECT_EQ(check(bad), -EINVAL) << bad;
  EXPECT_EQ(check("http://h/x", {{"connections", "64"}}), 0);
  for (const char *bad : {"0", "65", "-1", "x", "", "1x", "99999999999999"})
    EXPECT_EQ(check("http://h/x", {{"connections", bad}}), -EINVAL) << bad;
  EXPECT_EQ(check("http://h/x", {{"attempt-timeout", "0"}}), -EINVAL);
  EXPECT_EQ(check("http://h/x", {{"watch", "86401"}}), -EINVAL);
  EXPECT_EQ(check("http://h/x", {{"ca", "relative"}}), -EINVAL);
}

// ---- Connections ------------------------------------------------------------

TEST_F(HttpTest, ConnectionsAreBoundedAndAllAreUsed) {
  constexpr size_t kConnections = 3;
  std::mutex mutex;
  std::condition_variable changed;
  size_t n_now = 0, n_most = 0;
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url(), 0, {{"connections", "3"}});
  ASSERT_TRUE(src);
  server.Handle([&](const Request &r, Peer &peer) {
    {
      std::unique_lock<std::mutex> lock(mutex);
      n_most = std::max(n_most, ++n_now);
      changed.notify_all();
      changed.wait(lock, [&] { return n_most >= kConnections; });
      n_now--;
    }
    object_.Answer(r, peer);
  });
  std::vector<std::thread> readers;
  for (uint64_t i = 0; i < 20; i++)
    readers.emplace_back([&, i] { ExpectBytes(src.get(), i * 10000, 10000); });
  for (std::thread &t : readers)
    t.join();
  EXPECT_EQ(n_most, kConnections);
  EXPECT_EQ(server.n_connections(), kConnections);
}

TEST_F(HttpTest, AServerThatAsksForTimeIsLeftAlone) {
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  server.Handle([](const Request &, Peer &peer) {
    peer.Send(Status("503", "Retry-After: 1000\r\n"));
  });
  EXPECT_EQ(Read(src.get(), 0, 100), -EAGAIN);
  server.Handle(Right());
  EXPECT_EQ(Read(src.get(), 0, 100), -EAGAIN);
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST_F(HttpTest, AReadWaitsForATimeThatComesSoon) {
  using Clock = std::chrono::steady_clock;
  Clock::time_point asked;
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  server.Handle([&](const Request &, Peer &peer) {
    asked = Clock::now();
    peer.Send(Status("429", "Retry-After: 1\r\n"));
  });
  EXPECT_EQ(Read(src.get(), 0, 100), -EAGAIN);
  server.Handle(Right());
  ExpectBytes(src.get(), 0, 100);
  EXPECT_GE(Clock::now() - asked, std::chrono::seconds(1));
}

TEST_F(HttpTest, ADoneMayCloseTheSource) {
  struct Last {
    source_read read;
    source *src;
    std::promise<int> status;
  } last;
  ScriptedHttp server(Right());
  SourcePtr src = Open(server.Url());
  ASSERT_TRUE(src);
  Bytes bytes(1000);
  last.src = src.release();
  last.read = source_read{};
  last.read.offset = 10;
  last.read.buf = bytes.data();
  last.read.len = bytes.size();
  last.read.done = [](source_read *r) {
    Last *l = reinterpret_cast<Last *>(r);
    int status = r->status;
    l->src->ops->close(l->src);
    l->status.set_value(status);
  };
  EXPECT_EQ(source_start(last.src, &last.read), SOURCE_PENDING);
  EXPECT_EQ(last.status.get_future().get(), 0);
  EXPECT_TRUE(memcmp(bytes.data(), object_.bytes.data() + 10, 1000) == 0);
}

TEST_F(HttpTest, AProxyOfTheEnvironmentIsAsked) {
  ScriptedHttp proxy(Right());
  setenv("http_proxy", proxy.Url("").c_str(), 1);
  SourcePtr src = Open("http://far.example/x");
  if (src)
    ExpectBytes(src.get(), 100, 100);
  unsetenv("http_proxy");
  ASSERT_TRUE(src);
  EXPECT_EQ(proxy.requests().at(1).target, "http://far.example/x");
}

// ---- nginx ------------------------------------------------------------------

class NginxTest : public HttpTest {
protected:
  void Fill(Nginx &nginx) { nginx.Put("x", object_.Slice(0, kSize - 1)); }

  void ReadAll(source *src) {
    std::vector<std::thread> readers;
    for (uint64_t i = 0; i < 10; i++)
      readers.emplace_back([this, src, i] {
        ExpectBytes(src, i * (kSize / 10), kSize / 10 + (i == 9));
      });
    for (std::thread &t : readers)
      t.join();
  }

  Certificates certificates_;
};

TEST_F(NginxTest, ServesRangesInPlainText) {
  Nginx nginx;
  Fill(nginx);
  SourcePtr src = Open(nginx.Url("/x"));
  ASSERT_TRUE(src) << fault_.text;
  ReadAll(src.get());
  src.reset();
  uint64_t n_body = 0;
  for (const Nginx::Line &line : nginx.StopAndReadLog()) {
    EXPECT_EQ(line.status, 206);
    EXPECT_EQ(line.protocol, "HTTP/1.1");
    n_body += line.n_body;
  }
  EXPECT_EQ(n_body, kSize + 1);
}

TEST_F(NginxTest, ServesRangesByHttp2InTls) {
  Nginx nginx({certificates_.Make("server", "IP:127.0.0.1"), ""});
  Fill(nginx);
  const std::string ca = certificates_.ca();
  SourcePtr src = Open(nginx.Url("/x"), 0, {{"ca", ca.c_str()}});
  ASSERT_TRUE(src) << fault_.text;
  ReadAll(src.get());
  src.reset();
  for (const Nginx::Line &line : nginx.StopAndReadLog())
    EXPECT_EQ(line.protocol, "HTTP/2.0");
}

TEST_F(NginxTest, AFileThatIsReplacedIsStaleAndHasASuccessor) {
  Nginx nginx;
  Fill(nginx);
  SourcePtr src = Open(nginx.Url("/x"));
  ASSERT_TRUE(src);
  nginx.Put("x", "another");
  EXPECT_EQ(Read(src.get(), 0, 100), -ESTALE);
  source *fresh = nullptr;
  ASSERT_EQ(src->ops->reopen(src.get(), &fresh), 0);
  ASSERT_NE(fresh, nullptr);
  EXPECT_EQ(fresh->size, 7u);
  fresh->ops->close(fresh);
}

TEST_F(NginxTest, AServerThatIsStoppedIsGivenUpAndAskedAgainWhenItGoesOn) {
  Nginx nginx;
  Fill(nginx);
  SourcePtr src = Open(nginx.Url("/x"), 0, {{"attempt-timeout", "1"}});
  ASSERT_TRUE(src);
  nginx.Pause();
  EXPECT_EQ(Read(src.get(), 0, 100000), -ETIMEDOUT);
  nginx.Continue();
  ExpectBytes(src.get(), 0, 100000);
}

TEST_F(NginxTest, AServerThatIsKilledServesOnWhenItIsBack) {
  Nginx nginx;
  Fill(nginx);
  SourcePtr src = Open(nginx.Url("/x"));
  ASSERT_TRUE(src);
  ExpectBytes(src.get(), 0, 100000);
  nginx.Kill();
  nginx.Start();
  // The connection that was kept is gone, which is found out by itself.
  ExpectBytes(src.get(), 0, 100000);
}

TEST_F(NginxTest, AnEmptyFileIsAnEmptyImage) {
  Nginx nginx;
  nginx.Put("x", "");
  SourcePtr src = Open(nginx.Url("/x"));
  ASSERT_TRUE(src) << fault_.text;
  EXPECT_EQ(src->size, 0u);
}

TEST_F(NginxTest, ACertificateThatIsNotGoodIsRefused) {
  const std::string ca = certificates_.ca();
  const std::string bad[] = {
      certificates_.Make("expired", "IP:127.0.0.1", Certificates::kExpired),
      certificates_.Make("other", "DNS:other.example"),
      certificates_.Make("own", "IP:127.0.0.1", Certificates::kSelfSigned)};
  for (const std::string &certificate : bad) {
    Nginx nginx({certificate, ""});
    Fill(nginx);
    EXPECT_FALSE(Open(nginx.Url("/x"), -EACCES, {{"ca", ca.c_str()}}));
    EXPECT_NE(strstr(fault_.text, "certificate"), nullptr) << fault_.text;
  }
  // One that the system's authorities did not sign.
  Nginx nginx({certificates_.Make("server", "IP:127.0.0.1"), ""});
  EXPECT_FALSE(Open(nginx.Url("/x"), -EACCES));
}

TEST_F(NginxTest, AServerWithoutTlsIsRefused) {
  Nginx nginx;
  nginx.Put("x", "bytes");
  EXPECT_FALSE(Open("https://127.0.0.1:" + std::to_string(nginx.port()) + "/x",
                    -EACCES));
}

TEST_F(NginxTest, ARedirectFromHttpsToHttpIsNotFollowed) {
  Nginx plain;
  Fill(plain);
  Nginx nginx({certificates_.Make("server", "IP:127.0.0.1"),
               "location / { return 302 " + plain.Url("/x") + "; }"});
  const std::string ca = certificates_.ca();
  EXPECT_FALSE(Open(nginx.Url("/x"), -EPROTO, {{"ca", ca.c_str()}}));
  EXPECT_NE(strstr(fault_.text, "from https"), nullptr) << fault_.text;
  EXPECT_TRUE(plain.StopAndReadLog().empty());
}

} // namespace
