// Handles on a daemon's image: opening, reading, and requests in flight.
#include "tests/client/fake_daemon.h"
#include "tests/support/quiet_fork.h"

namespace {

TEST(RemoteTest, ReadsWhatTheDaemonServes) {
  FakeDaemon d({ServeAll()}, 300001);
  Handle c = Open(d.Uri(), Options());
  EXPECT_EQ(cachet_size(c.get()), 300001u);
  EXPECT_EQ(cachet_epoch(c.get()), 77u);
  EXPECT_FALSE(cachet_is_shared(c.get()));
  ExpectContent(c.get(), d.image.bytes);
  uint64_t misses = cachet_misses(c.get());
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(cachet_misses(c.get()), misses);
  EXPECT_TRUE(cachet_is_cached(c.get(), 300000));
}

TEST(RemoteTest, ACacheOfOnePageStillReadsEverything) {
  FakeDaemon d({ServeAll()}, 300001);
  cachet_options o = Options();
  o.cache_size = 4096;
  Handle c = Open(d.Uri(), o);
  ExpectContent(c.get(), d.image.bytes);
  cachet_slice s;
  ASSERT_EQ(cachet_map(c.get(), 5, CACHET_TO_END, &s), CACHET_OK);
  EXPECT_EQ(s.length, 299996u);
  EXPECT_EQ(memcmp(s.data, &d.image.bytes[5], s.length), 0);
  cachet_release(c.get(), &s);
}

TEST(RemoteTest, AsksForAllAbsentPagesOfAReadInOneMessage) {
  std::vector<Request> asked;
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    Request r;
    while (p.Receive(&r)) {
      asked.push_back(r);
      p.Answer(r);
    }
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  ASSERT_EQ(cachet_get_u8(c.get(), 2 * 4096, &byte), CACHET_OK);
  std::vector<uint8_t> buf(5 * 4096);
  ASSERT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_OK);
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), buf.size()), 0);
  c.reset();
  d.Stop();
  ASSERT_EQ(asked.size(), 2u);
  std::vector<std::pair<uint64_t, uint64_t>> expected = {{0, 8192},
                                                         {12288, 8192}};
  EXPECT_EQ(asked[1].ranges, expected);
}

TEST(RemoteTest, SplitsRequestsByTheLimitsOfTheDaemon) {
  size_t most_ranges = 0;
  uint64_t most_bytes = 0;
  FakeDaemon d({[&](Peer &p) {
                 p.Handshake();
                 Request r;
                 while (p.Receive(&r)) {
                   uint64_t bytes = 0;
                   for (auto &range : r.ranges)
                     bytes += range.second;
                   most_bytes = std::max(most_bytes, bytes);
                   most_ranges = std::max(most_ranges, r.ranges.size());
                   p.Answer(r);
                 }
               }},
               40 * 4096);
  d.image.max_ranges = 2;
  d.image.max_read = 4 * 4096;
  d.image.max_requests = 1;
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  for (uint64_t page = 1; page < 20; page += 2)
    ASSERT_EQ(cachet_get_u8(c.get(), page * 4096, &byte), CACHET_OK);
  ExpectContent(c.get(), d.image.bytes);
  c.reset();
  d.Stop();
  EXPECT_EQ(most_ranges, 2u);
  EXPECT_EQ(most_bytes, 4 * 4096u);
}

TEST(RemoteTest, AFailureOfTheImageIsToldToTheCallerAndNotRemembered) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    p.Error(r.id, CACHET_E_IO, "image \"disk\": read: Input/output error");
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  uint8_t byte;
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_E_IO);
  EXPECT_STREQ(cachet_errmsg(c.get()),
               "image \"disk\": read: Input/output error");
  EXPECT_EQ(cachet_get_u8(c.get(), 0, &byte), CACHET_OK);
}

