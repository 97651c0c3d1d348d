// Configuration files as text, and what they and the command line add up to.
#include "daemon/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "daemon/config_check.h"
#include "daemon/config_tree.h"
#include "daemon/options.h"
#include "tests/support/daemon_process.h"
#include "tests/support/fake_kind.h"

namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

class ConfigTest : public testing::Test {
protected:
  ConfigTest() {
    config_init(&config_);
    config_.kinds = fake_kinds;
  }
  ~ConfigTest() override { config_fini(&config_); }

  // What is wrong so far.
  static std::vector<std::string> Take(config_errors *errors) {
    std::vector<std::string> messages(errors->messages,
                                      errors->messages + errors->n);
    if (errors->n_more)
      messages.push_back("and " + std::to_string(errors->n_more) + " more");
    config_errors_fini(errors);
    return messages;
  }

  // Reads a text as the next file; what is wrong with it.
  std::vector<std::string> Read(const std::string &text,
                                const std::string &name = "f") {
    config_errors errors = {};
    // A copy of its own, so that a read past the end is seen.
    std::unique_ptr<char[]> bytes(new char[text.size()]);
    std::copy(text.begin(), text.end(), bytes.get());
    config_file_parse(&config_, name.c_str(), bytes.get(), text.size(),
                      &errors);
    return Take(&errors);
  }

  std::vector<std::string> Check() {
    config_errors errors = {};
    config_check(&config_, &errors);
    return Take(&errors);
  }

  // Whether an image has a value of that setting.
  bool IsGiven(unsigned setting) const {
    return std::any_of(config_.images, config_.images + config_.n_images,
                       [setting](const config_image &image) {
                         return image.origins[setting].line > 0;
                       });
  }

  // Whether a process of that user and group may.
  static bool Allows(const rule *rule, uid_t uid, gid_t gid) {
    peer peer = {};
    peer.is_here = peer.has_ids = true;
    peer.uid = uid;
    peer.groups = &gid;
    peer.n_groups = 1;
    return rule_allows(rule, &peer);
  }

  config config_;
};

TEST_F(ConfigTest, EverySettingHasAKey) {
  ASSERT_THAT(Read("[cache]\n"
                   "size = 3G\n"
                   "min-size = 1G\n"
                   "shrink-on-pressure = yes\n"
                   "page-size = 64K\n"
                   "share = off\n"
                   "workers = 5\n"
                   "[listen]\n"
                   "address = unix:/run/a.sock\n"
                   "address = tcp:[::1]:7\n"
                   "address = tls:192.0.2.1:8\n"
                   "insecure = yes\n"
                   "drain-timeout = 90\n"
                   "[tls]\n"
                   "certificate = /etc/c.pem\n"
                   "key = /etc/k.pem\n"
                   "client-ca = /etc/ca.pem\n"
                   "require-client-certificate = no\n"
                   "[images]\n"
                   "directory = /srv/images/\n"
                   "directory = /\n"
                   "allow = uid:1 gid:2\n"
                   "[admin]\n"
                   "allow = user:root\n"
                   "[metrics]\n"
                   "address = unix:/run/m.sock\n"
                   "[log]\n"
                   "level = debug\n"
                   "[image vm7]\n"
                   "source = file:/srv/a%20b\n"
                   "offset = 1M\n"
                   "length = 0x200\n"
                   "share = on\n"
                   "page-size = 128K\n"
                   "huge = off\n"
                   "fetch-size = 1M\n"
                   "fetch-size-max = 4M\n"
                   "warm = yes\n"
                   "allow = cert:reader any\n"
                   "verity-root = " +
                   std::string(64, 'a') +
                   "\n"
                   "verity-tree = /srv/tree\n"
                   "verity-offset = 1M\n"
                   "[image b]\n"
                   "source = /srv/b\n"
                   "max-age = 60\n"
                   "[image c]\n"
                   "source = /srv/c\n"
                   "sha256 = " +
                   std::string(64, 'b') +
                   "\n"
                   "[image d]\n"
                   "source = fake://h/d\n"
                   "max-requests = 9\n"),
              IsEmpty());
  EXPECT_THAT(Check(), IsEmpty());
  for (unsigned i = 0; i < CONFIG_N_SETTINGS; i++)
    EXPECT_TRUE(config_.origins[i].line)
        << config_settings[i].section << " " << config_settings[i].key
        << " is missing above";
  for (unsigned i = 0; i < CONFIG_N_IMAGE_SETTINGS; i++)
    EXPECT_TRUE(IsGiven(i))
        << config_image_settings[i].key << " is missing above";
  EXPECT_EQ(config_.cache_size, 3ull << 30);
  EXPECT_EQ(config_.min_size, 1ull << 30);
  EXPECT_TRUE(config_.shrinks);
  EXPECT_EQ(config_.page_size, 65536u);
  EXPECT_EQ(config_.n_workers, 5u);
  EXPECT_EQ(config_.log_level, LEVEL_DEBUG);
  ASSERT_EQ(config_.n_listen, 3u);
  EXPECT_STREQ(config_.listen[0].un.sun_path, "/run/a.sock");
  EXPECT_EQ(config_.listen[1].generic.sa_family, AF_INET6);
  EXPECT_FALSE(config_.listen[1].is_tls);
  EXPECT_TRUE(config_.listen[2].is_tls);
  EXPECT_TRUE(config_.insecure);
  EXPECT_EQ(config_.drain_timeout_s, 90u);
  EXPECT_STREQ(config_.tls.certificate, "/etc/c.pem");
  EXPECT_STREQ(config_.tls.key, "/etc/k.pem");
  EXPECT_STREQ(config_.tls.client_ca, "/etc/ca.pem");
  EXPECT_FALSE(config_.tls.requires_client);
  ASSERT_EQ(config_.n_directories, 2u);
  EXPECT_STREQ(config_.directories[0], "/srv/images");
  EXPECT_STREQ(config_.directories[1], "/");
  EXPECT_TRUE(Allows(config_.allow, 1, 9));
  EXPECT_TRUE(Allows(config_.allow, 9, 2));
  EXPECT_FALSE(Allows(config_.allow, 0, 0));
  EXPECT_TRUE(Allows(config_.admin, 0, 0));
  EXPECT_FALSE(Allows(config_.admin, 1, 2));
  EXPECT_STREQ(config_.metrics.un.sun_path, "/run/m.sock");
  ASSERT_EQ(config_.n_images, 4u);
  const config_image *image = config_find_image(&config_, "vm7");
  ASSERT_TRUE(image);
  EXPECT_STREQ(image->path, "/srv/a b");
  EXPECT_EQ(image->window.offset, 1u << 20);
  EXPECT_EQ(image->window.length, 0x200u);
  EXPECT_EQ(image->verity.root_len, 32u);
  EXPECT_EQ(image->verity.root[31], 0xaa);
  EXPECT_STREQ(image->verity.tree_path, "/srv/tree");
  EXPECT_EQ(image->verity.tree_offset, 1u << 20);
  EXPECT_EQ(config_page_size(&config_, image), 128u << 10);
  EXPECT_EQ(config_image_fetch_size(image).least, 1u << 20);
  EXPECT_EQ(config_image_fetch_size(image).most, 4u << 20);
  EXPECT_TRUE(image->warm);
  EXPECT_TRUE(config_shares(&config_, image));
  EXPECT_TRUE(Allows(image->allow, 9, 9));
  EXPECT_EQ(config_find_image(&config_, "b")->max_age_s, 60u);
  EXPECT_EQ(config_find_image(&config_, "d")->max_requests, 9u);
  EXPECT_TRUE(config_find_image(&config_, "c")->verity.is_whole);
  EXPECT_EQ(config_find_image(&config_, "c")->verity.sha256[31], 0xbb);
  EXPECT_FALSE(config_find_image(&config_, "b")->allow);
  EXPECT_FALSE(config_shares(&config_, config_find_image(&config_, "b")));
}

