#include "daemon/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <stdlib.h>

#include <string>
#include <utility>
#include <vector>

#include "daemon/config_check.h"
#include "tests/support/fake_kind.h"

namespace {

using testing::HasSubstr;

class OptionsTest : public testing::Test {
protected:
  OptionsTest() { config_init(&config_); }
  ~OptionsTest() override {
    options_fini(&options_);
    config_fini(&config_);
  }

  // Parses the arguments after the program's name, makes a configuration of
  // them, and checks it.  What is wrong is in err_.
  int Parse(std::vector<std::string> args) {
    char err[OPTIONS_ERROR_LEN] = "";
    options_fini(&options_);
    config_fini(&config_);
    args_ = std::move(args); // what was parsed points to them
    args_.insert(args_.begin(), "cachetd");
    std::vector<char *> argv;
    for (std::string &arg : args_)
      argv.push_back(arg.data());
    argv.push_back(nullptr);
    int r = options_parse(&options_, static_cast<int>(args_.size()),
                          argv.data(), err);
    err_ = err;
    return r < 0 ? r : Apply();
  }

  int Apply() {
    config_errors errors = {};
    options_apply(&options_, &config_, &errors);
    config_check(&config_, &errors);
    int r = config_errors_any(&errors) ? -EINVAL : 0;
    for (size_t i = 0; i < errors.n; i++)
      err_ += errors.messages[i] + std::string("\n");
    config_errors_fini(&errors);
    return r;
  }

  // Of a path that is relative to the working directory.
  static std::string Whole(const std::string &path) {
    return path[0] == '/'
               ? path
               : std::filesystem::current_path().string() + "/" + path;
  }