// A daemon that says of a Read of several pages only that it failed.
TEST(RemoteTest, AnErrorOfSeveralPagesIsAskedForAgainPageByPage) {
  const uint64_t kBad = 5 * 4096;
  std::vector<Request> asked;
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    while (p.Receive(&r)) {
      asked.push_back(r);
      auto [offset, len] = r.ranges[0];
      if (offset <= kBad && kBad < offset + len)
        p.Error(r.id, CACHET_E_IO, "read: Input/output error");
      else
        p.Answer(r);
    }
  }});
  cachet_options o = Options();
  o.flags = CACHET_NO_READAHEAD;
  Handle c = Open(d.Uri(), o);
  std::vector<uint8_t> buf(8 * 4096);
  ASSERT_EQ(cachet_prefetch(c.get(), 0, buf.size()), CACHET_OK);
  ASSERT_EQ(cachet_read(c.get(), 6 * 4096, buf.data(), 4096), CACHET_OK)
      << cachet_errmsg(c.get());
  EXPECT_EQ(memcmp(buf.data(), &d.image.bytes[6 * 4096], 4096), 0);
  // Asked for: 0 to 7; 6; 0 to 5 and 7; 0, 1, 2, 3, 4, 5.
  EXPECT_EQ(cachet_read(c.get(), 0, buf.data(), buf.size()), CACHET_E_IO);
  EXPECT_EQ(memcmp(buf.data(), d.image.bytes.data(), kBad), 0);
  c.reset();
  d.Stop();
  EXPECT_EQ(asked.size(), 9u);
  EXPECT_EQ(asked.back().ranges[0], std::make_pair(kBad, uint64_t{4096}));
}

// ---- Opening ----------------------------------------------------------------

cachet_status OpenStatus(const std::string &uri, const cachet_options &o,
                         std::string *message = nullptr) {
  cachet *c = nullptr;
  cachet_error err = {};
  cachet_status status = cachet_open(uri.c_str(), &o, &c, &err);
  EXPECT_EQ(c, nullptr);
  EXPECT_EQ(err.code, status);
  if (message)
    *message = err.message;
  return status;
}

TEST(RemoteTest, NoSocketFailsAtOnceAndNamesIt) {
  TempDir dir;
  std::string message;
  EXPECT_EQ(OpenStatus("cachet+unix:///x?socket=" + dir.File("none"),
                       Patience(-1, -1), &message),
            CACHET_E_CONN);
  EXPECT_NE(message.find(dir.File("none")), std::string::npos) << message;
  EXPECT_NE(message.find("No such file"), std::string::npos) << message;
}

TEST(RemoteTest, AnUnknownImageIsNoImage) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Receive(&r);
    p.Welcome(r.id);
    p.Receive(&r);
    p.Error(r.id, CACHET_E_NOIMAGE, "image \"disk\": not\x1b[served");
    p.AwaitEnd();
  }});
  std::string message;
  EXPECT_EQ(OpenStatus(d.Uri(), Options(), &message), CACHET_E_NOIMAGE);
  EXPECT_EQ(message, "image \"disk\": not?[served");
}

// What the daemon says when it is asked for its images.
void SendNames(Peer &p, uint64_t id, std::vector<std::string> names) {
  std::vector<Cachet__Wire__ImageInfo> infos(names.size());
  std::vector<Cachet__Wire__ImageInfo *> list;
  for (size_t i = 0; i < names.size(); i++) {
    infos[i] = CACHET__WIRE__IMAGE_INFO__INIT;
    infos[i].name = names[i].data();
    list.push_back(&infos[i]);
  }
  Cachet__Wire__Images images = CACHET__WIRE__IMAGES__INIT;
  images.n_images = list.size();
  images.images = list.data();
  wire_message m = CACHET__WIRE__MESSAGE__INIT;
  m.id = id;
  m.body_case = CACHET__WIRE__MESSAGE__BODY_IMAGES;
  m.images = &images;
  p.Send(m);
}