TEST_F(ConfigTest, DirectoriesAreNamedFromTheRootOnAndAreEnoughToServe) {
  EXPECT_THAT(Read("[images]\ndirectory = images\ndirectory = /a\n", "f"),
              ElementsAre("f:2: directory: \"images\": a directory is named "
                          "from / on"));
  EXPECT_THAT(Check(), IsEmpty());
  ASSERT_THAT(Read("[images]\ndirectory = /b\n", "g"), IsEmpty());
  ASSERT_EQ(config_.n_directories, 1u) << "a list is replaced as a whole";
  EXPECT_STREQ(config_.directories[0], "/b");
}

TEST_F(ConfigTest, EverySettingHasAnOption) {
  for (const config_setting &s : config_settings)
    EXPECT_THAT(options_usage, HasSubstr(std::string("--") + s.option + " "));
  for (const config_image_setting &s : config_image_settings) {
    // The source is what the options follow.
    if (&s != &config_image_settings[CONFIG_IMAGE_SOURCE]) {
      EXPECT_THAT(options_usage, HasSubstr("," + std::string(s.key) + "="));
    }
  }
}

// Two values of each setting of an image.
std::vector<std::string> TwoValues(const std::string &key) {
  static const std::map<std::string, std::vector<std::string>> all = {
      {"source", {"/srv/a", "/srv/b"}},
      {"share", {"on", "off"}},
      {"warm", {"yes", "no"}},
      {"max-age", {"1", "2"}},
      {"page-size", {"4K", "8K"}},
      {"huge", {"on", "off"}},
      {"fetch-size", {"4K", "8K"}},
      {"fetch-size-max", {"4K", "8K"}},
      {"max-requests", {"1", "2"}},
      {"offset", {"1", "2"}},
      {"length", {"1", "2"}},
      {"allow", {"uid:1", "uid:2"}},
      {"verity-root", {std::string(64, '1'), std::string(64, '2')}},
      {"verity-tree", {"/srv/a", "/srv/b"}},
      {"verity-offset", {"512", "1024"}},
      {"sha256", {std::string(64, '1'), std::string(64, '2')}},
  };
  auto found = all.find(key);
  return found == all.end() ? std::vector<std::string>() : found->second;
}

TEST_F(ConfigTest, AReloadSeesEachSettingThatTheTableSaysItCompares) {
  for (unsigned i = 0; i < CONFIG_N_IMAGE_SETTINGS; i++) {
    const config_image_setting &s = config_image_settings[i];
    const std::vector<std::string> values = TwoValues(s.key);
    ASSERT_THAT(values, SizeIs(2)) << s.key;
    config_image a, b;
    char why[CONFIG_WHY_LEN];
    config_image_init(&a, fake_kinds);
    config_image_init(&b, fake_kinds);
    const config_origin origin = {nullptr, 1, nullptr};
    ASSERT_EQ(config_image_set(&a, i, values[0].c_str(), origin, why), 0);
    ASSERT_EQ(config_image_set(&b, i, values[0].c_str(), origin, why), 0);
    EXPECT_TRUE(config_image_is_same(&a, &b)) << s.key;
    ASSERT_EQ(config_image_set(&b, i, values[1].c_str(), origin, why), 0);
    EXPECT_EQ(config_image_is_same(&a, &b), !s.is_same) << s.key;
    config_image_fini(&a);
    config_image_fini(&b);
  }
}

TEST_F(ConfigTest, BlanksCommentsAndTheEndsOfLinesMayBeAsTheyLike) {
  ASSERT_THAT(Read("\xef\xbb\xbf# an editor began this with a mark\r\n"
                   "\r\n"
                   "  [ cache ]  ; the memory\r\n"
                   "\tsize=1G\r\n"
                   "   workers : 3 ; not one for each processor\r\n"
                   "; " +
                   std::string(1000, 'x') +
                   "\n"
                   "[image\t a ]# no end of line\n"
                   "source = /srv/a;b#c"),
              IsEmpty());
  EXPECT_EQ(config_.cache_size, 1u << 30);
  EXPECT_EQ(config_.n_workers, 3u);
  EXPECT_STREQ(config_find_image(&config_, "a")->path, "/srv/a;b#c");
}

