// Signatures of S3: the examples that AWS publishes, and botocore's.
#include "source/s3_sign.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/percent.h"
#include "tests/support/daemon_process.h"

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

struct Free {
  void operator()(char *p) const { free(p); }
};
using Text = std::unique_ptr<char, Free>;

constexpr int64_t k24May2013 = 1369353600, k30Aug2015 = 1440938160;

struct Request {
  std::string method = "GET", path = "/";
  Pairs query, headers;
  std::string payload_hash = S3_EMPTY_PAYLOAD;
  std::string access_key = "AKIAIOSFODNN7EXAMPLE";
  std::string secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
  std::string region = "us-east-1", service = "s3";
  int64_t time = k24May2013;

  std::string Canonical() const {
    return With([](const s3_request &r, const s3_key &, const s3_time &) {
      return s3_canonical_request(&r);
    });
  }

  std::string Authorization() const {
    return With([](const s3_request &r, const s3_key &key, const s3_time &t) {
      return s3_authorization(&r, &key, &t);
    });
  }

  std::string Signature() const {
    const std::string text = Authorization(), mark = "Signature=";
    return text.substr(text.find(mark) + mark.size());
  }

private:
  static std::vector<s3_pair> Raw(const Pairs &pairs) {
    std::vector<s3_pair> raw;
    for (const auto &p : pairs)
      raw.push_back({p.first.c_str(), p.second.c_str()});
    return raw;
  }

  template <typename F> std::string With(F f) const {
    const std::vector<s3_pair> q = Raw(query), h = Raw(headers);
    const s3_request r = {
        method.c_str(), path.c_str(),        q.data(), q.size(), h.data(),
        h.size(),       payload_hash.c_str()};
    const s3_key key = {access_key.c_str(), secret_key.c_str(), region.c_str(),
                        service.c_str()};
    const s3_time when = s3_time_of(time);
    Text text(f(r, key, when));
    return text ? text.get() : "no memory";
  }
};

// Those of "Authenticating Requests: Using the Authorization Header".
Request OfTheBucket() {
  Request r;
  r.headers = {{"host", "examplebucket.s3.amazonaws.com"},
               {"x-amz-content-sha256", S3_EMPTY_PAYLOAD},
               {"x-amz-date", "20130524T000000Z"}};
  return r;
}