// Of a daemon that does not serve what it is asked to open, and leaves the
// question for its images to `list`.
std::string
UnknownImageMessage(const std::function<void(Peer &, uint64_t id)> &list,
                    const cachet_options &options = Options()) {
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Receive(&r);
    p.Welcome(r.id);
    p.Receive(&r);
    if (r.body == CACHET__WIRE__MESSAGE__BODY_LIST)
      list(p, r.id);
    else
      p.Error(r.id, CACHET_E_NOIMAGE, "not served");
    p.AwaitEnd();
  }});
  std::string message;
  EXPECT_EQ(OpenStatus(d.Uri(), options, &message), CACHET_E_NOIMAGE);
  return message;
}

std::string UnknownImageMessage(const std::vector<std::string> &names) {
  return UnknownImageMessage(
      [&](Peer &p, uint64_t id) { SendNames(p, id, names); });
}

TEST(RemoteTest, AnUnknownImageIsAnsweredWithUpToFiveThatThereAre) {
  EXPECT_EQ(UnknownImageMessage(std::vector<std::string>()),
            "not served; it serves nothing");
  EXPECT_EQ(UnknownImageMessage({"a", "b"}), "not served; it serves a, b");
  EXPECT_EQ(UnknownImageMessage({"a", "b", "c", "d", "e", "f", "g"}),
            "not served; it serves a, b, c, d, e and 2 more");
}

TEST(RemoteTest, NamesThatSpoilATerminalOrAreEndlessDoNot) {
  EXPECT_EQ(UnknownImageMessage({"\x1b[2J\n"}), "not served; it serves ?[2J?");
  std::string message =
      UnknownImageMessage(std::vector<std::string>(9, std::string(5000, 'x')));
  EXPECT_LT(message.size(), sizeof cachet_error().message);
  EXPECT_EQ(message.substr(0, 30), "not served; it serves xxxxxxxx");
}

TEST(RemoteTest, NamesThatDoNotComeAreNotWaitedForWithoutEnd) {
  EXPECT_EQ(UnknownImageMessage([](Peer &, uint64_t) {}, Patience(-1, -1)),
            "not served");
}

TEST(RemoteTest, ADaemonOfAnotherVersionIsAProtocolError) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Receive(&r);
    p.Error(r.id, CACHET_E_PROTO, "versions 2 to 3");
    p.AwaitEnd();
  }});
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO);
}

TEST(RemoteTest, AWelcomeOfAVersionThatWasNotOfferedIsAProtocolError) {
  FakeDaemon d({ServeAll()});
  d.image.version = 2;
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO);
}

TEST(RemoteTest, ASilentDaemonIsATimeOut) {
  FakeDaemon d({[](Peer &p) { p.AwaitEnd(); }});
  EXPECT_EQ(OpenStatus(d.Uri(), Patience(50, 50)), CACHET_E_TIMEOUT);
}

TEST(RemoteTest, ASilentDaemonIsATimeOutOverTcpToo) {
  TcpListener silent(8);
  EXPECT_EQ(OpenStatus(silent.Uri(), Patience(50, 50)), CACHET_E_TIMEOUT);
}

TEST(RemoteTest, ADaemonThatHangsUpIsNoConnection) {
  FakeDaemon d({[](Peer &) {}});
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_CONN);
}

TEST(RemoteTest, AnImageThatCannotBeIsAProtocolError) {
  for (uint32_t page_size : {0u, 512u, 5000u, 4u << 20}) {
    FakeDaemon d({ServeAll()});
    d.image.page_size = page_size;
    EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO) << page_size;
  }
  FakeDaemon d({ServeAll()});
  d.image.epoch = 0;
  EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO);
}

TEST(RemoteTest, LimitsThatLeaveNoRoomAreAProtocolError) {
  for (int i = 0; i < 4; i++) {
    FakeDaemon d({ServeAll()});
    (i == 0   ? d.image.max_ranges
     : i == 1 ? d.image.max_requests
              : d.image.max_message) = 0;
    if (i == 3) {
      d.image.max_message = 65536;
      d.image.max_read = 100;
    }
    EXPECT_EQ(OpenStatus(d.Uri(), Options()), CACHET_E_PROTO) << i;
  }
}