// It would be a path that does not exist.
TEST_F(ConfigTest, AHashBehindAValueIsNoCommentAndIsRefused) {
  EXPECT_THAT(Read("[images]\n"
                   "directory = /srv/images   # all of them\n"
                   "[image a]\n"
                   "source = /srv/a#b\n"
                   "share = on # yes\n"),
              ElementsAre("f:2: directory: behind a value a comment begins "
                          "with \";\", not with \"#\"",
                          StartsWith("f:5: share: behind a value")));
  EXPECT_STREQ(config_find_image(&config_, "a")->path, "/srv/a#b");
}

TEST_F(ConfigTest, AFileOfNothingSetsNothing) {
  EXPECT_THAT(Read(""), IsEmpty());
  EXPECT_THAT(Read("\n"), IsEmpty());
  EXPECT_THAT(Read("\xef\xbb\xbf"), IsEmpty());
  EXPECT_THAT(Read("[cache]\n[listen]\n[log]\n"), IsEmpty());
  EXPECT_EQ(config_.cache_size, 256u << 20);
  EXPECT_THAT(Check(), ElementsAre(HasSubstr("no image to serve")));
}

TEST_F(ConfigTest, ASectionMayBeThereAgainButNoKey) {
  EXPECT_THAT(Read("[cache]\nsize = 1M\n"
                   "[log]\nlevel = info\n"
                   "[cache]\nworkers = 1\n"
                   "size = 2M\n"),
              ElementsAre("f:7: size is in line 2 already; remove one"));
  EXPECT_EQ(config_.n_workers, 1u);
}

TEST_F(ConfigTest, AnImageIsInOneSectionOfAFile) {
  EXPECT_THAT(Read("[image a]\nsource = /a\n[image b]\nsource = /b\n"
                   "[image a]\nshare = off\nbogus = 1\n"),
              ElementsAre("f:5: [image a] is in line 1 already; choose "
                          "another name"));
}

TEST_F(ConfigTest, ALaterFileWinsKeyByKey) {
  ASSERT_THAT(Read("[cache]\nsize = 1M\nworkers = 3\n"
                   "[listen]\naddress = unix:/a\naddress = unix:/b\n"
                   "[image a]\nsource = /a\noffset = 4K\n",
                   "first"),
              IsEmpty());
  ASSERT_THAT(Read("[cache]\nsize = 2M\n"
                   "[listen]\naddress = unix:/c\naddress = unix:/d\n"
                   "[image a]\noffset = 8K\nshare = off\n"
                   "[image b]\nsource = /b\n",
                   "second"),
              IsEmpty());
  EXPECT_THAT(Check(), IsEmpty());
  EXPECT_EQ(config_.cache_size, 2u << 20);
  EXPECT_EQ(config_.n_workers, 3u);
  ASSERT_EQ(config_.n_listen, 2u) << "a list is replaced as a whole";
  EXPECT_STREQ(config_.listen[0].un.sun_path, "/c");
  EXPECT_STREQ(config_.listen[1].un.sun_path, "/d");
  ASSERT_EQ(config_.n_images, 2u);
  EXPECT_STREQ(config_.images[0].path, "/a");
  EXPECT_EQ(config_.images[0].window.offset, 8192u);
  EXPECT_EQ(config_.images[0].share, SHARE_OFF);
}

TEST_F(ConfigTest, AWrongValueIsSaidAlsoIfALaterFileHasARightOne) {
  EXPECT_THAT(Read("[cache]\nsize = x\n", "first"), SizeIs(1));
  EXPECT_THAT(Read("[cache]\nsize = 1M\n", "second"), IsEmpty());
}

TEST_F(ConfigTest, EveryMistakeHasItsLine) {
  EXPECT_THAT(
      Read("size = 1M\n"            // 1
           "[cache]\n"              // 2
           "size = 500%\n"          // 3
           "SIZE = 1M\n"            // 4
           "workers\n"              // 5
           "= 7\n"                  // 6
           "page-size = 5000\n"     // 7
           "[nbd]\n"                // 8
           "key = /x\n"             // 9: of a section that is not known
           "[image]\n"              // 10
           "[image a b]\n"          // 11
           "[image a\n"             // 12
           "[image a] share = on\n" // 13
           "[image a]\n"            // 14
           "deny = any\n"           // 15
           "no-such-key = 4K\n"     // 16
           "[image b]\n"            // 17
           "source = b.img\n"       // 18
           "[listen]\n"             // 19
           "address = unix:s\n"     // 20
           "address = tls\n"        // 21
           "address = tcp:0.0.0.0:1\n"),
      ElementsAre(
          "f:1: \"size\" is in no section; write [SECTION] before it",
          "f:3: size: \"500%\": not a part from 1% to 100%",
          "f:4: unknown key \"SIZE\" in [cache]; there are size, min-size, "
          "shrink-on-pressure, page-size, "
          "share, workers",
          "f:5: neither [SECTION] nor KEY = VALUE",
          StartsWith("f:6: unknown key \"\" in [cache]"),
          "f:7: page-size: \"5000\": not a power of two from 4K to 2M",
          "f:8: unknown section [nbd]; there are cache, listen, tls, images, "
          "admin, metrics, log, image NAME",
          StartsWith("f:10: \"\" cannot be the name of an image"),
          StartsWith("f:11: \"a b\" cannot be the name of an image"),
          "f:12: a section is a line of its own, [SECTION]",
          "f:13: a section is a line of its own, [SECTION]",
          "f:15: unknown key \"deny\" in [image NAME]; there are source, "
          "share, warm, max-age, page-size, huge, fetch-size, "
          "fetch-size-max, max-requests, offset, length, allow, "
          "verity-root, verity-tree, verity-offset, sha256",
          StartsWith("f:16: unknown key \"no-such-key\" in [image NAME]"),
          "f:18: source: \"b.img\": a path in a configuration file begins "
          "with /",
          "f:20: address: \"unix:s\": a path in a configuration file begins "
          "with /",
          HasSubstr("f:21: address: address \"tls\": it must be unix:PATH")));
  EXPECT_THAT(Check(), ElementsAre(HasSubstr("only loopback is allowed"),
                                   "f:14: image \"a\" has no source; write "
                                   "source = PATH"))
      << "a refused source was given all the same";
}