TEST(S3SignTest, AmazonsExampleOfARangeOfAnObject) {
  Request r = OfTheBucket();
  r.path = "/test.txt";
  r.headers.push_back({"range", "bytes=0-9"});
  EXPECT_EQ(r.Canonical(),
            "GET\n/test.txt\n\nhost:examplebucket.s3.amazonaws.com\n"
            "range:bytes=0-9\nx-amz-content-sha256:" S3_EMPTY_PAYLOAD
            "\nx-amz-date:20130524T000000Z\n\n"
            "host;range;x-amz-content-sha256;x-amz-date\n" S3_EMPTY_PAYLOAD);
  EXPECT_EQ(
      r.Authorization(),
      "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/"
      "aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
      "Signature="
      "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(S3SignTest, AmazonsExampleOfAnUpload) {
  const char hash[] =
      "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
  Request r;
  Text path(percent_encode("/test$file.text"));
  r.method = "PUT";
  r.path = path.get();
  r.payload_hash = hash;
  r.headers = {{"host", "examplebucket.s3.amazonaws.com"},
               {"date", "Fri, 24 May 2013 00:00:00 GMT"},
               {"x-amz-content-sha256", hash},
               {"x-amz-date", "20130524T000000Z"},
               {"x-amz-storage-class", "REDUCED_REDUNDANCY"}};
  EXPECT_EQ(r.Signature(),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

TEST(S3SignTest, AmazonsExampleOfAQueryWithoutAValue) {
  Request r = OfTheBucket();
  r.query = {{"lifecycle", ""}};
  EXPECT_EQ(r.Signature(),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

TEST(S3SignTest, AmazonsExampleOfAQuery) {
  Request r = OfTheBucket();
  r.query = {{"prefix", "J"}, {"max-keys", "2"}};
  EXPECT_EQ(r.Signature(),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(S3SignTest, AmazonsExampleOfAnotherService) {
  Request r;
  r.access_key = "AKIDEXAMPLE";
  r.secret_key = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
  r.service = "iam";
  r.time = k30Aug2015;
  r.query = {{"Action", "ListUsers"}, {"Version", "2010-05-08"}};
  r.headers = {
      {"content-type", "application/x-www-form-urlencoded; charset=utf-8"},
      {"host", "iam.amazonaws.com"},
      {"x-amz-date", "20150830T123600Z"}};
  EXPECT_EQ(r.Signature(),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
}

TEST(S3SignTest, AQueryIsSortedByNameAndThenByValue) {
  const s3_pair pairs[] = {{"a1", ""}, {"b", "/ +"}, {"a", "2"},
                           {"a", "1"}, {"a-", "="},  {"A", "\xc3\xa4"}};
  Text query(s3_query(pairs, 6));
  EXPECT_STREQ(query.get(), "A=%C3%A4&a=1&a=2&a-=%3D&a1=&b=%2F%20%2B");
  Text empty(s3_query(nullptr, 0));
  EXPECT_STREQ(empty.get(), "");
}

TEST(S3SignTest, TimesAreOfGreenwich) {
  EXPECT_STREQ(s3_time_of(k30Aug2015).text, "20150830T123600Z");
}

// What botocore makes of random requests.
class Oracle {
public:
  explicit Oracle(uint64_t seed) {
    const std::string command =
        "/usr/bin/python3 " +
        DaemonProcess::Runfile("tests/source/s3_oracle.py") + " " +
        std::to_string(seed) + " 300";
    pipe_ = popen(command.c_str(), "r");
  }

  // The fields of the next request; none: there is no more.
  std::vector<std::string> Next() {
    std::string line;
    for (int c; (c = getc(pipe_)) != EOF && c != '\n';)
      line += char(c);
    std::vector<std::string> fields;
    std::istringstream in(line);
    for (std::string hex; std::getline(in, hex, '\t');)
      fields.push_back(Decode(hex));
    return fields;
  }

  int Wait() { return WEXITSTATUS(pclose(pipe_)); }

private:
  static std::string Decode(const std::string &hex) {
    std::string text;
    for (size_t i = 0; i + 1 < hex.size(); i += 2)
      text += char(std::stoi(hex.substr(i, 2), nullptr, 16));
    return text;
  }

  FILE *pipe_;
};

struct Fields {
  std::vector<std::string> all;
  size_t at = 0;

  std::string Take() { return all.at(at++); }
  Pairs TakePairs() {
    Pairs pairs;
    for (int n = std::stoi(Take()); n > 0; n--) {
      std::string name = Take();
      pairs.emplace_back(name, Take());
    }
    return pairs;
  }
};

TEST(S3SignTest, RandomRequestsAreSignedAsBotocoreDoes) {
  Oracle oracle(TestSeed());
  int n = 0;
  for (Fields f; !(f = {oracle.Next()}).all.empty(); n++) {
    Request r;
    r.method = f.Take();
    Text path(percent_encode(("/" + f.Take()).c_str()));
    r.path = path.get();
    r.access_key = f.Take();
    r.secret_key = f.Take();
    r.region = f.Take();
    r.time = std::stoll(f.Take());
    r.query = f.TakePairs();
    r.headers = f.TakePairs();
    ASSERT_EQ(r.Canonical(), f.Take());
    ASSERT_EQ(r.Authorization(), f.Take());
  }
  int status = oracle.Wait();
  if (status == 77)
    GTEST_SKIP() << "python3-botocore is not installed";
  EXPECT_EQ(status, 0);
  EXPECT_EQ(n, 300);
}

} // namespace
