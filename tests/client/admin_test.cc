// Connections to a daemon that open no image: what it serves, its counters.
#include "tests/client/fake_daemon.h"
#include "tests/support/quiet_fork.h"

namespace {

struct AdminClose {
  void operator()(cachet_admin *a) const { cachet_admin_close(a); }
};
using Admin = std::unique_ptr<cachet_admin, AdminClose>;

std::string UriOf(const FakeDaemon &d) {
  return "cachet+unix:///?socket=" + d.path;
}

Admin Connect(const FakeDaemon &d, cachet_options options = Options()) {
  cachet_admin *a = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_admin_open(UriOf(d).c_str(), &options, &a, &err), CACHET_OK)
      << err.message;
  return Admin(a);
}

// An image as a daemon tells of it.
struct Told {
  std::string name;
  uint64_t size = 10000;
  uint32_t page_size = 4096;
  uint64_t epoch = 3;
  bool missing = false;
};

void SendImages(Peer &p, uint64_t id, std::vector<Told> told) {
  std::vector<Cachet__Wire__ImageInfo> infos(told.size());
  std::vector<Cachet__Wire__ImageInfo *> list;
  for (size_t i = 0; i < told.size(); i++) {
    infos[i] = CACHET__WIRE__IMAGE_INFO__INIT;
    infos[i].name = &told[i].name[0];
    infos[i].size = told[i].size;
    infos[i].page_size = told[i].page_size;
    infos[i].epoch = told[i].epoch;
    infos[i].missing = told[i].missing;
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

// Two counters of the daemon's, and one of each of two images.
void SendStats(Peer &p, uint64_t id) {
  Cachet__Wire__Stat stats[4];
  const char *names[] = {"conns", "bytes", "hits", "hits"};
  for (int i = 0; i < 4; i++) {
    stats[i] = CACHET__WIRE__STAT__INIT;
    stats[i].name = const_cast<char *>(names[i]);
    stats[i].value = UINT64_MAX - uint64_t(i);
  }
  Cachet__Wire__Stat *list[] = {&stats[0], &stats[1], &stats[2], &stats[3]};
  Cachet__Wire__ImageStats a = CACHET__WIRE__IMAGE_STATS__INIT, b = a;
  a.name = const_cast<char *>("a");
  a.n_stats = 1;
  a.stats = &list[2];
  b.name = const_cast<char *>("b");
  b.n_stats = 1;
  b.stats = &list[3];
  Cachet__Wire__ImageStats *images[] = {&a, &b};
  Cachet__Wire__Stats all = CACHET__WIRE__STATS__INIT;
  all.n_daemon = 2;
  all.daemon = list;
  all.n_images = 2;
  all.images = images;
  wire_message m = CACHET__WIRE__MESSAGE__INIT;
  m.id = id;
  m.body_case = CACHET__WIRE__MESSAGE__BODY_STATS;
  m.stats = &all;
  p.Send(m);
}

// Answers each List with `told`, and each GetStats.
Script Tell(std::vector<Told> told) {
  return [told](Peer &p) {
    Request r;
    if (!p.Greet())
      return;
    while (p.Receive(&r)) {
      if (r.body == CACHET__WIRE__MESSAGE__BODY_LIST)
        SendImages(p, r.id, told);
      else if (r.body == CACHET__WIRE__MESSAGE__BODY_GET_STATS)
        SendStats(p, r.id);
    }
  };
}

// What a walk has seen.  `then` is called from inside it; its result ends it.
struct Walk {
  std::vector<Told> images;
  std::vector<std::string> counters;
  std::function<int()> then = [] { return 0; };

  static int Image(void *arg, const cachet_image_info *info) {
    auto *w = static_cast<Walk *>(arg);
    EXPECT_EQ(info->struct_size, sizeof *info);
    EXPECT_EQ(info->flags & ~CACHET_IMAGE_MISSING, 0u);
    w->images.push_back({info->name, info->size, info->page_size, info->epoch,
                         (info->flags & CACHET_IMAGE_MISSING) != 0});
    return w->then();
  }
  static int Counter(void *arg, const char *image, const char *name,
                     uint64_t value) {
    auto *w = static_cast<Walk *>(arg);
    w->counters.push_back(std::string(image ? image : "-") + " " + name + " " +
                          std::to_string(UINT64_MAX - value));
    return w->then();
  }
};

TEST(Admin, ListsWhatTheDaemonServes) {
  FakeDaemon d({Tell({{"disk", 10000, 8192, 7}, {"gone", 5, 3, 0, true}})});
  Admin a = Connect(d);
  Walk w;
  ASSERT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
  EXPECT_STREQ(cachet_admin_errmsg(a.get()), "");
  ASSERT_EQ(w.images.size(), 2u);
  EXPECT_EQ(w.images[0].name, "disk");
  EXPECT_EQ(w.images[0].size, 10000u);
  EXPECT_EQ(w.images[0].page_size, 8192u);
  EXPECT_EQ(w.images[0].epoch, 7u);
  EXPECT_FALSE(w.images[0].missing);
  EXPECT_EQ(w.images[1].name, "gone");
  EXPECT_TRUE(w.images[1].missing);
  EXPECT_EQ(w.images[1].size, 0u);
  EXPECT_EQ(w.images[1].page_size, 0u);
}

TEST(Admin, GivesTheDaemonsCountersAndThenThoseOfEachImage) {
  FakeDaemon d({Tell({})});
  Admin a = Connect(d);
  Walk w;
  ASSERT_EQ(cachet_admin_stats(a.get(), Walk::Counter, &w), CACHET_OK);
  std::vector<std::string> expected = {"- conns 0", "- bytes 1", "a hits 2",
                                       "b hits 3"};
  EXPECT_EQ(w.counters, expected);
}

TEST(Admin, AResultThatIsNotZeroEndsTheWalkAndIsNoFailure) {
  FakeDaemon d({Tell({{"a"}, {"b"}, {"c"}})});
  Admin a = Connect(d);
  for (size_t most = 1; most <= 3; most++) {
    Walk w;
    w.then = [&] { return w.images.size() + w.counters.size() == most; };
    EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
    EXPECT_EQ(w.images.size(), most);
    w.images.clear();
    EXPECT_EQ(cachet_admin_stats(a.get(), Walk::Counter, &w), CACHET_OK);
    EXPECT_EQ(w.counters.size(), most);
  }
  EXPECT_EQ(d.n_connections, 1);
}

TEST(Admin, ACallFromInsideAWalkIsRefusedAndTheWalkGoesOn) {
  FakeDaemon d({Tell({{"a"}, {"b"}})});
  Admin a = Connect(d);
  Walk w, inner;
  w.then = [&] {
    EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &inner), CACHET_E_INVAL);
    EXPECT_EQ(cachet_admin_stats(a.get(), Walk::Counter, &inner),
              CACHET_E_INVAL);
    return 0;
  };
  EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
  EXPECT_EQ(w.images.size(), 2u);
  EXPECT_EQ(cachet_admin_stats(a.get(), Walk::Counter, &w), CACHET_OK);
  EXPECT_EQ(w.counters.size(), 4u);
  EXPECT_TRUE(inner.images.empty() && inner.counters.empty());
}