TEST_F(ConfigTest, OnTheNetworkIsTLSUnlessTheConfigurationSaysOtherwise) {
  const std::string image = "[image a]\nsource = /a\n[listen]\n";
  EXPECT_THAT(Read(image + "address = tcp:192.0.2.1:7\n"
                           "address = tcp:127.0.0.1:7\n"),
              IsEmpty());
  EXPECT_THAT(Check(), ElementsAre(StartsWith(
                           "f:4: address: address \"tcp:192.0.2.1:7\": only "
                           "loopback is allowed without TLS")));
  EXPECT_THAT(Read("[listen]\ninsecure = yes\n", "g"), IsEmpty());
  EXPECT_THAT(Check(), IsEmpty());
  EXPECT_THAT(Read("[listen]\ninsecure = on\n", "h"),
              ElementsAre("h:2: insecure: \"on\": it must be yes or no"));
}

TEST_F(ConfigTest, MetricsAreForThisHostAlone) {
  for (const char *address :
       {"tcp:192.0.2.1:9", "tcp:[::]:9", "tls:127.0.0.1:9", "tls:"})
    EXPECT_THAT(Read(std::string("[metrics]\naddress = ") + address + "\n"),
                ElementsAre(HasSubstr("it must be unix:PATH, or tcp: on "
                                      "loopback")));
  EXPECT_THAT(Read("[metrics]\naddress = unix:m\n"),
              ElementsAre(HasSubstr("begins with /")));
  EXPECT_THAT(Read("[metrics]\naddress = http\n"), SizeIs(1));
  EXPECT_EQ(config_.metrics.len, 0u);
  EXPECT_THAT(Read("[metrics]\naddress = tcp:[::1]:9\n"), IsEmpty());
}

TEST_F(ConfigTest, TLSNeedsCertificates) {
  EXPECT_THAT(Read("[image a]\nsource = /a\n[listen]\naddress = tls:\n"
                   "address = tls:[::]:7\n"),
              IsEmpty());
  EXPECT_THAT(Check(), ElementsAre(StartsWith(
                           "f:4: address: TLS needs a certificate; ")));
  EXPECT_THAT(Read("[tls]\ncertificate = c.pem\n", "g"),
              ElementsAre(StartsWith("g:2: certificate: \"c.pem\": a path")));
  EXPECT_THAT(Read("[tls]\ncertificate = /c.pem\n", "g2"), IsEmpty());
  EXPECT_THAT(Check(),
              ElementsAre(StartsWith("f:4: address: clients have to show")));
  EXPECT_THAT(Read("[tls]\nclient-ca = /ca.pem\n", "h"), IsEmpty());
  EXPECT_THAT(Check(), IsEmpty());
}

TEST_F(ConfigTest, WithoutClientCertificatesEverybodyIsLetInOnPurpose) {
  EXPECT_THAT(Read("[image a]\nsource = /a\n[listen]\naddress = tls:\n"
                   "[tls]\ncertificate = /c.pem\n"
                   "require-client-certificate = no\n"),
              IsEmpty());
  EXPECT_THAT(Check(), IsEmpty());
}

TEST_F(ConfigTest, ARuleThatIsWrongHasItsLine) {
  EXPECT_THAT(
      Read("[images]\nallow = uid:0 nobody\n"
           "[admin]\nallow = user:no-such-user\n"
           "[image a]\nsource = /a\nallow = group:no-such-group\n"),
      ElementsAre("f:2: allow: \"nobody\": it must be any, uid:N, user:NAME, "
                  "gid:N, group:NAME or cert:NAME",
                  "f:4: allow: \"user:no-such-user\": there is no user of "
                  "that name",
                  "f:7: allow: \"group:no-such-group\": there is no group of "
                  "that name"));
}

TEST_F(ConfigTest, TheRulesOfAFileAddUpAndReplaceThoseOfFilesBefore) {
  ASSERT_THAT(Read("[images]\nallow = uid:1\nallow = uid:2\n", "f"), IsEmpty());
  EXPECT_TRUE(Allows(config_.allow, 1, 9));
  EXPECT_TRUE(Allows(config_.allow, 2, 9));
  ASSERT_THAT(Read("[images]\nallow = uid:3\n", "g"), IsEmpty());
  EXPECT_FALSE(Allows(config_.allow, 1, 9));
  EXPECT_TRUE(Allows(config_.allow, 3, 9));
}

TEST_F(ConfigTest, ALaterRuleOfAnImageReplacesTheOneBefore) {
  ASSERT_THAT(Read("[image a]\nsource = /a\nallow = uid:1\n", "f"), IsEmpty());
  ASSERT_THAT(Read("[image a]\nallow = uid:2\n", "g"), IsEmpty());
  EXPECT_FALSE(Allows(config_.images[0].allow, 1, 9));
  EXPECT_TRUE(Allows(config_.images[0].allow, 2, 9));
}

TEST_F(ConfigTest, AMessageHasWhatWasWrittenAndNotWhatItDecodesTo) {
  EXPECT_THAT(Read("[image a]\nsource = file:a%0Ab\n"),
              ElementsAre("f:2: source: \"file:a%0Ab\": a path in a "
                          "configuration file begins with /"));
}