// ---- Asynchronous -----------------------------------------------------------

TEST(RemoteTest, ManyLoadsAreInFlightAtOnceAndMayBeAnsweredInAnyOrder) {
  FakeDaemon d({[&](Peer &p) {
    Request r[16];
    p.Handshake();
    for (auto &request : r)
      p.Receive(&request); // nothing is answered before all are here
    for (int i = 15; i >= 0; i--)
      p.Answer(r[i]);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  Outcome out[16];
  for (uint64_t i = 0; i < 16; i++)
    ASSERT_EQ(cachet_load_async(c.get(), i * 4096, 0, Outcome::Loaded, &out[i],
                                nullptr),
              CACHET_OK);
  RunUntil(c.get(), [&] {
    return std::all_of(out, out + 16, [](auto &o) { return o.n == 1; });
  });
  for (auto &o : out) {
    ASSERT_EQ(o.status, CACHET_OK);
    EXPECT_EQ(memcmp(o.slice.data, &d.image.bytes[o.slice.offset], 4096), 0);
    cachet_release(c.get(), &o.slice);
  }
  EXPECT_EQ(cachet_timeout_ms(c.get()), -1);
}

TEST(RemoteTest, RequestsOutliveTheConnection) {
  FakeDaemon d({[&](Peer &p) {
                  Request r;
                  p.Handshake();
                  p.Receive(&r);
                },
                ServeAll()});
  Handle c = Open(d.Uri(), Options());
  Outcome a, b;
  std::vector<uint8_t> buf(64 << 10);
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &a, nullptr);
  cachet_read_async(c.get(), 0, buf.data(), buf.size(), Outcome::Read, &b,
                    nullptr);
  RunUntil(c.get(), [&] { return a.n && b.n; });
  EXPECT_EQ(a.status, CACHET_OK);
  EXPECT_EQ(b.status, CACHET_OK);
  EXPECT_TRUE(buf == d.image.bytes);
}

TEST(RemoteTest, ACancelledRequestCompletesOnceAndItsAnswerDoesNoHarm) {
  Gate answer;
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    p.Receive(&r);
    answer.Await();
    p.Answer(r);
    p.Serve();
  }});
  Handle c = Open(d.Uri(), Options());
  Outcome out;
  std::vector<uint8_t> buf(8192, 0x11);
  cachet_request *request = nullptr;
  ASSERT_EQ(cachet_read_async(c.get(), 0, buf.data(), buf.size(), Outcome::Read,
                              &out, &request),
            CACHET_OK);
  ASSERT_EQ(cachet_cancel(c.get(), request), CACHET_OK);
  EXPECT_EQ(out.n, 0);
  EXPECT_EQ(cachet_timeout_ms(c.get()), 0);
  ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  EXPECT_EQ(out.n, 1);
  EXPECT_EQ(out.status, CACHET_E_CANCELED);
  answer.Open();
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(out.n, 1);
  EXPECT_EQ(buf, std::vector<uint8_t>(8192, 0x11));
}

TEST(RemoteTest, CloseCompletesWhatIsOutstanding) {
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), Options());
  Outcome out;
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  c.reset();
  EXPECT_EQ(out.n, 1);
  EXPECT_EQ(out.status, CACHET_E_CANCELED);
}

TEST(RemoteTest, BlockingCallsRunNoCallbacks) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  Outcome out;
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(out.n, 0);
  RunUntil(c.get(), [&] { return out.n == 1; });
  EXPECT_EQ(out.status, CACHET_OK);
}