TEST(Admin, AnArgumentThatCanNeverBeRightIsRefused) {
  FakeDaemon d({Tell({})});
  cachet_admin *a = nullptr;
  cachet_error err = {};
  auto open = [&](const std::string &uri, cachet_options o = Options()) {
    return cachet_admin_open(uri.c_str(), &o, &a, &err);
  };
  EXPECT_EQ(open(d.path), CACHET_E_INVAL);
  EXPECT_NE(strstr(err.message, "not a daemon's"), nullptr) << err.message;
  EXPECT_EQ(open(d.Uri()), CACHET_E_INVAL);
  EXPECT_NE(strstr(err.message, "an image, not a daemon"), nullptr)
      << err.message;
  EXPECT_EQ(open(""), CACHET_E_INVAL);
  EXPECT_EQ(open("foo://h/"), CACHET_E_INVAL);
  EXPECT_EQ(open("https://u:secret@h/"), CACHET_E_INVAL);
  EXPECT_STREQ(err.message, "https://h/: not a daemon's");
  EXPECT_EQ(open(UriOf(d), {}), CACHET_E_INVAL); // no struct_size
  EXPECT_EQ(cachet_admin_open(UriOf(d).c_str(), nullptr, nullptr, &err),
            CACHET_E_INVAL);
  EXPECT_EQ(cachet_admin_open(nullptr, nullptr, &a, nullptr), CACHET_E_INVAL);
  EXPECT_EQ(a, nullptr);
  EXPECT_EQ(d.n_connections, 0);
  cachet_admin_close(nullptr);

  Admin good = Connect(d);
  EXPECT_EQ(cachet_admin_list(good.get(), nullptr, nullptr), CACHET_E_INVAL);
  EXPECT_EQ(cachet_admin_stats(good.get(), nullptr, nullptr), CACHET_E_INVAL);
}