  std::vector<std::string> args_;
  options options_ = {};
  config config_;
  std::string err_;
};

TEST_F(OptionsTest, AnImageAloneIsEnough) {
  ASSERT_EQ(Parse({"--image", "/srv/disk.img"}), 0) << err_;
  ASSERT_EQ(config_.n_images, 1u);
  EXPECT_STREQ(config_.images[0].name, "disk.img");
  EXPECT_STREQ(config_.images[0].path, "/srv/disk.img");
  EXPECT_EQ(config_.n_listen, 0u);
  EXPECT_EQ(config_.cache_size, 256u << 20);
  EXPECT_EQ(config_.page_size, 4096u);
  EXPECT_EQ(config_.n_workers, 0u);
  EXPECT_EQ(config_.log_level, LEVEL_INFO);
  EXPECT_EQ(options_.action, OPTIONS_SERVE);
  EXPECT_EQ(options_.config_file, nullptr);
}

TEST_F(OptionsTest, AnImageMayBeSharedOrNotWhateverTheOthersAre) {
  ASSERT_EQ(Parse({"--image", "a,share=off", "--image", "b"}), 0) << err_;
  EXPECT_STREQ(config_.images[0].name, "a");
  EXPECT_EQ(config_.images[0].path, Whole("a"));
  EXPECT_FALSE(config_shares(&config_, &config_.images[0]));
  EXPECT_TRUE(config_shares(&config_, &config_.images[1]));
}

TEST_F(OptionsTest, AnImageMayHaveAMaximumAge) {
  ASSERT_EQ(Parse({"--image", "a,max-age=60", "--image", "b", "--image",
                   "c,max-age=1,share=off"}),
            0)
      << err_;
  EXPECT_EQ(config_.images[0].max_age_s, 60u);
  EXPECT_EQ(config_.images[1].max_age_s, 0u) << "not given";
  EXPECT_EQ(config_.images[2].max_age_s, 1u);
  EXPECT_FALSE(config_shares(&config_, &config_.images[2]));
}

TEST_F(OptionsTest, WhatIsNoOptionIsToldOfThoseThatTheSourceHas) {
  char why[CONFIG_WHY_LEN];
  config_image image;
  EXPECT_EQ(
      options_parse_image(&image, fake_kinds, "n", "fake://h/a,color=red", why),
      -EINVAL);
  EXPECT_THAT(why, testing::HasSubstr("\"color\"; there are ca= depth= "));
  EXPECT_THAT(why, testing::Not(testing::HasSubstr("a comma in a path")));
  config_image_fini(&image);
  EXPECT_EQ(options_parse_image(&image, fake_kinds, "n", "/a,color=red", why),
            -EINVAL);
  config_image_fini(&image);
  EXPECT_THAT(why, testing::Not(testing::HasSubstr("depth=")));
  EXPECT_THAT(why, testing::HasSubstr("a comma in a path"));
}

TEST_F(OptionsTest, AnImageMayBeAPartOfItsFile) {
  ASSERT_EQ(Parse({"--image", "p1=a,offset=1M,length=0x200", "--image",
                   "length=a,length=5", "--image", "b,share=off,offset=7K",
                   "--image", "c"}),
            0)
      << err_;
  const config_image *images = config_.images;
  EXPECT_STREQ(images[0].name, "p1");
  EXPECT_EQ(images[0].path, Whole("a"));
  EXPECT_EQ(images[0].window.offset, 1u << 20);
  EXPECT_EQ(images[0].window.length, 0x200u);
  EXPECT_STREQ(images[1].name, "length");
  EXPECT_EQ(images[1].window.offset, 0u);
  EXPECT_EQ(images[1].window.length, 5u);
  EXPECT_STREQ(images[2].name, "b");
  EXPECT_EQ(images[2].window.offset, 7u << 10);
  EXPECT_EQ(images[2].window.length, WINDOW_TO_END);
  EXPECT_TRUE(window_is_whole(&images[3].window)) << "not given";
}

TEST_F(OptionsTest, WhatFollowsACommaIsAnOptionAlsoIfAFileHasThatName) {
  ASSERT_EQ(Parse({"--image", "a,offset=1"}), 0) << err_;
  EXPECT_EQ(config_.images[0].path, Whole("a"));
  EXPECT_EQ(config_.images[0].window.offset, 1u);
  ASSERT_EQ(Parse({"--image", "n=file:a%2Coffset=1,offset=2"}), 0) << err_;
  EXPECT_EQ(config_.images[0].path, Whole("a,offset=1"));
  EXPECT_EQ(config_.images[0].window.offset, 2u);
}

TEST_F(OptionsTest, AnImagesOwnShareOverridesTheGeneralOne) {
  ASSERT_EQ(Parse({"--share=off", "--image", "x=a,share=on", "--image", "b"}),
            0)
      << err_;
  EXPECT_TRUE(config_shares(&config_, &config_.images[0]));
  EXPECT_FALSE(config_shares(&config_, &config_.images[1]));
}

TEST_F(OptionsTest, EveryOptionIsTaken) {
  ASSERT_EQ(Parse({"--image=a.img", "--image", "b=/x/c.img", "--listen",
                   "unix:/tmp/s", "--listen=tcp:[::1]:7", "--cache-size", "3G",
                   "--page-size", "64k", "--share", "off", "--workers", "5",
                   "--log-level", "debug"}),
            0)
      << err_;
  EXPECT_EQ(config_.n_images, 2u);
  EXPECT_EQ(config_.n_listen, 2u);
  EXPECT_EQ(config_.cache_size, 3ull << 30);
  EXPECT_EQ(config_.page_size, 65536u);
  EXPECT_FALSE(config_shares(&config_, &config_.images[0]));
  EXPECT_EQ(config_.n_workers, 5u);
  EXPECT_EQ(config_.log_level, LEVEL_DEBUG);
}

TEST_F(OptionsTest, HelpAndVersionAreActions) {
  Parse({"--help"});
  EXPECT_EQ(options_.action, OPTIONS_SHOW_HELP);
  Parse({"--version"});
  EXPECT_EQ(options_.action, OPTIONS_SHOW_VERSION);
}

TEST_F(OptionsTest, AConfigurationFileIsNamedAndChecked) {
  ASSERT_EQ(Parse({"--config", "/x/y.conf", "--check-config", "--image=a"}), 0)
      << err_;
  EXPECT_STREQ(options_.config_file, "/x/y.conf");
  EXPECT_EQ(options_.action, OPTIONS_CHECK_CONFIG);
}

TEST_F(OptionsTest, OfAnOptionThatIsGivenTwiceTheLastOneHolds) {
  ASSERT_EQ(Parse({"--image=a", "--cache-size=1M", "--cache-size=2M"}), 0);
  EXPECT_EQ(config_.cache_size, 2u << 20);
}

TEST_F(OptionsTest, AllThatIsWrongIsSaidAndWhere) {
  EXPECT_EQ(Parse({"--cache-size=x", "--image=a,share=x", "--workers=0"}),
            -EINVAL);
  EXPECT_EQ(err_, "--cache-size: \"x\": not a size; it takes digits and K, M, "
                  "G or T\n"
                  "--image a: share: \"x\": it must be on or off\n"
                  "--workers: \"0\": not a number from 1 to 64\n");
}

struct ImageCase {
  const char *argument, *name, *path;
};

TEST_F(OptionsTest, AnImageSplitsIntoNameAndPath) {
  const ImageCase cases[] = {
      {"vm7=/srv/a.img", "vm7", "/srv/a.img"},
      {"a.b_c-9=x", "a.b_c-9", "x"},
      {"n=a=b", "n", "a=b"},              // the first = splits
      {"/x=y/disk", "disk", "/x=y/disk"}, // what is before it is no name
      {"disk=./odd=name.img", "disk", "./odd=name.img"},
      {"file:disk.img", "disk.img", "disk.img"},
      {"file:/srv/disk.img", "disk.img", "/srv/disk.img"},
      {"file:///srv/disk.img", "disk.img", "/srv/disk.img"},
      {"file://localhost/disk.img", "disk.img", "/disk.img"},
      {"n=file:a%2Cb%25c", "n", "a,b%c"},
      {"n=FILE:a%3fb", "n", "a?b"},
      {"n=100%", "n", "100%"}, // a path is not decoded
      {"n=./a:b", "n", "./a:b"},
      {"n=file:a=b", "n", "a=b"},
  };
  for (const ImageCase &c : cases) {
    ASSERT_EQ(Parse({"--image", c.argument}), 0) << c.argument << err_;
    EXPECT_STREQ(config_.images[0].name, c.name) << c.argument;
    EXPECT_EQ(config_.images[0].path, Whole(c.path)) << c.argument;
  }
}

// A reload applies the options when the daemon has left its directory.
TEST_F(OptionsTest, RelativePathsReferToTheDirectoryOfTheStart) {
  const std::filesystem::path before = std::filesystem::current_path();
  const std::string image = Whole("a"), tree = Whole("b"), file = Whole("f"),
                    certificate = Whole("c"), key = Whole("d/k"),
                    ca = Whole("e");
  const std::vector<std::string> args{"--config",
                                      "f",
                                      "--image",
                                      "x=a,verity-tree=b,"
                                      "verity-root=" +
                                          std::string(64, 'a'),
                                      "--tls-certificate",
                                      "c",
                                      "--tls-key",
                                      "d/k",
                                      "--tls-client-ca",
                                      "e"};
  ASSERT_EQ(Parse(args), 0) << err_;
  EXPECT_EQ(options_.config_file, file);
  std::filesystem::current_path("/");
  config_fini(&config_);
  config_init(&config_);
  EXPECT_EQ(Apply(), 0) << err_;
  std::filesystem::current_path(before);
  EXPECT_EQ(config_.images[0].path, image);
  EXPECT_EQ(config_.images[0].verity.tree_path, tree);
  EXPECT_EQ(config_.tls.certificate, certificate);
  EXPECT_EQ(config_.tls.key, key);
  EXPECT_EQ(config_.tls.client_ca, ca);
}

TEST_F(OptionsTest, ANameHasAtMost64Characters) {
  std::string longest(64, 'n');
  EXPECT_EQ(Parse({"--image", longest + "=x"}), 0) << err_;
  EXPECT_STREQ(config_.images[0].name, longest.c_str());
  EXPECT_EQ(Parse({"--image", "/srv/" + longest + "n"}), -EINVAL);
}

struct SizeCase {
  const char *text;
  uint64_t size;
};

TEST_F(OptionsTest, SizesTakePowersOf1024) {
  const SizeCase cases[] = {
      {"8192", 8192},
      {"9k", 9216},
      {"7M", 7u << 20},
      {"16777215G", 16777215ull << 30},
      {"18446744073709551615", UINT64_MAX},
      {"17179869183G", 17179869183ull << 30},
      {"2T", 2ull << 40},
  };
  for (const SizeCase &c : cases) {
    ASSERT_EQ(Parse({"--image", "a", "--cache-size", c.text}), 0)
        << c.text << err_;
    EXPECT_EQ(config_.cache_size, c.size) << c.text;
  }
}

TEST_F(OptionsTest, EachPageSizeFrom4KTo2MIsTaken) {
  for (uint32_t size = 4096; size <= 2u << 20; size *= 2) {
    ASSERT_EQ(Parse({"--image", "a", "--page-size", std::to_string(size)}), 0);
    EXPECT_EQ(config_.page_size, size);
  }
}

struct BadCase {
  std::vector<std::string> args;
  const char *message;
};

TEST_F(OptionsTest, ABadCommandLineIsRefusedWithItsReason) {
  std::string long_path = "unix:/" + std::string(107, 'p');
  const BadCase cases[] = {
      {{}, "no image"},
      {{"disk.img"}, "disk.img: not an option"},
      {{"--image", "a.img,page-size=64K,huge=on"},
       "--image: huge: image \"a.img\": huge = on makes pages of 2M, and "
       "page-size is 64K; remove one"},
      {{"--image"}, "--image: it needs an argument"},
      {{"--frobnicate"}, "--frobnicate: no such option"},
      {{"--frobnicate=x"}, "--frobnicate: no such option"},
      {{"-x"}, "-x: no such option"},
      {{"--image", ""}, "names no source"},
      {{"--image", "n="}, "names no source"},
      {{"--image", "a/"}, "cannot be its name"},
      {{"--image", "/srv/my disk"}, "cannot be its name"},
      {{"--image", "/x/a=b"}, "cannot be its name"},
      {{"--image", "a.img", "--image", "/srv/a.img"}, "used twice"},
      {{"--image", "a=x", "--image", "a=y"}, "\"a\" is used twice"},
      {{"--image", "a.img,no-such-option=4"},
       "image option \"no-such-option\""},
      {{"--image", "a.img,"}, "image option \"\""},
      {{"--image", "nbd://h/a,b"}, "a comma in a URI is written %2C"},
      {{"--image", "a.img,max-age=0"},
       "max-age: \"0\": not a number of seconds"},
      {{"--image", "a.img,max-age="}, "max-age: \"\": not a number of seconds"},
      {{"--image", "a.img,max-age=1s"},
       "max-age: \"1s\": not a number of seconds"},
      {{"--image", "a.img,max-age=-1"},
       "max-age: \"-1\": not a number of seconds"},
      {{"--image", "a.img,max-age"}, "image option \"max-age\""},
      {{"--image", "a.img,page-size=5000"},
       "page-size: \"5000\": not a power of two from 4K to 2M"},
      {{"--image", "a.img,page-size=64K", "--cache-size", "32K"},
       "--image: page-size: image \"a.img\": a cache of 32768 bytes is less "
       "than two pages of 65536 bytes"},
      {{"--image", "a.img,share=maybe"},
       "share: \"maybe\": it must be on or off"},
      {{"--image", "a.img,share=on,share=on"}, "share is given twice"},
      {{"--image", "a,offset=0,offset=0"}, "--image a: offset is given twice"},
      {{"--image", "a,length=1,share=on,length=1"}, "length is given twice"},
      {{"--image", "a,length=0"}, "length: \"0\": an image of no bytes"},
      {{"--image", "a,length="}, "length: \"\": not a size"},
      {{"--image", "a,offset=-1"}, "offset: \"-1\": not a size"},
      {{"--image", "a,offset=1 M"}, "offset: \"1 M\": not a size"},
      {{"--image", "a,offset=8388608T"}, "offset: \"8388608T\": too large"},
      {{"--image", "a,length=18446744073709551615"}, "too large a number"},
      {{"--image", "a,length=18446744073709551616"}, "too large a number"},
      {{"--image", "a,offset"}, "image option \"offset\""},
      {{"--image", "a,Offset=1"}, "image option \"Offset\""},
      {{"--image", "a,b,offset=1"}, "image option \"b\""},
      {{"--image", "nbd://host/x"}, "scheme \"nbd\""},
      {{"--image", "c:disk"}, "scheme \"c\""},
      {{"--image", "file://host/x"}, "cannot name a host"},
      {{"--image", "file:%2"}, "two hex digits"},
      {{"--image", "file:%zz"}, "two hex digits"},
      {{"--image", "n=file:a%00b"}, "two hex digits"},
      {{"--image", "n=file:a?b"}, "? is written %3F"},
      {{"--image", "a", "--cache-size", ""}, "not a size"},
      {{"--image", "a", "--cache-size", "-1"}, "not a size"},
      {{"--image", "a", "--cache-size", "1P"}, "not a size"},
      {{"--image", "a", "--cache-size", "1MB"}, "not a size"},
      {{"--image", "a", "--cache-size", "1.5M"}, "not a size"},
      {{"--image", "a", "--cache-size", "18446744073709551616"}, "too large"},
      {{"--image", "a", "--cache-size", "17179869184G"}, "too large"},
      {{"--image", "a", "--cache-size", "0"}, "less than two pages"},
      {{"--image", "a", "--cache-size", "8191"}, "less than two pages"},
      {{"--image", "a", "--page-size", "2048"}, "power of two"},
      {{"--image", "a", "--page-size", "4M"}, "power of two"},
      {{"--image", "a", "--page-size", "12K"}, "power of two"},
      {{"--image", "a", "--page-size", "x"}, "not a size"},
      {{"--image", "a", "--config="}, "--config: it names no file"},
      {{"--image", "a,source=b"}, "image option \"source\""},
      {{"--image", "a", "--workers", "0"}, "1 to 64"},
      {{"--image", "a", "--workers", "65"}, "1 to 64"},
      {{"--image", "a", "--workers", " 1"}, "1 to 64"},
      {{"--image", "a", "--workers", "99999999999999999999"}, "1 to 64"},
      {{"--image", "a", "--share", "maybe"}, "on or off"},
      {{"--image", "a", "--log-level", "loud"}, "not error, warn"},
      {{"--image", "a", "--listen", "/run/s"}, "unix:PATH, tcp:"},
      {{"--image", "a", "--listen", "unix:"}, "names no path"},
      {{"--image", "a", "--listen", long_path}, "can have 107"},
      {{"--image", "a", "--listen", "tcp:localhost"}, "end in a port"},
      {{"--image", "a", "--listen", "tcp:127.0.0.1:"}, "end in a port"},
      {{"--image", "a", "--listen", "tcp:127.0.0.1:65536"}, "end in a port"},
      {{"--image", "a", "--listen", "tcp:127.0.0.1:+7"}, "end in a port"},
      {{"--image", "a", "--listen", "tcp:example.org:7"}, "must be a number"},
      {{"--image", "a", "--listen", "tcp:::1:7"}, "must be a number"},
      {{"--image", "a", "--listen", "tcp:[::1:7"}, "must be a number"},
      {{"--image", "a", "--listen", "tcp:0.0.0.0:7"}, "only loopback"},
      {{"--image", "a", "--listen", "tcp:192.0.2.1:7"}, "only loopback"},
      {{"--image", "a", "--listen", "tcp:[::]:7"}, "only loopback"},
  };
  for (const BadCase &c : cases) {
    EXPECT_EQ(Parse(c.args), -EINVAL) << c.message;
    EXPECT_THAT(err_, HasSubstr(c.message));
  }
}

TEST_F(OptionsTest, ThereIsALimitOnImages) {
  std::vector<std::string> args;
  for (int i = 0; i < CONFIG_MAX_IMAGES; i++)
    args.push_back("--image=n" + std::to_string(i) + "=x");
  EXPECT_EQ(Parse(args), 0) << err_;
  args.push_back("--image=more=x");
  EXPECT_EQ(Parse(args), -EINVAL);
  EXPECT_THAT(err_, HasSubstr("more than"));
}

struct AddressCase {
  const char *text, *formatted;
};

TEST(AddressTest, WhatIsParsedIsFormatted) {
  const AddressCase cases[] = {
      {"tcp:", "tcp:127.0.0.1:10819"},
      {"tcp:localhost:80", "tcp:127.0.0.1:80"},
      {"tcp:127.3.2.1:0", "tcp:127.3.2.1:0"},
      {"tcp:[::1]:10819", "tcp:[::1]:10819"},
      {"tls:", "tls:127.0.0.1:10820"},
      {"tls:192.0.2.1:7", "tls:192.0.2.1:7"},
      {"tls:[::]:7", "tls:[::]:7"},
      {"unix:/run/x.sock", "unix:/run/x.sock"},
  };
  for (const AddressCase &c : cases) {
    address a;
    char err[OPTIONS_ERROR_LEN], text[ADDRESS_TEXT_LEN];
    ASSERT_EQ(address_parse(c.text, &a, err, sizeof err), 0) << err;
    address_format(&a, text);
    EXPECT_STREQ(text, c.formatted);
  }
}

class DefaultAddressTest : public testing::Test {
protected:
  DefaultAddressTest() {
    unsetenv("CACHET_SOCKET");
    unsetenv("RUNTIME_DIRECTORY");
    unsetenv("XDG_RUNTIME_DIR");
  }

