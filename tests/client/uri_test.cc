#include "client/uri.h"

#include <gtest/gtest.h>

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include <string>

#include "tests/support/secret_uris.h"

namespace {

struct Parsed {
  cachet_status status;
  uri_kind kind = URI_FILE;
  std::string path, host, image, source, options, message;
  unsigned fetch_size = 0;
  int port = 0;
  struct window window = {};
};

Parsed Parse(const std::string &text) {
  struct uri u = {};
  cachet_error err = {};
  Parsed p;
  p.status = uri_parse(text.c_str(), &u, &err);
  if (p.status == CACHET_OK) {
    p.kind = u.kind;
    p.path = u.path ? u.path : "";
    p.host = u.host ? u.host : "";
    p.image = u.image ? u.image : "";
    p.source = u.source ? u.source : "";
    p.fetch_size = u.fetch_size;
    for (size_t i = 0; i < u.n_options; i++)
      p.options +=
          std::string(u.options[i].key) + "=" + u.options[i].value + ";";
    p.port = u.port;
    p.window = u.window;
    uri_fini(&u);
  } else {
    p.message = err.message;
  }
  return p;
}

TEST(UriTest, WhatHasNoSchemeIsAPath) {
  for (const char *path :
       {"disk.img", "./a:b", "/x:y", "a%20b", "dir/a:b", "1:2", "a?b#c"}) {
    Parsed p = Parse(path);
    EXPECT_EQ(p.status, CACHET_OK) << path;
    EXPECT_EQ(p.kind, URI_FILE);
    EXPECT_EQ(p.path, path);
  }
}

TEST(UriTest, AFileUriIsDecoded) {
  EXPECT_EQ(Parse("file:a%20b%2Cc%3f").path, "a b,c?");
  EXPECT_EQ(Parse("FILE:/x").path, "/x");
  EXPECT_EQ(Parse("file:///x").path, "/x");
  EXPECT_EQ(Parse("file://localhost/x").path, "/x");
}

TEST(UriTest, AUnixUriNamesImageAndSocket) {
  Parsed p = Parse("cachet+unix:///vm7?socket=/run/a%20b");
  EXPECT_EQ(p.status, CACHET_OK);
  EXPECT_EQ(p.kind, URI_UNIX);
  EXPECT_EQ(p.image, "vm7");
  EXPECT_EQ(p.path, "/run/a b");
  EXPECT_EQ(Parse("cachet+unix:///?socket=s").image, "");
}

TEST(UriTest, ASocketMayBeWrittenAsTheDaemonsAddress) {
  EXPECT_EQ(Parse("cachet+unix:///x?socket=unix:/run/s").path, "/run/s");
  EXPECT_EQ(Parse("cachet+unix:///x?socket=./unix:s").path, "./unix:s");
  EXPECT_EQ(Parse("cachet+unix:///x?socket=unix:").status, CACHET_E_INVAL);
  setenv("CACHET_SOCKET", "unix:/somewhere/s", 1);
  EXPECT_EQ(Parse("cachet+unix:///x").path, "/somewhere/s");
  unsetenv("CACHET_SOCKET");
}

TEST(UriTest, WithoutASocketItIsTheDefaultOne) {
  setenv("CACHET_SOCKET", "/somewhere/s", 1);
  EXPECT_EQ(Parse("cachet+unix:///x").path, "/somewhere/s");
  unsetenv("CACHET_SOCKET");
  setenv("XDG_RUNTIME_DIR", "/nowhere", 1);
  EXPECT_EQ(Parse("cachet+unix:///x").path, "/run/cachetd/cachetd.sock");
  char dir[] = "/tmp/cachet-uri-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  std::string path = std::string(dir) + "/cachetd.sock";
  fclose(fopen(path.c_str(), "w"));
  setenv("XDG_RUNTIME_DIR", dir, 1);
  EXPECT_EQ(Parse("cachet+unix:///x").path, path);
  remove(path.c_str());
  remove(dir);
}

TEST(UriTest, ATcpUriNamesHostPortAndImage) {
  Parsed p = Parse("cachet://example.org:99/vm7");
  EXPECT_EQ(p.kind, URI_TCP);
  EXPECT_EQ(p.host, "example.org");
  EXPECT_EQ(p.port, 99);
  EXPECT_EQ(p.image, "vm7");
  p = Parse("cachet://[::1]:65535/");
  EXPECT_EQ(p.host, "::1");
  EXPECT_EQ(p.port, 65535);
  EXPECT_EQ(p.image, "");
  p = Parse("cachet://[::1]");
  EXPECT_EQ(p.host, "::1");
  EXPECT_EQ(p.port, 10819);
}

TEST(UriTest, ATlsUriNamesFilesAsWell) {
  struct uri u = {}, copy = {};
  ASSERT_EQ(
      uri_parse("cachets://h/x?ca=/a%20b&cert=c&key=k&offset=4K", &u, nullptr),
      CACHET_OK);
  ASSERT_EQ(uri_copy(&u, &copy), CACHET_OK);
  uri_fini(&u);
  EXPECT_EQ(copy.kind, URI_TLS);
  EXPECT_STREQ(copy.host, "h");
  EXPECT_EQ(copy.port, 10820);
  EXPECT_STREQ(copy.image, "x");
  EXPECT_STREQ(copy.ca, "/a b");
  EXPECT_STREQ(copy.cert, "c");
  EXPECT_STREQ(copy.key, "k");
  EXPECT_EQ(copy.window.offset, 4096u);
  uri_fini(&copy);
  EXPECT_EQ(Parse("CACHETS://[::1]:7").port, 7);
  EXPECT_EQ(Parse("cachets://h/x?cert=c").status, CACHET_OK)
      << "the key is in the same file";
}

TEST(UriTest, EveryUriMayNameAWindow) {
  for (const char *text :
       {"file:x?offset=0x1000&length=2M", "file:///x?length=2M&offset=4096",
        "cachet://h/x?offset=4096&length=2097152",
        "cachet://h:1?offset=4K&length=2M",
        "cachet://[::1]/?length=2M&offset=4K",
        "cachet+unix:///x?offset=4K&length=2M",
        "cachet+unix:///x?offset=4K&socket=s&length=2M"}) {
    Parsed p = Parse(text);
    ASSERT_EQ(p.status, CACHET_OK) << text << ": " << p.message;
    EXPECT_EQ(p.window.offset, 4096u) << text;
    EXPECT_EQ(p.window.length, 2097152u) << text;
  }
  EXPECT_EQ(Parse("cachet+unix:///x?length=1").path,
            "/run/cachetd/cachetd.sock");
  EXPECT_EQ(Parse("cachet://h/x?length=1").image, "x");
  EXPECT_EQ(Parse("cachet://h/x?length=1").host, "h");
  Parsed p = Parse("file:x");
  EXPECT_EQ(p.window.offset, 0u);
  EXPECT_EQ(p.window.length, UINT64_MAX);
}

TEST(UriTest, ARemoteSourceHasItsUriAndItsOptionsBehindTheHash) {
  Parsed p =
      Parse("https://u:pw@h/a%20b?offset=1&k=v#offset=4K&ca=a%20b&length="
            "1M&fetch-size=64K&connections=2");
  EXPECT_EQ(p.status, CACHET_OK) << p.message;
  EXPECT_EQ(p.kind, URI_SOURCE);
  EXPECT_EQ(p.source, "https://u:pw@h/a%20b?offset=1&k=v");
  EXPECT_EQ(p.path, "https://h/a%20b");
  EXPECT_EQ(p.window.offset, 4096u);
  EXPECT_EQ(p.window.length, 1u << 20);
  EXPECT_EQ(p.fetch_size, 65536u);
  EXPECT_NE(p.options.find("ca=a b;"), std::string::npos) << p.options;
  EXPECT_NE(p.options.find("connections=2;"), std::string::npos) << p.options;
  EXPECT_EQ(p.options.find("offset"), std::string::npos) << p.options;
}

TEST(UriTest, TheQueryOfARemoteSourceMayHaveTheWindow) {
  struct Case {
    const char *text, *source;
    uint64_t offset, length;
  };
  for (const Case &c : std::vector<Case>{
           {"https://h/x?offset=4K&length=1M", "https://h/x", 4096, 1u << 20},
           {"https://h/x?v=7&offset=4K&w", "https://h/x?v=7&w", 4096,
            UINT64_MAX},
           {"https://h/x?length=1&v=7", "https://h/x?v=7", 0, 1},
           {"https://h/x?offsets=1&offset", "https://h/x?offsets=1&offset", 0,
            UINT64_MAX},
           {"nbd+unix:///e?socket=s&offset=1", "nbd+unix:///e?socket=s", 1,
            UINT64_MAX},
           {"https://h/x?offset=1#connections=2", "https://h/x?offset=1", 0,
            UINT64_MAX},
       }) {
    Parsed p = Parse(c.text);
    EXPECT_EQ(p.status, CACHET_OK) << c.text << ": " << p.message;
    EXPECT_EQ(p.source, c.source);
    EXPECT_EQ(p.window.offset, c.offset) << c.text;
    EXPECT_EQ(p.window.length, c.length) << c.text;
  }
}

TEST(UriTest, SchemesOfRemoteSourcesAreKnown) {
  for (const char *text :
       {"http://h/x", "HTTPS://h/x", "s3://b/k", "nbd://h", "nbds://h",
        "nbd+unix:///?socket=s", "nbds+unix:///?socket=s", "rbd:pool/image"}) {
    Parsed p = Parse(text);
    EXPECT_EQ(p.status, CACHET_OK) << text;
    EXPECT_EQ(p.kind, URI_SOURCE) << text;
    EXPECT_EQ(p.source, text);
    EXPECT_EQ(p.options, "");
  }
}

TEST(UriTest, WhatIsWrongIsInvalid) {
  std::string longest(200, 'x');
  for (const std::string &text : std::vector<std::string>{
           "",
           "file:",
           "file:a%",
           "file:a%2",
           "file:a%zz",
           "file:a%00b",
           "file:a?b=c",
           "file:a?",
           "file:a?offset",
           "file:a?offset=",
           "file:a?offset=-1",
           "file:a?offset=1x",
           "file:a?offset=0x10000000000000000",
           "file:a?offset=1&offset=1",
           "file:a?length=1&length=2",
           "file:a?offset=1&",
           "file:a?socket=s",
           "cachet://h/x?socket=s",
           "cachet://h/x?",
           "cachet+unix:///x?offset=%00",
           "file:a#b",
           "file:a,b",
           "file://host/x",
           "foo://x/y",
           "a:b",
           "cachet+unix:x",
           "cachet+unix://host/x",
           "cachet+unix:///a/b",
           "cachet+unix:///a%2Fb",
           "cachet+unix:///a?socket=",
           "cachet+unix:///a?socket=a&socket=b",
           "cachet+unix:///a?port=1",
           "cachet+unix:///a?sock=1",
           "cachet+unix:///a?socket",
           "cachet+unix:///a?socket=a&",
           "cachet+unix:///a?socket=" + longest,
           "cachet:///x",
           "cachet://:1/x",
           "cachet://h:/x",
           "cachet://h:0/x",
           "cachet://h:65536/x",
           "cachet://h:99999999999999999999/x",
           "cachet://h:1x/x",
           "cachet://u@h/x",
           "cachet://[::1/x",
           "cachet://[::1]x/x",
           "cachet://h/x/y",
           "cachet://h/x#y",
           "cachet://h#y",
           "cachet://u%40h/x",
           "cachet://h/x?socket=s",
           "cachet:x",
           "cachets:x",
           "cachets:///x",
           "cachets://h/x?ca=",
           "cachets://h/x?ca=a&ca=b",
           "cachets://h/x?key=k",
           "cachets://h/x?socket=s",
           "cachets://h/x?cacert=a",
           "cachet://h/x?ca=a",
           "cachet+unix:///x?cert=a",
           "file:x?key=k",
           "cachet://h/" + longest + longest,
           "http://h/x?offset=x",
           "http://h/x?offset=1&offset=2",
           "http://h/x#",
           "http://h/x#ca",
           "http://h/x#=a",
           "http://h/x#ca=a&",
           "http://h/x#ca=a&ca=b",
           "http://h/x#offset=1&offset=2",
           "http://h/x#offset=x",
           "http://h/x#ca=%zz",
           "http://h/x#fetch-size=5000",
           "http://h/x#fetch-size=4M",
           "http://h/x#fetch-size=2K",
       }) {
    Parsed p = Parse(text);
    EXPECT_EQ(p.status, CACHET_E_INVAL) << text;
    EXPECT_NE(p.message, "") << text;
  }
}

TEST(UriTest, AMessageNamesTheUriWithoutItsSecrets) {
  for (const auto &[text, message] :
       std::vector<std::pair<const char *, const char *>>{
           {"cachets://u:SECRET@h/p",
            "bad URI \"cachets://h/p\": no user and no password stand before "
            "the host"},
           {"cachets://h/p?token=SECRET",
            "bad URI \"cachets://h/p\": unknown key \"token\" behind the ?"},
           {"cachets://h/p?ca=%zzSECRET",
            "bad URI \"cachets://h/p\": ca: a % must be followed by two hex "
            "digits, other than 00"},
           {"cachet://h:SECRET/p",
            "bad URI \"cachet://h\": the port is not a number from 1 to 65535"},
           {"cachet://h/p?offset=SECRET",
            "bad URI \"cachet://h/p\": offset: not a number of bytes"},
           {"file://u:SECRET@h/p",
            "bad URI \"file://h/p\": a file: URI cannot name a host"},
           {"zz://u:SECRET@b/k?SECRET",
            "bad URI \"zz://b/k\": unknown scheme \"zz:\" (a path begins with "
            "./)"},
           {"cachet+unix:///a/b",
            "bad URI \"cachet+unix:///a/b\": the name of an image has no /"},
           {"https://h/k#fetch-size=SECRET",
            "bad URI \"https://h/k\": fetch-size: not a number of bytes"},
       })
    EXPECT_EQ(Parse(text).message, message);
}

TEST(UriTest, NoMessageHasASecret) {
  for (const std::string &text : SecretUris()) {
    Parsed p = Parse(text);
    EXPECT_EQ(p.message.find("SECRET"), std::string::npos)
        << text << ": " << p.message;
    // What messages show of an image that cannot be opened.
    for (const std::string &shown : {p.path, p.host, p.image})
      EXPECT_EQ(shown.find("SECRET"), std::string::npos)
          << text << ": " << shown;
  }
}

TEST(UriTest, AUriIsNoPathOfASocket) {
  setenv("CACHET_SOCKET", "cachets://u:SECRET@h/", 1);
  EXPECT_EQ(Parse("cachet+unix:///x").message,
            "bad URI \"cachet+unix:///x\": the socket is a URI, and has to be "
            "a path");
  unsetenv("CACHET_SOCKET");
}

TEST(UriTest, AnUnknownSchemeIsNamed) {
  EXPECT_NE(Parse("foo://x/y").message.find("\"foo:\""), std::string::npos);
}

TEST(UriTest, ASocketPathThatIsTooLongSaysHowLongItMayBe) {
  EXPECT_NE(Parse("cachet+unix:///a?socket=" + std::string(108, 'x'))
                .message.find("107"),
            std::string::npos);
  EXPECT_EQ(Parse("cachet+unix:///a?socket=" + std::string(107, 'x')).status,
            CACHET_OK);
}

TEST(UriTest, TheDirectoryIsKeptForEachFile) {
  char dir[PATH_MAX];
  ASSERT_NE(getcwd(dir, sizeof dir), nullptr);
  auto kept = [](const std::string &text) {
    uri u;
    EXPECT_EQ(uri_parse(text.c_str(), &u, nullptr), CACHET_OK);
    EXPECT_EQ(uri_keep_directory(&u, nullptr), CACHET_OK);
    std::string paths;
    for (const char *path : {u.path, u.ca, u.cert, u.key})
      paths += path ? path + std::string(";") : "-;";
    uri_fini(&u);
    return paths;
  };
  std::string here = std::string(dir) + "/";
  EXPECT_EQ(kept("cachets://h/x?ca=a&cert=/b&key=c/d"),
            "-;" + here + "a;/b;" + here + "c/d;");
  EXPECT_EQ(kept("cachets://h/x"), "-;-;-;-;");
  EXPECT_EQ(kept("cachet+unix:///x?socket=/s"), "/s;-;-;-;");
  std::string longest(107, 'x'); // longer than an address, with the directory
  EXPECT_EQ(kept("cachet+unix:///x?socket=" + longest), longest + ";-;-;-;");
}

} // namespace