TEST_F(ConfigTest, AnUnknownKeyIsNotTakenFromTheSectionBefore) {
  EXPECT_THAT(Read("[cache]\n[metric]\nsize = 1M\n[log]\nsize = 1M\n"),
              ElementsAre(StartsWith("f:2: unknown section [metric]"),
                          StartsWith("f:5: unknown key \"size\" in [log]")));
  EXPECT_EQ(config_.cache_size, 256u << 20);
}

TEST_F(ConfigTest, ALineIsWholeOrRefused) {
  std::string path(198 - strlen("source = "), 'p');
  path[0] = '/';
  ASSERT_THAT(Read("[image a]\nsource = " + path + "\n"), IsEmpty());
  EXPECT_EQ(config_.images[0].path, path);
  EXPECT_THAT(Read("[image b]\nsource = " + path + "p\nshare = x\n", "g"),
              ElementsAre("g:2: a line of 199 bytes; it can have 198",
                          StartsWith("g:3: share")));
}

TEST_F(ConfigTest, ANameMayHaveAllOfIts64Bytes) {
  std::string name(64, 'n');
  ASSERT_THAT(Read("[image " + name + "]\nsource = /a\n"), IsEmpty());
  EXPECT_EQ(config_.images[0].name, name);
  EXPECT_THAT(Read("[image n" + name + "]\nsource = /a\n", "g"),
              ElementsAre(HasSubstr("cannot be the name of an image")));
}

TEST_F(ConfigTest, WhatIsNoTextIsRefusedInOneLine) {
  EXPECT_THAT(Read("\x7f\x45LF\x02\x01\n[cache]\n\nsize=x\n"),
              ElementsAre("f:1: it has a byte that no text has; the rest of "
                          "the file is not read"));
  std::string nul = "[log]\nlevel = in";
  nul += '\0';
  EXPECT_THAT(Read(nul + "fo\n"),
              ElementsAre(StartsWith("f:2: it has a byte")));
  EXPECT_THAT(Read("[log]\rlevel = info\r"),
              ElementsAre(StartsWith("f:1: it has a byte")))
      << "lines end in LF, or CR LF";
}

TEST_F(ConfigTest, NoNumberOfMistakesMakesMoreThanSoManyMessages) {
  std::string text;
  for (int i = 0; i < 100000; i++)
    text += "%\n";
  std::vector<std::string> wrong = Read(text);
  ASSERT_THAT(wrong, SizeIs(CONFIG_MAX_ERRORS + 1));
  EXPECT_EQ(wrong.back(), "and 99950 more");
}

TEST_F(ConfigTest, ThereIsALimitOnImagesAndAddresses) {
  std::string text = "[listen]\n";
  for (int i = 0; i <= CONFIG_MAX_LISTEN; i++)
    text += "address = unix:/s" + std::to_string(i) + "\n";
  for (int i = 0; i <= CONFIG_MAX_IMAGES; i++)
    text += "[image n" + std::to_string(i) + "]\nsource = /a\n";
  EXPECT_THAT(
      Read(text),
      ElementsAre("f:18: address: \"unix:/s16\": more than 16 addresses",
                  "f:8211: [image n4096]: more than 4096 images"));
}

TEST_F(ConfigTest, ACacheOfLessThanTwoPagesIsSaidOfWhatWasGiven) {
  Read("[image a]\nsource = /a\n[cache]\nsize = 1K\n");
  EXPECT_THAT(Check(), ElementsAre("f:4: size: a cache of 1024 bytes is less "
                                   "than two pages of 4096 bytes"));
}

// ---- Sources by URI --------------------------------------------------------

TEST_F(ConfigTest, AURIAndTheOptionsOfItsSourceStandInAnyOrder) {
  ASSERT_THAT(Read("[image a]\nca = /ca.pem\nwarm = yes\n"
                   "source = fake://me:secret@h/a?b=c\ndepth = 4\n"),
              IsEmpty());
  ASSERT_THAT(Check(), IsEmpty());
  const config_image &image = config_.images[0];
  EXPECT_STREQ(image.uri, "fake://me:secret@h/a?b=c");
  EXPECT_STREQ(image.path, "fake://h/a");
  EXPECT_TRUE(image.warm);
  const source_uri uri = config_image_uri(&image);
  ASSERT_EQ(uri.n_options, 2u);
  EXPECT_STREQ(uri.options[0].key, "ca");
  EXPECT_STREQ(uri.options[1].value, "4");
}

TEST_F(ConfigTest, HugeIsPagesOf2MUnlessThePageSizeContradictsIt) {
  ASSERT_THAT(Read("[image a]\nsource = /a\nhuge = on\n"
                   "[image b]\nsource = /b\nhuge = on\npage-size = 2M\n"
                   "[image c]\nsource = /c\nhuge = off\npage-size = 64K\n"
                   "[image d]\nsource = /d\nhuge = off\n"),
              IsEmpty());
  ASSERT_THAT(Check(), IsEmpty());
  std::vector<uint32_t> sizes;
  for (size_t i = 0; i < config_.n_images; i++)
    sizes.push_back(config_page_size(&config_, &config_.images[i]));
  EXPECT_THAT(sizes, ElementsAre(2u << 20, 2u << 20, 64u << 10, 4096u));
  EXPECT_THAT(Read("[image e]\nsource = /e\nhuge = yes\n"),
              ElementsAre("f:3: huge: \"yes\": it must be on or off"));
}

TEST_F(ConfigTest, HugeBesideAnotherPageSizeNamesBoth) {
  ASSERT_THAT(Read("[image a]\nsource = /a\npage-size = 64K\nhuge = on\n"),
              IsEmpty());
  EXPECT_THAT(Check(),
              ElementsAre("f:4: huge: image \"a\": huge = on makes pages of "
                          "2M, and page-size is 64K; remove one"));
}

TEST_F(ConfigTest, ACacheHasRoomForAHugePage) {
  ASSERT_THAT(
      Read("[cache]\nsize = 4095K\n[image a]\nsource = /a\nhuge = on\n"),
      IsEmpty());
  EXPECT_THAT(Check(),
              ElementsAre("f:5: huge: image \"a\": a cache of 4193280 bytes is "
                          "less than two pages of 2097152 bytes"));
}