  std::string Default() {
    address a;
    char err[OPTIONS_ERROR_LEN], text[ADDRESS_TEXT_LEN];
    if (options_default_address(&a, err) < 0)
      return err;
    address_format(&a, text);
    return text;
  }
};

TEST_F(DefaultAddressTest, CachetSocketComesFirst) {
  setenv("RUNTIME_DIRECTORY", "/run/a", 1);
  setenv("CACHET_SOCKET", "/x/y", 1);
  EXPECT_EQ(Default(), "unix:/x/y");
  setenv("CACHET_SOCKET", "unix:/x/y", 1);
  EXPECT_EQ(Default(), "unix:/x/y") << "as --listen takes it";
}

TEST_F(DefaultAddressTest, ThenTheRuntimeDirectoryOfSystemd) {
  setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
  setenv("RUNTIME_DIRECTORY", "/run/a:/run/b", 1);
  EXPECT_EQ(Default(), "unix:/run/a/cachetd.sock");
}

TEST_F(DefaultAddressTest, ThenWhereRootOrTheUserHasIts) {
  setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
  EXPECT_EQ(Default(), geteuid() == 0 ? "unix:/run/cachetd/cachetd.sock"
                                      : "unix:/run/user/1/cachetd.sock");
}

TEST_F(DefaultAddressTest, APathThatIsTooLongIsRefused) {
  setenv("RUNTIME_DIRECTORY", std::string(200, 'd').c_str(), 1);
  EXPECT_THAT(Default(), HasSubstr("can have 107"));
}

} // namespace
