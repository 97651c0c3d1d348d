// Rules: what they take, which peers they allow, and which of two is the wider.
#include "daemon/rule.h"

#include <grp.h>
#include <gtest/gtest.h>
#include <pwd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/test_rule.h"

namespace {

std::string WhyNot(const std::string &text) {
  rule *made = nullptr;
  char why[512] = "nothing";
  EXPECT_EQ(rule_parse(nullptr, text.c_str(), &made, why, sizeof why), -EINVAL)
      << text;
  return why;
}

// A peer that is what a test says.
class Peer {
public:
  static Peer Process(uid_t uid, std::vector<gid_t> groups) {
    Peer p;
    p.groups_ = std::move(groups);
    p.peer_.is_here = p.peer_.has_ids = true;
    p.peer_.uid = uid;
    return p;
  }
  static Peer Certificate(std::vector<std::pair<std::string, bool>> names) {
    Peer p;
    p.names_ = std::move(names);
    return p;
  }
  static Peer Here() {
    Peer p;
    p.peer_.is_here = true;
    return p;
  }

  bool MayBy(const Rule &rule) const { return MayBy(rule.get()); }
  bool MayBy(const rule *rule) const {
    peer peer = peer_;
    std::vector<gid_t> groups = groups_;
    std::vector<peer_name> list;
    for (const auto &name : names_)
      list.push_back({const_cast<char *>(name.first.c_str()), name.second});
    peer.groups = groups.data();
    peer.n_groups = groups.size();
    peer.names = list.data();
    peer.n_names = list.size();
    return rule_allows(rule, &peer);
  }

private:
  peer peer_ = {};
  std::vector<gid_t> groups_;
  std::vector<std::pair<std::string, bool>> names_;
};

const Peer kNobody = Peer::Certificate({});

TEST(RuleTest, AnyIsEverybody) {
  Rule rule("any");
  EXPECT_TRUE(Peer::Process(7, {8}).MayBy(rule));
  EXPECT_TRUE(Peer::Here().MayBy(rule));
  EXPECT_TRUE(kNobody.MayBy(rule));
}

TEST(RuleTest, WithoutARuleItIsWhoeverIsOnThisMachine) {
  EXPECT_TRUE(Peer::Process(7, {8}).MayBy(nullptr));
  EXPECT_TRUE(Peer::Here().MayBy(nullptr));
  EXPECT_FALSE(kNobody.MayBy(nullptr));
  EXPECT_FALSE(Peer::Certificate({{"reader", false}}).MayBy(nullptr));
}

TEST(RuleTest, OneWordThatIsTrueIsEnough) {
  Rule rule("uid:7 \t gid:9   cert:reader");
  EXPECT_TRUE(Peer::Process(7, {8}).MayBy(rule));
  EXPECT_TRUE(Peer::Process(6, {1, 9, 12}).MayBy(rule));
  EXPECT_TRUE(Peer::Certificate({{"reader", false}}).MayBy(rule));
  EXPECT_FALSE(Peer::Process(9, {7}).MayBy(rule)) << "a group is no user";
  EXPECT_FALSE(Peer::Process(0, {0}).MayBy(rule)) << "nor is root";
  EXPECT_FALSE(Peer::Certificate({{"writer", false}}).MayBy(rule));
  EXPECT_FALSE(Peer::Here().MayBy(rule));
  EXPECT_FALSE(kNobody.MayBy(rule));
}

TEST(RuleTest, ZeroIsRootAndNotWhoIsUnknown) {
  Rule rule("uid:0 gid:0");
  EXPECT_TRUE(Peer::Process(0, {1}).MayBy(rule));
  EXPECT_TRUE(Peer::Process(1, {0}).MayBy(rule));
  EXPECT_FALSE(Peer::Here().MayBy(rule));
  EXPECT_FALSE(kNobody.MayBy(rule));
}

TEST(RuleTest, UsersAndGroupsGoByTheirNames) {
  const passwd *user = getpwuid(1);
  const group *group = getgrgid(1);
  ASSERT_TRUE(user && group);
  EXPECT_TRUE(
      Peer::Process(1, {9}).MayBy(Rule(std::string("user:") + user->pw_name)));
  EXPECT_TRUE(Peer::Process(9, {1}).MayBy(
      Rule(std::string("group:") + group->gr_name)));
  EXPECT_FALSE(
      Peer::Process(9, {1}).MayBy(Rule(std::string("user:") + user->pw_name)));
}

TEST(RuleTest, ANameIsComparedWholeAndAHostsInEitherCase) {
  Rule rule("cert:Reader.Example");
  EXPECT_TRUE(
      Peer::Certificate({{"x", false}, {"reader.example", true}}).MayBy(rule));
  EXPECT_FALSE(Peer::Certificate({{"reader.example", false}}).MayBy(rule));
  EXPECT_TRUE(Peer::Certificate({{"Reader.Example", false}}).MayBy(rule));
  EXPECT_FALSE(Peer::Certificate({{"Reader.Example.", true},
                                  {"Reader", true},
                                  {"*.Example", true},
                                  {"Reader.Exampl", true}})
                   .MayBy(rule));
}

TEST(RuleTest, AnAddressIsTheSameHoweverItIsWritten) {
  EXPECT_TRUE(Peer::Certificate({{"2001:db8::1", false}})
                  .MayBy(Rule("cert:2001:DB8:0:0::1")));
  EXPECT_TRUE(
      Peer::Certificate({{"192.0.2.1", false}}).MayBy(Rule("cert:192.0.2.1")));
  EXPECT_TRUE(Peer::Certificate({{"spiffe://a/b", false}})
                  .MayBy(Rule("cert:spiffe://a/b")));
}

TEST(RuleTest, WhatItIsMadeOverStays) {
  auto first = std::make_unique<Rule>("uid:1 cert:a");
  Rule second("uid:2", first->get());
  first.reset();
  EXPECT_TRUE(Peer::Process(1, {}).MayBy(second));
  EXPECT_TRUE(Peer::Process(2, {}).MayBy(second));
  EXPECT_TRUE(Peer::Certificate({{"a", false}}).MayBy(second));
}

TEST(RuleTest, AMistakeIsToldByItsWord) {
  for (const char *text : {"", " \t "})
    EXPECT_EQ(WhyNot(text).find("\"\": it allows nobody; it takes any, "), 0u);
  for (const char *text : {"all", "anyone", "Any", "uid", "uid 7", "=uid:7"})
    EXPECT_NE(WhyNot(text).find("it must be any, uid:N, "), std::string::npos);
  for (const char *text : {"uid:", "user:", "gid:", "group:", "cert:"})
    EXPECT_EQ(WhyNot(std::string("any ") + text),
              '"' + std::string(text) + "\": it names nobody");
  for (const char *id : {"x", "-1", "+1", "0x1", "1,2", "4294967295",
                         "4294967296", "99999999999999999999"})
    for (const char *kind : {"uid:", "gid:"})
      EXPECT_EQ(WhyNot(std::string(kind) + id),
                '"' + std::string(kind) + id +
                    "\": not a number from 0 to 4294967294");
  EXPECT_EQ(WhyNot("uid:1 user:no-such-user"),
            "\"user:no-such-user\": there is no user of that name");
  EXPECT_EQ(WhyNot("group:no-such-group"),
            "\"group:no-such-group\": there is no group of that name");
}

TEST(RuleTest, IdsOfNobodyAreRefused) {
  for (const char *text : {"uid:65534", "gid:65534", "user:nobody"})
    EXPECT_NE(WhyNot(text).find("so it is nobody's"), std::string::npos);
}

TEST(RuleTest, ThereIsALimitOnWords) {
  std::string text;
  for (int i = 0; i < RULE_MAX_TERMS; i++)
    text += "uid:" + std::to_string(i) + " ";
  EXPECT_TRUE(Peer::Process(255, {}).MayBy(Rule(text + "uid:7 uid:8")))
      << "one that is there already is no further one";
  EXPECT_EQ(WhyNot(text + "uid:256").find("\"uid:256\": there are 256"), 0u);
}

TEST(RuleTest, TheWiderOfTwoHasAllWordsOfTheOther) {
  Rule any("any"), one("uid:1"), two("uid:2 uid:1"), name("cert:a");
  EXPECT_TRUE(rule_covers(two.get(), one.get()));
  EXPECT_FALSE(rule_covers(one.get(), two.get()));
  EXPECT_TRUE(rule_covers(one.get(), Rule("uid:1 uid:1").get()));
  EXPECT_FALSE(rule_covers(one.get(), Rule("gid:1").get()));
  EXPECT_FALSE(rule_covers(name.get(), Rule("cert:b").get()));
  for (const Rule *rule : {&any, &one, &two, &name})
    EXPECT_TRUE(rule_covers(any.get(), rule->get()));
  EXPECT_FALSE(rule_covers(two.get(), any.get()));
}

TEST(RuleTest, NoRuleIsWiderThanOneOfUsersAndGroups) {
  Rule any("any"), ids("uid:1 gid:1"), name("uid:1 cert:a");
  EXPECT_TRUE(rule_covers(nullptr, nullptr));
  EXPECT_TRUE(rule_covers(any.get(), nullptr));
  EXPECT_TRUE(rule_covers(nullptr, ids.get()));
  EXPECT_FALSE(rule_covers(ids.get(), nullptr));
  EXPECT_FALSE(rule_covers(nullptr, name.get()));
  EXPECT_FALSE(rule_covers(nullptr, any.get()));
}

TEST(RuleTest, ItsNumberIsOfItsWordsInWhateverOrder) {
  auto number = [](const std::string &text) {
    return rule_number(Rule(text).get());
  };
  EXPECT_EQ(number("uid:1 cert:a"), number("cert:a uid:1 uid:1"));
  std::set<uint64_t> all = {rule_number(nullptr)};
  for (const char *text : {"any", "uid:1", "gid:1", "uid:2", "uid:1 uid:2",
                           "cert:1", "cert:a", "cert:A", "cert:a any", "uid:0"})
    all.insert(number(text));
  EXPECT_EQ(all.size(), 11u);
}

// ---- The peer ---------------------------------------------------------------

// What a process that becomes this user, with these groups, is to a server.
template <typename Check>
void LookAtProcess(uid_t uid, gid_t gid, const std::vector<gid_t> &groups,
                   Check check) {
  int fds[2]; // each end of a pair is its maker's
  pid_t child = fork();
  if (child == 0) {
    bool ok = setgroups(groups.size(), groups.data()) == 0 &&
              setresgid(gid, gid, gid) == 0 && setresuid(uid, uid, uid) == 0 &&
              socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0;
    peer peer = {};
    ok = ok && peer_learn_process(&peer, fds[0]) == 0;
    _exit(ok && check(&peer) ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

TEST(PeerTest, AProcessIsItsUserInAllItsGroups) {
  if (geteuid() != 0)
    GTEST_SKIP() << "it takes root to become somebody";
  LookAtProcess(1234, 5, {9, 7, 9, 12345}, [](const peer *peer) {
    return peer_is_user(peer, 1234) && !peer_is_user(peer, 0) &&
           peer_is_in_group(peer, 5) && peer_is_in_group(peer, 7) &&
           peer_is_in_group(peer, 9) && peer_is_in_group(peer, 12345) &&
           !peer_is_in_group(peer, 0) && !peer_is_in_group(peer, 1234) &&
           peer_held(peer) == 4 * sizeof(gid_t);
  });
}

TEST(PeerTest, AProcessWithoutFurtherGroupsIsInItsOwn) {
  if (geteuid() != 0)
    GTEST_SKIP() << "it takes root to become somebody";
  LookAtProcess(1234, 5, {}, [](const peer *peer) {
    return peer_is_in_group(peer, 5) && peer->n_groups == 1;
  });
}

TEST(PeerTest, IdsThatStandForOthersAreNobodys) {
  if (geteuid() != 0)
    GTEST_SKIP() << "it takes root to become somebody";
  LookAtProcess(65534, 65534, {65534, 7}, [](const peer *peer) {
    return !peer_is_user(peer, 65534) && !peer_is_in_group(peer, 65534) &&
           peer_is_in_group(peer, 7);
  });
}

TEST(PeerTest, WhatIsNoUnixSocketHasNoIds) {
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  peer peer = {};
  EXPECT_EQ(peer_learn_process(&peer, fd), 0);
  EXPECT_FALSE(peer_is_user(&peer, 0));
  EXPECT_FALSE(peer_is_user(&peer, static_cast<uid_t>(-1)));
  EXPECT_FALSE(peer_is_in_group(&peer, 0));
  EXPECT_FALSE(peer_is_in_group(&peer, static_cast<gid_t>(-1)));
  peer_fini(&peer);
  close(fd);
}

} // namespace
