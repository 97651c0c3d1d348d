// CACHET_DEBUG: which events are said, and that nothing is said otherwise.
#include <regex>
#include <sstream>

#include "tests/client/fake_mirror.h"

namespace {

/* What `act` writes to standard error, by lines. */
std::vector<std::string> LinesOf(const std::function<void()> &act) {
  testing::internal::CaptureStderr();
  act();
  std::istringstream text(testing::internal::GetCapturedStderr());
  std::vector<std::string> lines;
  for (std::string line; std::getline(text, line);)
    lines.push_back(line);
  return lines;
}

/* Each line has a handle, a time and the image; what follows is as expected, of
 * one handle. */
void ExpectEvents(const std::vector<std::string> &lines,
                  const std::string &image,
                  const std::vector<std::string> &events) {
  const std::regex shape("cachet\\[([0-9]+)\\] [0-9]+\\.[0-9]{3} \"([^\"]*)\": "
                         "(.*)");
  ASSERT_EQ(lines.size(), events.size()) << testing::PrintToString(lines);
  std::string id;
  for (size_t i = 0; i < lines.size(); i++) {
    std::smatch parts;
    ASSERT_TRUE(std::regex_match(lines[i], parts, shape)) << lines[i];
    EXPECT_EQ(id.empty() ? parts[1] : id, parts[1]);
    id = parts[1];
    EXPECT_EQ(parts[2], image);
    EXPECT_TRUE(std::regex_match(parts[3].str(), std::regex(events[i])))
        << parts[3] << " is not: " << events[i];
  }
}

class DebugTest : public testing::Test {
protected:
  void SetUp() override { setenv("CACHET_DEBUG", "1", 1); }
  void TearDown() override { unsetenv("CACHET_DEBUG"); }

  static cachet_options NoReadahead() {
    cachet_options o = Patience(kPatienceMs);
    o.flags = CACHET_NO_READAHEAD;
    return o;
  }
};

TEST_F(DebugTest, AMissIsSaidAndAHitIsNot) {
  MadeSource source(Content(10 * 4096));
  ExpectEvents(LinesOf([&] {
                 Handle c = source.Make(NoReadahead());
                 uint8_t buf[2 * 4096];
                 ASSERT_EQ(cachet_read(c.get(), 4096, buf, sizeof buf),
                           CACHET_OK);
                 for (int i = 0; i < 100; i++)
                   ASSERT_EQ(cachet_get_u8(c.get(), 4096, buf), CACHET_OK);
               }),
               "made",
               {"is open: 40960 bytes in pages of 4096, epoch 0x[0-9a-f]+, "
                "cached here",
                "misses pages 1 to 2", "has waited [0-9]+ ms for them",
                "closes, after 100 hits and 2 misses"});
}

TEST_F(DebugTest, WhatFailsIsSaidWithItsMessage) {
  MadeSource source(Content(4096));
  source.fail_with = EIO;
  Handle c = source.Make(NoReadahead());
  ExpectEvents(LinesOf([&] {
                 uint8_t byte;
                 ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_IO);
               }),
               "made",
               {"misses pages 0 to 0", "has waited [0-9]+ ms for them",
                "gives up a request: .*read.*"});
}

TEST_F(DebugTest, NothingIsSaidByAHandleThatWasNotAskedWhenItWasOpened) {
  for (const char *value : {"", "0", "yes"}) {
    setenv("CACHET_DEBUG", value, 1);
    MadeSource source(Content(4096));
    EXPECT_EQ(LinesOf([&] {
                Handle c = source.Make();
                setenv("CACHET_DEBUG", "1", 1);
                uint8_t byte;
                ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
              }),
              std::vector<std::string>());
  }
}

TEST_F(DebugTest, ConnectingWaitingAndGivingUpAreSaid) {
  FakeDaemon d({[](Peer &p) {
    p.Handshake();
    p.AwaitEnd();
  }});
  ExpectEvents(
      LinesOf([&] {
        Handle c = Open(d.Uri(), NoReadahead());
        uint8_t byte;
        ASSERT_EQ(cachet_get_u8(c.get(), 4096, &byte), CACHET_E_TIMEOUT);
      }),
      "disk",
      {"connects to " + d.path, "is connected: [0-9]+ bytes, epoch 0x4d",
       "is open: .*, cached here", "misses pages 1 to 1",
       "waits for them, with a time-out of " + std::to_string(kPatienceMs) +
           " ms",
       "gives up a request: .*in time",
       "has lost the connection: .*does not answer", "closes, .*"});
}

TEST_F(DebugTest, ARefusalToShareIsSaid) {
  FakeDaemon d({[](Peer &p) {
    p.Handshake();
    Request r;
    p.Receive(&r);
    p.Error(r.id, CACHET_E_UNSUPPORTED, "no", EDQUOT);
    p.AwaitEnd();
  }});
  d.image.share = true;
  ExpectEvents(LinesOf([&] { Open(d.Uri(), NoReadahead()); }), "disk",
               {"connects to .*", "is connected: .*",
                "asks to attach to the daemon's memory",
                "gets no share of it, and asks again in 5 ms", "is open: .*",
                "closes, .*"});
}

TEST_F(DebugTest, AttachingIsSaid) {
  std::unique_ptr<FakeMirror> mirror;
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    Request r;
    p.Receive(&r);
    mirror->Lend(p, r.id);
    p.AwaitEnd();
  }});
  d.image.share = true;
  mirror = std::make_unique<FakeMirror>(d.image);
  ExpectEvents(LinesOf([&] { Open(d.Uri(), NoReadahead()); }), "disk",
               {"connects to .*", "is connected: .*",
                "asks to attach to the daemon's memory",
                "is attached to epoch 0x4d, with [0-9]+ page slots",
                "is open: .*, epoch 0x4d, in the daemon's memory",
                "closes, .*"});
}

TEST_F(DebugTest, WhatADaemonSaysCannotSteerATerminal) {
  FakeDaemon d({[](Peer &p) {
    p.Handshake();
    Request r;
    p.Receive(&r);
    p.Error(r.id, CACHET_E_IO, "a\033[2Jb\nc");
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), NoReadahead());
  ExpectEvents(LinesOf([&] {
                 uint8_t byte;
                 ASSERT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_IO);
               }),
               "disk",
               {"misses pages 0 to 0", "waits for them, .*",
                "has waited [0-9]+ ms for them",
                "gives up a request: a\\?\\[2Jb\\?c"});
}

} // namespace