TEST_F(ConfigTest, ACacheHasRoomForAHugePageAlsoWhenItHasShrunk) {
  ASSERT_THAT(Read("[cache]\nsize = 15M\nshrink-on-pressure = yes\n"
                   "[image a]\nsource = /a\nhuge = on\n"),
              IsEmpty());
  EXPECT_THAT(
      Check(),
      ElementsAre("f:6: huge: image \"a\": a cache of 3932160 bytes, to "
                  "which it may shrink, is less than two pages of "
                  "2097152 bytes"));
}

TEST_F(ConfigTest, AMinSizeThatIsTooSmallIsNamed) {
  ASSERT_THAT(Read("[image a]\nsource = /a\n[cache]\nmin-size = 4K\n"
                   "shrink-on-pressure = yes\n"),
              IsEmpty());
  EXPECT_THAT(Check(),
              ElementsAre("f:4: min-size: a cache of 4096 bytes, to which it "
                          "may shrink, is less than two pages of 4096 bytes"));
}

TEST_F(ConfigTest, AMissReadsWhatTheKindSaysUnlessTheImageSaysMore) {
  ASSERT_THAT(Read("[image a]\nsource = fake://h/a\n"
                   "[image b]\nsource = fake://h/b\nfetch-size = 128K\n"
                   "[image c]\nsource = /c\n"
                   "[image d]\nsource = /d\nfetch-size = 64K\n"
                   "[image e]\nsource = fake://h/e\nfetch-size-max = 1M\n"),
              IsEmpty());
  ASSERT_EQ(config_.n_images, 5u);
  EXPECT_EQ(config_image_fetch_size(&config_.images[0]).least, 64u << 10);
  EXPECT_EQ(config_image_fetch_size(&config_.images[1]).least, 128u << 10);
  EXPECT_EQ(config_image_fetch_size(&config_.images[2]).least, 0u);
  EXPECT_EQ(config_image_fetch_size(&config_.images[3]).least, 64u << 10);
  EXPECT_EQ(config_image_fetch_size(&config_.images[1]).most, 4u << 20);
  EXPECT_EQ(config_image_fetch_size(&config_.images[2]).most, 0u);
  EXPECT_EQ(config_image_fetch_size(&config_.images[4]).most, 1u << 20);
  EXPECT_THAT(Read("[image f]\nfetch-size = 12K\nfetch-size-max = 8M\n"
                   "max-requests = 0\n"),
              ElementsAre(HasSubstr("not a power of two from 4K to 2M"),
                          HasSubstr("not a power of two from 4K to 4M"),
                          HasSubstr("not a number from 1 to 1024")));
}

TEST_F(ConfigTest, AFileThatIsReadLaterReplacesAnOptionOfASource) {
  Read("[image a]\nsource = fake://h/a\nca = /a\n");
  ASSERT_THAT(Read("[image a]\nca = /b\n", "g"), IsEmpty());
  const source_uri uri = config_image_uri(&config_.images[0]);
  ASSERT_EQ(uri.n_options, 1u);
  EXPECT_STREQ(uri.options[0].value, "/b");
}

TEST_F(ConfigTest, WhatIsWrongWithAURIIsSaidOfItsLine) {
  EXPECT_THAT(Read("[image a]\nsource = ftp://me:secret@h/a\n"),
              ElementsAre(AllOf(StartsWith("f:2: source: \"ftp://h/a\""),
                                HasSubstr("no source for the scheme"))));
  EXPECT_THAT(Read("[image b]\nca = 1\nca = 2\nco = 3\n"),
              ElementsAre("f:3: ca: it is given twice; remove one",
                          StartsWith("f:4: unknown key \"co\"")));
}

TEST_F(ConfigTest, WhatItsKindRefusesIsSaidOfItsLine) {
  Read("[image a]\nsource = fake:a\n"
       "[image b]\nca = /ca.pem\nsource = /b\n"
       "[image c]\nsource = fake://h/c\nmax-age = 4\n"
       "[image d]\nsource = /d\nmax-requests = 4\n");
  EXPECT_THAT(Check(),
              ElementsAre("f:2: source: a fake has a host",
                          "f:4: ca: it is no option of a file",
                          "f:8: max-age: it is for files, and not for fake",
                          "f:11: max-requests: it is for remote sources, and "
                          "not for files"));
}

// ---- Verified images
// ---------------------------------------------------------

const std::string kRoot(64, '5');

TEST_F(ConfigTest, ARootIsAHashInHex) {
  for (const std::string &bad :
       {std::string(63, 'a'), std::string(65, 'a'), std::string(96, 'a'),
        std::string(63, 'a') + "g", std::string("x"), std::string(" ")})
    EXPECT_EQ(Read("[image a]\nsource = /a\nverity-root = " + bad + "\n",
                   "f" + std::to_string(bad.size()) + bad[bad.size() - 1])
                  .size(),
              1u)
        << bad;
  EXPECT_THAT(Read("[image b]\nsource = /b\nverity-root = 0aF" +
                   std::string(125, '0') + "\n"),
              IsEmpty());
  const config_image *image = config_find_image(&config_, "b");
  EXPECT_EQ(image->verity.root_len, 64u);
  EXPECT_EQ(image->verity.root[0], 0x0a);
  EXPECT_EQ(image->verity.root[1], 0xf0);
}