TEST(RemoteTest, ARequestWithoutAnAnswerTimesOutInDispatch) {
  FakeDaemon d({[&](Peer &p) {
    p.Handshake();
    p.AwaitEnd();
  }});
  Handle c = Open(d.Uri(), Patience(30));
  Outcome out;
  cachet_load_async(c.get(), 0, 0, Outcome::Loaded, &out, nullptr);
  RunUntil(c.get(), [&] { return out.n == 1; });
  EXPECT_EQ(out.status, CACHET_E_TIMEOUT);
}

TEST(RemoteTest, EachAnswerOfARequestHasTheWholeTimeOut) {
  Gate first, second;
  FakeDaemon d({[&](Peer &p) {
                 Request r;
                 p.Handshake();
                 p.Receive(&r);
                 first.Await();
                 p.Answer(r);
                 p.Receive(&r);
                 second.Await();
                 p.Answer(r);
                 p.Serve();
               }},
               128 * 4096);
  Handle c = Open(d.Uri(), Patience(100000));
  Outcome out;
  std::vector<uint8_t> buf(128 * 4096);
  ASSERT_EQ(cachet_read_async(c.get(), 0, buf.data(), buf.size(), Outcome::Read,
                              &out, nullptr),
            CACHET_OK);
  int before;
  while ((before = cachet_timeout_ms(c.get())) > 99700)
    std::this_thread::yield();
  first.Open();
  while (cachet_misses(c.get()) < 128) { // the second half is asked for
    struct pollfd p = {cachet_fd(c.get()), cachet_events(c.get()), 0};
    ASSERT_GE(poll(&p, 1, cachet_timeout_ms(c.get())), 0);
    ASSERT_EQ(cachet_dispatch(c.get()), CACHET_OK);
  }
  EXPECT_GT(cachet_timeout_ms(c.get()), before);
  second.Open();
  RunUntil(c.get(), [&] { return out.n == 1; });
  EXPECT_EQ(out.status, CACHET_OK);
}

TEST(RemoteTest, APrefetchIsJoinedByTheReadThatFollows) {
  std::atomic<int> n_reads{0};
  FakeDaemon d({[&](Peer &p) {
    Request r;
    p.Handshake();
    while (p.Receive(&r)) {
      n_reads++;
      p.Answer(r);
    }
  }});
  Handle c = Open(d.Uri(), Options());
  ASSERT_EQ(cachet_prefetch(c.get(), 0, CACHET_TO_END), CACHET_OK);
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(n_reads, 1);
}

TEST(RemoteTest, AChildsCloseLeavesWhatTheChildPutInThePlaceOfTheSocket) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  int number = cachet_fd(c.get());
  pid_t pid = QuietFork();
  if (pid == 0) {
    int other = open("/dev/null", O_RDONLY);
    bool ok = dup2(other, number) == number;
    cachet_close(c.release());
    _exit(ok && fcntl(number, F_GETFD) >= 0 ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

TEST(RemoteTest, AChildsCloseClosesItsOwnCopyOfTheSocketAlone) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  int number = cachet_fd(c.get());
  pid_t pid = QuietFork();
  if (pid == 0) {
    cachet_close(c.release());
    _exit(fcntl(number, F_GETFD) < 0 ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  ExpectContent(c.get(), d.image.bytes);
  EXPECT_EQ(d.n_connections, 1);
}

TEST(RemoteTest, AChildOfForkIsRefusedAndTheParentGoesOn) {
  FakeDaemon d({ServeAll()});
  Handle c = Open(d.Uri(), Options());
  ExpectContent(c.get(), d.image.bytes);
  pid_t pid = QuietFork();
  if (pid == 0) {
    uint8_t byte;
    bool ok = cachet_get_u8(c.get(), 0, &byte) == CACHET_E_FORKED;
    cachet_close(c.release());
    _exit(ok ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  ASSERT_EQ(cachet_invalidate(c.get(), 0, CACHET_TO_END), CACHET_OK);
  ExpectContent(c.get(), d.image.bytes);
}

} // namespace