TEST(Admin, ADaemonThatIsNotThereIsAnErrorAtOnce) {
  FakeDaemon d({Tell({})});
  d.Stop();
  cachet_admin *a = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_admin_open(UriOf(d).c_str(), nullptr, &a, &err),
            CACHET_E_CONN);
  EXPECT_EQ(err.sys_errno, ENOENT);
  EXPECT_NE(strstr(err.message, d.path.c_str()), nullptr) << err.message;
  EXPECT_EQ(a, nullptr);
}

TEST(Admin, ADaemonThatDoesNotGreetIsATimeOut) {
  FakeDaemon d({[](Peer &p) { p.AwaitEnd(); }});
  cachet_options o = Patience(30000, 50);
  cachet_admin *a = nullptr;
  cachet_error err = {};
  EXPECT_EQ(cachet_admin_open(UriOf(d).c_str(), &o, &a, &err),
            CACHET_E_TIMEOUT);
  EXPECT_EQ(a, nullptr);
}

TEST(Admin, AnAnswerThatDoesNotComeIsATimeOutAndTheNextCallConnectsAgain) {
  FakeDaemon d({[](Peer &p) {
                  p.Greet();
                  p.AwaitEnd();
                },
                Tell({{"a"}})});
  Admin a = Connect(d, Patience(kPatienceMs));
  Walk w;
  EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_E_TIMEOUT);
  EXPECT_TRUE(w.images.empty());
  EXPECT_NE(strstr(cachet_admin_errmsg(a.get()), "no answer in time"), nullptr)
      << cachet_admin_errmsg(a.get());
  EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
  EXPECT_EQ(w.images.size(), 1u);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(Admin, ARefusalOfTheDaemonIsPassedOn) {
  FakeDaemon d({[](Peer &p) {
    Request r;
    p.Greet();
    while (p.Receive(&r))
      p.Error(r.id, CACHET_E_ACCESS, "not\nfor you", EPERM);
  }});
  Admin a = Connect(d);
  Walk w;
  EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_E_ACCESS);
  EXPECT_STREQ(cachet_admin_errmsg(a.get()), "not?for you");
  EXPECT_EQ(cachet_admin_stats(a.get(), Walk::Counter, &w), CACHET_E_ACCESS);
  EXPECT_TRUE(w.images.empty() && w.counters.empty());
  EXPECT_EQ(d.n_connections, 1);
}

// Each is told of behind an image that can be.
class AdminLie : public testing::TestWithParam<Told> {};