TEST_F(ConfigTest, WhatATreeNeedsIsSaidOfItsLine) {
  EXPECT_THAT(Read("[image a]\nsource = /a\nverity-tree = /t\n"
                   "[image b]\nsource = /b\nverity-offset = 4096\n"
                   "[image c]\nsource = /c\nverity-root = " +
                   kRoot +
                   "\nmax-age = 5\n"
                   "[image d]\nsource = fake://h/d\nverity-root = " +
                   kRoot +
                   "\nverity-tree = /t\n"
                   "[image e]\nsource = /e\nverity-root = " +
                   kRoot + "\nverity-tree = fake:e\n"),
              IsEmpty());
  EXPECT_THAT(Read("[image f]\nverity-offset = 4095\n", "g"),
              ElementsAre("g:2: verity-offset: \"4095\": not a multiple of "
                          "512"));
  EXPECT_THAT(Read("[image g]\nverity-tree = t\n", "h"),
              ElementsAre(HasSubstr("h:2: verity-tree: \"t\": a path in")));
  config_remove_image(&config_, "f");
  config_remove_image(&config_, "g");
  EXPECT_THAT(
      Check(),
      ElementsAre("f:3: verity-tree: it needs verity-root, the root hash",
                  "f:6: verity-offset: it needs verity-root, the root hash",
                  "f:10: max-age: an image that is verified cannot change",
                  "f:18: verity-tree: a fake has a host"));
}

TEST_F(ConfigTest, AHashOfTheWholeStandsAlone) {
  EXPECT_THAT(Read("[image a]\nsource = /a\nsha256 = " + kRoot +
                   "0\n"
                   "[image b]\nsource = /b\nsha256 = " +
                   kRoot + "\nverity-root = " + kRoot +
                   "\n"
                   "[image c]\nsource = /c\nsha256 = " +
                   kRoot + "\nmax-age = 5\n"),
              ElementsAre(HasSubstr("f:3: sha256: \"5555")));
  EXPECT_THAT(Check(),
              ElementsAre("f:6: sha256: beside verity-root it is not needed; "
                          "remove one",
                          "f:11: max-age: an image that is verified cannot "
                          "change"));
}

std::string TreeOf(config_image *image, const source_kind **kind) {
  char *tree = config_tree_source(image, kind);
  std::string text = tree;
  free(tree);
  return text;
}

TEST_F(ConfigTest, ATreeIsBesideItsImageUnlessItIsSaidWhere) {
  const std::string root = "verity-root = " + kRoot + "\n";
  EXPECT_THAT(
      Read("[image a]\nsource = /srv/a?b\n" + root +
           "[image b]\nsource = fake://h/b?key=1\n" + root +
           "[image c]\nsource = /c\nverity-tree = fakes://h/t\n" + root +
           "[image d]\nsource = /d\nverity-offset = 512\n" + root +
           "[image e]\nsource = /e\nverity-tree = /t\nverity-offset = 512\n" +
           root),
      IsEmpty());
  EXPECT_THAT(Check(), IsEmpty());
  const source_kind *kind;
  EXPECT_EQ(TreeOf(config_find_image(&config_, "a"), &kind), "/srv/a?b.verity");
  EXPECT_EQ(kind, nullptr);
  EXPECT_EQ(TreeOf(config_find_image(&config_, "b"), &kind),
            "fake://h/b.verity?key=1");
  EXPECT_EQ(kind, fake_kinds[0]);
  EXPECT_EQ(TreeOf(config_find_image(&config_, "c"), &kind), "fakes://h/t");
  EXPECT_EQ(kind, fake_kinds[0]);
  EXPECT_TRUE(config_image_has_tree(config_find_image(&config_, "d")));
  EXPECT_FALSE(config_image_has_tree(config_find_image(&config_, "e")));
}

// ---- Files, and the command line over them ---------------------------------

class ConfigLoadTest : public ConfigTest {
protected:
  void Write(const std::string &name, const std::string &text) {
    FILE *f = fopen((directory_ / name).c_str(), "w");
    ASSERT_TRUE(f);
    ASSERT_EQ(fwrite(text.data(), 1, text.size(), f), text.size());
    ASSERT_EQ(fclose(f), 0);
  }

  // What is wrong when all is read.
  std::vector<std::string> Load(std::vector<std::string> args) {
    char err[OPTIONS_ERROR_LEN];
    std::string path = directory_ / "c";
    args.insert(args.begin(), {"cachetd", "--config", path});
    std::vector<char *> argv;
    for (std::string &arg : args)
      argv.push_back(arg.data());
    argv.push_back(nullptr);
    options options;
    config_errors errors;
    EXPECT_EQ(options_parse(&options, static_cast<int>(args.size()),
                            argv.data(), err),
              0)
        << err;
    config_fini(&config_);
    options.kinds = fake_kinds;
    int r = options_load(&options, &config_, &errors);
    options_fini(&options);
    EXPECT_EQ(r < 0, config_errors_any(&errors));
    return Take(&errors);
  }

  TempDir directory_;
};

TEST_F(ConfigLoadTest, TheCommandLineWinsOverTheFile) {
  Write("c", "[cache]\nsize = 1M\nworkers = 3\n"
             "[listen]\naddress = unix:/a\n"
             "[image a]\nsource = /a\nshare = off\n"
             "[image b]\nsource = /b\n");
  ASSERT_THAT(Load({"--cache-size=2M", "--listen=unix:x", "--listen=unix:y",
                    "--image=a=/other"}),
              IsEmpty());
  EXPECT_EQ(config_.cache_size, 2u << 20);
  EXPECT_EQ(config_.n_workers, 3u);
  ASSERT_EQ(config_.n_listen, 2u);
  EXPECT_STREQ(config_.listen[0].un.sun_path, "x");
  ASSERT_EQ(config_.n_images, 2u);
  EXPECT_STREQ(config_.images[0].path, "/other");
  EXPECT_EQ(config_.images[0].share, SHARE_AS_ALL) << "the image as a whole";
  EXPECT_STREQ(config_.images[1].path, "/b");
}

TEST_F(ConfigLoadTest, TheRulesOfTheCommandLineAddUpAndReplaceTheFiles) {
  Write("c", "[images]\nallow = uid:1\n[admin]\nallow = uid:1\n");
  ASSERT_THAT(Load({"--allow=uid:2", "--admin-allow=uid:3", "--allow=uid:4",
                    "--image=/a", "--image=/b,allow=uid:5 uid:6"}),
              IsEmpty());
  EXPECT_FALSE(Allows(config_.allow, 1, 9));
  EXPECT_TRUE(Allows(config_.allow, 2, 9));
  EXPECT_TRUE(Allows(config_.allow, 4, 9));
  EXPECT_FALSE(Allows(config_.admin, 1, 9));
  EXPECT_TRUE(Allows(config_.admin, 3, 9));
  EXPECT_FALSE(Allows(config_.images[1].allow, 2, 9));
  EXPECT_TRUE(Allows(config_.images[1].allow, 6, 9));
}

TEST_F(ConfigLoadTest, AURIOnTheCommandLineHasOptionsBehindIt) {
  Write("c", "");
  ASSERT_THAT(Load({"--image=x=fake://h/a,ca=/ca.pem,warm=yes",
                    "--image=fake://h/b/disk.img?c=d"}),
              IsEmpty());
  EXPECT_STREQ(config_.images[0].uri, "fake://h/a");
  EXPECT_EQ(config_image_uri(&config_.images[0]).n_options, 1u);
  EXPECT_TRUE(config_.images[0].warm);
  EXPECT_STREQ(config_.images[1].name, "disk.img");
  EXPECT_STREQ(config_.images[1].uri, "fake://h/b/disk.img?c=d");
}

TEST_F(ConfigLoadTest, NoMessageHasTheSecretsOfAURI) {
  Write("c", "");
  for (const char *image :
       {"ftp://me:secret@h/a", "x=fake://me:secret@h/a,warm=x",
        "fake://h/a?secret=1,warm=x", "fake://me:secret@h/a/"}) {
    std::vector<std::string> messages = Load({"--image", image});
    ASSERT_THAT(messages, testing::Not(IsEmpty())) << image;
    for (const std::string &message : messages)
      EXPECT_THAT(message, testing::Not(HasSubstr("secret"))) << image;
  }
}

TEST_F(ConfigLoadTest, AWrongFileIsSaidThoughAnOptionWins) {
  Write("c", "[cache]\nsize = x\n");
  EXPECT_THAT(Load({"--cache-size=2M", "--image=/a"}), SizeIs(1));
}

TEST_F(ConfigLoadTest, DropInsAreReadByName) {
  Write("c", "[image a]\nsource = /a\n");
  ASSERT_EQ(mkdir((directory_ / "c.d").c_str(), 0700), 0);
  Write("c.d/10-x.conf", "[cache]\nsize = 10M\nworkers = 2\n");
  Write("c.d/9-x.conf", "[cache]\nsize = 9M\n"); // '9' is behind '1'
  Write("c.d/a.conf~", "bogus");
  Write("c.d/b.conf.bak", "bogus");
  Write("c.d/.c.conf", "bogus");
  ASSERT_EQ(symlink("/dev/null", (directory_ / "c.d/z.conf").c_str()), 0);
  ASSERT_THAT(Load({}), IsEmpty());
  EXPECT_EQ(config_.cache_size, 9u << 20);
  EXPECT_EQ(config_.n_workers, 2u);
  EXPECT_EQ(config_.n_files, 4u);
}

TEST_F(ConfigLoadTest, WhatIsWrongInADropInNamesIt) {
  Write("c", "[image a]\nsource = a\n");
  ASSERT_EQ(mkdir((directory_ / "c.d").c_str(), 0700), 0);
  Write("c.d/x.conf", "\nbogus\n");
  ASSERT_EQ(mkdir((directory_ / "c.d/y.conf").c_str(), 0700), 0);
  ASSERT_EQ(symlink("none", (directory_ / "c.d/z.conf").c_str()), 0);
  std::string c = directory_ / "c";
  EXPECT_THAT(Load({}),
              ElementsAre(StartsWith(c + ":2: source: "),
                          StartsWith(c + ".d/x.conf:2: neither"),
                          c + ".d/y.conf: Is a directory",
                          c + ".d/z.conf: No such file or directory"));
}

TEST_F(ConfigLoadTest, WhatIsNoFileIsRefusedAtOnce) {
  std::string c = directory_ / "c";
  EXPECT_THAT(Load({"--image=/a"}),
              ElementsAre(c + ": No such file or directory"));
  ASSERT_EQ(mkfifo(c.c_str(), 0600), 0);
  EXPECT_THAT(Load({"--image=/a"}),
              ElementsAre(c + ": neither a file nor /dev/null"));
  ASSERT_EQ(unlink(c.c_str()), 0);
  ASSERT_EQ(mkdir(c.c_str(), 0700), 0);
  EXPECT_THAT(Load({"--image=/a"}), ElementsAre(c + ": Is a directory"));
  EXPECT_THAT(Load({"--image=/a", "--config=/dev/null"}), IsEmpty());
  EXPECT_THAT(Load({"--image=/a", "--config=/dev/zero"}), SizeIs(1));
}

TEST_F(ConfigLoadTest, AFileHasALargestSize) {
  Write("c", std::string(CONFIG_FILE_MAX, '\n'));
  EXPECT_THAT(Load({"--image=/a"}), IsEmpty());
  Write("c", std::string(10 << 20, 'x'));
  EXPECT_THAT(Load({"--image=/a"}),
              ElementsAre(HasSubstr("more than 1M, which no")));
  Write("c", "[image " + std::string(CONFIG_FILE_MAX - 10, 'x'));
  EXPECT_THAT(Load({"--image=/a"}), ElementsAre(HasSubstr("it can have 198")));
}

TEST_F(ConfigLoadTest, ItIsReadAgainAsOftenAsOneLikes) {
  for (const char *size : {"1M", "2M", "3M"}) {
    Write("c", std::string("[image a]\nsource = /a\n[cache]\nsize=") + size);
    ASSERT_THAT(Load({}), IsEmpty());
    EXPECT_EQ(config_.cache_size >> 20, strtoull(size, nullptr, 10));
    EXPECT_EQ(config_.n_images, 1u);
  }
}

} // namespace