TEST_P(AdminLie, EndsTheConnectionAndNoneOfTheAnswerIsSeen) {
  FakeDaemon d({Tell({{"good"}, GetParam()}), Tell({{"good"}})});
  Admin a = Connect(d);
  Walk w;
  EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_E_PROTO);
  EXPECT_NE(strstr(cachet_admin_errmsg(a.get()), d.path.c_str()), nullptr)
      << cachet_admin_errmsg(a.get());
  EXPECT_TRUE(w.images.empty());
  EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
  EXPECT_EQ(w.images.size(), 1u);
  EXPECT_EQ(d.n_connections, 2);
}

INSTANTIATE_TEST_SUITE_P(Images, AdminLie,
                         testing::Values(Told{"x", 1, 0}, Told{"x", 1, 4097},
                                         Told{"x", 1, 1u << 31},
                                         Told{"x", UINT64_MAX},
                                         Told{"x", 1, 4096, 0}));

TEST(Admin, AnAnswerOfAnotherKindEndsTheConnection) {
  FakeDaemon d({[](Peer &p) {
                  Request r;
                  p.Greet();
                  p.Receive(&r);
                  p.Done(r.id);
                  p.AwaitEnd();
                },
                [](Peer &p) {
                  Request r;
                  p.Greet();
                  p.Receive(&r);
                  p.Data(r.id, 1, 0, 0, true, "data", 4);
                  p.AwaitEnd();
                },
                [](Peer &p) {
                  Request r;
                  p.Greet();
                  p.Receive(&r);
                  SendStats(p, r.id + 1);
                  p.AwaitEnd();
                },
                Tell({})});
  Admin a = Connect(d);
  Walk w;
  for (int i = 0; i < 3; i++)
    EXPECT_EQ(cachet_admin_stats(a.get(), Walk::Counter, &w), CACHET_E_PROTO)
        << i;
  EXPECT_TRUE(w.counters.empty());
  EXPECT_EQ(cachet_admin_stats(a.get(), Walk::Counter, &w), CACHET_OK);
  EXPECT_EQ(w.counters.size(), 4u);
}

TEST(Admin, ADaemonThatIsStartedAnewIsConnectedToAgain) {
  FakeDaemon d({Tell({{"a"}})});
  Admin a = Connect(d);
  Walk w;
  ASSERT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
  d.Stop();
  d.Listen();
  ASSERT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
  EXPECT_EQ(w.images.size(), 2u);
  EXPECT_EQ(d.n_connections, 2);
}

TEST(Admin, AChildOfForkIsRefusedAndTheParentGoesOn) {
  FakeDaemon d({Tell({{"a"}})});
  Admin a = Connect(d);
  pid_t pid = QuietFork();
  if (pid == 0) {
    Walk w;
    bool ok = cachet_admin_list(a.get(), Walk::Image, &w) == CACHET_E_FORKED &&
              cachet_admin_stats(a.get(), Walk::Counter, &w) == CACHET_E_FORKED;
    cachet_admin_close(a.release());
    _exit(ok ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  Walk w;
  EXPECT_EQ(cachet_admin_list(a.get(), Walk::Image, &w), CACHET_OK);
  EXPECT_EQ(w.images.size(), 1u);
  EXPECT_EQ(d.n_connections, 1);
}

TEST(Admin, AChildsCloseLeavesTheDescriptorsThatItHasPutInPlace) {
  FakeDaemon d({Tell({{"a"}})});
  int before = dup(0);
  close(before); // the next number
  Admin a = Connect(d);
  struct stat id;
  ASSERT_EQ(fstat(before, &id), 0);
  ASSERT_TRUE(S_ISSOCK(id.st_mode));
  pid_t pid = QuietFork();
  if (pid == 0) {
    int other = open("/dev/null", O_RDONLY);
    bool ok = dup2(other, before) == before;
    cachet_admin_close(a.release());
    _exit(ok && fcntl(before, F_GETFD) >= 0 ? 0 : 1);
  }
  int status;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
}

} // namespace
