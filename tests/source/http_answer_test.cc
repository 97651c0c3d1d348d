// What heads of HTTP mean, without a server.
#include "source/http_answer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

namespace {

using Lines = std::vector<std::string>;

constexpr uint64_t kSize = 1000000;

http_answer AnswerOf(const Lines &lines) {
  http_answer a;
  http_answer_init(&a);
  for (const std::string &line : lines)
    http_answer_line(&a, line.data(), line.size());
  return a;
}

http_object ObjectOf(uint64_t size, const std::string &etag,
                     const std::string &last_modified = "") {
  http_object o = {};
  o.size = size;
  strcpy(o.etag, etag.c_str());
  strcpy(o.last_modified, last_modified.c_str());
  return o;
}

const char kDate[] = "Sun, 06 Nov 1994 08:49:37 GMT";
const char kNextSecond[] = "Sun, 06 Nov 1994 08:49:38 GMT";
const char kLater[] = "Sun, 06 Nov 1994 08:49:39 GMT";

// The outcome of an answer to a request for 100 bytes at 4096.
struct Checked {
  int status = 0;
  uint64_t skip = 0, n_body = 0;

  explicit Checked(const Lines &lines,
                   const http_object &o = ObjectOf(kSize, "\"a\"")) {
    http_answer a = AnswerOf(lines);
    const char *why = nullptr;
    status = http_answer_check(&a, &o, 4096, 100, &skip, &n_body, &why);
    EXPECT_EQ(status == 0, why == nullptr);
  }
};

int StatusOf(const Lines &lines) { return Checked(lines).status; }

int LearnStatus(const Lines &lines, http_object *out) {
  http_answer a = AnswerOf(lines);
  const char *why = nullptr;
  int status = http_answer_learn(&a, out, &why);
  EXPECT_EQ(status == 0, why == nullptr);
  return status;
}

TEST(HttpAnswerTest, TheRangeOfTheSameObjectIsGood) {
  Checked c({"HTTP/1.1 206 Partial Content\r\n", "ETag: \"a\"\r\n",
             "Content-Range: bytes 4096-4195/1000000\r\n",
             "Content-Length: 100\r\n", "\r\n"});
  EXPECT_EQ(c.status, 0);
  EXPECT_EQ(c.skip, 0u);
  EXPECT_EQ(c.n_body, 100u);
  EXPECT_EQ(StatusOf({"HTTP/2 206", "etag:\"a\"",
                      "content-range:   BYTES \t4096-4195/1000000 "}),
            0);
}

TEST(HttpAnswerTest, AnotherRangeIsALie) {
  for (const char *range :
       {"bytes 4096-4194/1000000", "bytes 4096-4196/1000000",
        "bytes 4095-4195/1000000", "bytes 0-99/1000000", "bytes 4096-4195/*",
        "bytes */1000000", "pages 4096-4195/1000000", "bytes=4096-4195/1000000",
        "bytes 4096-4195", "bytes 4096-/1000000", "bytes 4195-4096/1000000",
        "bytes 4096-4195/4100", "bytes 4096-4195/1000000, 1-2/3",
        "bytes 4096-4195/99999999999999999999", "bytes -4096-4195/1000000", ""})
    EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\"",
                        std::string("Content-Range: ") + range}),
              -EPROTO)
        << range;
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\""}), -EPROTO);
}

TEST(HttpAnswerTest, ALengthThatIsNotTheRangesIsALie) {
  const Lines lines = {"HTTP/1.1 206 OK", "ETag: \"a\"",
                       "Content-Range: bytes 4096-4195/1000000"};
  for (const char *length : {"99", "101", "1000000", "-1", "1e2", ""}) {
    Lines more = lines;
    more.push_back(std::string("Content-Length: ") + length);
    EXPECT_EQ(StatusOf(more), -EPROTO) << length;
  }
}

TEST(HttpAnswerTest, WhatComesTwiceIsALie) {
  const std::string range = "Content-Range: bytes 4096-4195/1000000";
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\"", range, range}),
            -EPROTO);
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\"", "ETag: \"a\"", range}),
            -EPROTO);
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\"", range,
                      "Content-Length: 100", "Content-Length: 101"}),
            -EPROTO);
}

TEST(HttpAnswerTest, CompressedBytesAreNotTheObjects) {
  const std::string range = "Content-Range: bytes 4096-4195/1000000";
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\"", range,
                      "Content-Encoding: gzip"}),
            -EPROTO);
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\"", range,
                      "Content-Encoding: identity"}),
            0);
}

TEST(HttpAnswerTest, AnObjectThatIsNotProvedTheSameIsStale) {
  const std::string range = "Content-Range: bytes 4096-4195/1000000";
  for (const char *etag :
       {"ETag: \"b\"", "ETag: W/\"a\"", "ETag: \"A\"", "X: y"})
    EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", range, etag}), -ESTALE) << etag;
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"a\"",
                      "Content-Range: bytes 4096-4195/1000001"}),
            -ESTALE);
  // The new one ends within the range.
  EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", "ETag: \"b\"",
                      "Content-Range: bytes 4096-4100/4101"}),
            -ESTALE);
  EXPECT_EQ(StatusOf({"HTTP/1.1 412 Precondition Failed"}), -ESTALE);
}

TEST(HttpAnswerTest, WithoutAStrongETagItIsTheTimeOfTheChange) {
  const http_object o = ObjectOf(kSize, "", kDate);
  const std::string range = "Content-Range: bytes 4096-4195/1000000";
  auto modified = [](const char *date) {
    return std::string("Last-Modified: ") + date;
  };
  EXPECT_EQ(Checked({"HTTP/1.1 206 OK", range, modified(kDate)}, o).status, 0);
  EXPECT_EQ(
      Checked({"HTTP/1.1 206 OK", range, modified(kDate), "ETag: W/\"x\""}, o)
          .status,
      0);
  EXPECT_EQ(Checked({"HTTP/1.1 206 OK", range, modified(kLater)}, o).status,
            -ESTALE);
  EXPECT_EQ(Checked({"HTTP/1.1 206 OK", range}, o).status, -ESTALE);
}

TEST(HttpAnswerTest, AnETagThatCannotBeSentBackIsALie) {
  const std::string range = "Content-Range: bytes 4096-4195/1000000";
  const std::string long_etag = '"' + std::string(HTTP_ETAG_MAX, 'e') + '"';
  for (const std::string &etag :
       {std::string("a"), std::string("\"a"), std::string("a\""),
        std::string("\""), std::string(), std::string("\"a\"b\""),
        std::string("\"a b\""), std::string("\"a\x7f\""),
        std::string("\"a\0\"", 4), std::string("w/\"a\""), long_etag})
    EXPECT_EQ(StatusOf({"HTTP/1.1 206 OK", range, "ETag: " + etag}), -EPROTO)
        << etag;
}

TEST(HttpAnswerTest, AWholeObjectIsTakenForARangeIfItIsSmall) {
  const http_object small = ObjectOf(8192, "\"a\"");
  Checked c({"HTTP/1.1 200 OK", "ETag: \"a\"", "Content-Length: 8192"}, small);
  EXPECT_EQ(c.status, 0);
  EXPECT_EQ(c.skip, 4096u);
  EXPECT_EQ(c.n_body, 8192u);
  EXPECT_EQ(
      StatusOf({"HTTP/1.1 200 OK", "ETag: \"a\"", "Content-Length: 1000000"}),
      -EPROTO);
  EXPECT_EQ(Checked({"HTTP/1.1 200 OK", "ETag: \"a\""}, small).status, -EPROTO);
  EXPECT_EQ(
      Checked({"HTTP/1.1 200 OK", "ETag: \"b\"", "Content-Length: 8192"}, small)
          .status,
      -ESTALE);
  EXPECT_EQ(
      Checked({"HTTP/1.1 200 OK", "ETag: \"a\"", "Content-Length: 8191"}, small)
          .status,
      -ESTALE);
}

TEST(HttpAnswerTest, ARangeThatIsNotThereMeansAShorterObjectOrALie) {
  EXPECT_EQ(StatusOf({"HTTP/1.1 416 No", "Content-Range: bytes */4096"}),
            -ESTALE);
  EXPECT_EQ(StatusOf({"HTTP/1.1 416 No", "Content-Range: bytes */1000000"}),
            -EPROTO);
  EXPECT_EQ(StatusOf({"HTTP/1.1 416 No"}), -EPROTO);
}

TEST(HttpAnswerTest, EachCodeIsAKindOfFailure) {
  const struct {
    const char *code;
    int status;
  } cases[] = {{"401", -EACCES},    {"403", -EACCES},    {"407", -EACCES},
               {"451", -EACCES},    {"404", -ENOENT},    {"410", -ENOENT},
               {"408", -ETIMEDOUT}, {"429", -EAGAIN},    {"503", -EAGAIN},
               {"400", -EREMOTEIO}, {"500", -EREMOTEIO}, {"502", -EREMOTEIO},
               {"504", -EREMOTEIO}, {"301", -EPROTO},    {"304", -EPROTO},
               {"204", -EPROTO},    {"203", -EPROTO},    {"100", -EPROTO},
               {"600", -EPROTO},    {"99", -EPROTO},     {"2061", -EPROTO},
               {"206x", -EPROTO},   {"abc", -EPROTO},    {"", -EPROTO}};
  for (const auto &c : cases)
    EXPECT_EQ(StatusOf({std::string("HTTP/1.1 ") + c.code + " Words"}),
              c.status)
        << c.code;
  EXPECT_EQ(StatusOf({}), -EPROTO);
}

TEST(HttpAnswerTest, AStatusLineBeginsANewAnswer) {
  EXPECT_EQ(
      StatusOf({"HTTP/1.1 200 Connection established", "ETag: \"of the proxy\"",
                "", "HTTP/1.1 100 Continue", "", "HTTP/1.1 206 OK",
                "ETag: \"a\"", "Content-Range: bytes 4096-4195/1000000"}),
      0);
}

TEST(HttpAnswerTest, ARedirectIsToldFromOtherAnswers) {
  for (const char *code : {"301", "302", "303", "307", "308"}) {
    http_answer a = AnswerOf({std::string("HTTP/1.1 ") + code});
    EXPECT_TRUE(http_answer_is_redirect(&a)) << code;
  }
  for (const char *code : {"200", "300", "304", "305", "404"}) {
    http_answer a = AnswerOf({std::string("HTTP/1.1 ") + code});
    EXPECT_FALSE(http_answer_is_redirect(&a)) << code;
  }
}

TEST(HttpAnswerTest, TheTimeToWaitIsSecondsOrADate) {
  auto wait = [](const Lines &lines) {
    http_answer a = AnswerOf(lines);
    return http_answer_wait_s(&a, http_date_parse(kDate, strlen(kDate)));
  };
  EXPECT_EQ(wait({"HTTP/1.1 503", "Retry-After: 17"}), 17);
  EXPECT_EQ(wait({"HTTP/1.1 503", "Retry-After: 9999999"}),
            HTTP_RETRY_AFTER_MAX_S);
  EXPECT_EQ(wait({"HTTP/1.1 503", "Retry-After: -1"}), 0);
  EXPECT_EQ(wait({"HTTP/1.1 503", "Retry-After: soon"}), 0);
  EXPECT_EQ(wait({"HTTP/1.1 503"}), 0);
  const std::string later = std::string("Retry-After: ") + kLater;
  EXPECT_EQ(wait({"HTTP/1.1 503", later}), 2);
  EXPECT_EQ(wait({"HTTP/1.1 503", later, std::string("Date: ") + kNextSecond}),
            1);
  EXPECT_EQ(wait({"HTTP/1.1 503", std::string("Retry-After: ") + kDate,
                  std::string("Date: ") + kLater}),
            0);
}

TEST(HttpAnswerTest, DatesHaveOneForm) {
  EXPECT_EQ(http_date_parse(kDate, strlen(kDate)), 784111777);
  for (const char *bad :
       {"Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Nov 1994 08:49:61 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nob 1994 08:49:37 GMT", "Sun, 06 Nov 0094 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994", "S\rn, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1969 08:49:37 GMT", ""})
    EXPECT_EQ(http_date_parse(bad, strlen(bad)), -1) << bad;
}

TEST(HttpAnswerTest, TheFirstByteTellsTheSizeAndTheETag) {
  http_object o;
  EXPECT_EQ(LearnStatus({"HTTP/1.1 206 OK", "ETag: \"a\"",
                         std::string("Last-Modified: ") + kDate,
                         "Content-Range: bytes 0-0/1000000"},
                        &o),
            0);
  http_object expected = ObjectOf(kSize, "\"a\"");
  EXPECT_TRUE(http_object_same(&o, &expected));
  http_object other = ObjectOf(kSize, "\"b\"");
  EXPECT_FALSE(http_object_same(&o, &other));
  other = ObjectOf(kSize + 1, "\"a\"");
  EXPECT_FALSE(http_object_same(&o, &other));
}

TEST(HttpAnswerTest, ATimeOfChangeServesOnceItsSecondIsOver) {
  const std::string range = "Content-Range: bytes 0-0/1000000";
  const std::string modified = std::string("Last-Modified: ") + kDate;
  http_object o;
  EXPECT_EQ(LearnStatus({"HTTP/1.1 206 OK", range, modified,
                         std::string("Date: ") + kLater, "ETag: W/\"a\""},
                        &o),
            0);
  http_object expected = ObjectOf(kSize, "", kDate);
  EXPECT_TRUE(http_object_same(&o, &expected));
  EXPECT_EQ(LearnStatus({"HTTP/1.1 206 OK", range, modified,
                         std::string("Date: ") + kNextSecond},
                        &o),
            -EAGAIN);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 206 OK", range, modified}, &o), -EPROTO);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 206 OK", range}, &o), -EPROTO);
}

TEST(HttpAnswerTest, AnETagThatIsATimeServesOnceItsSecondIsOver) {
  const std::string range = "Content-Range: bytes 0-0/1000000";
  const std::string modified = std::string("Last-Modified: ") + kDate;
  http_object o;
  auto learn = [&](const char *etag, const char *date) {
    return LearnStatus({"HTTP/1.1 206 OK", range, modified,
                        std::string("ETag: ") + etag,
                        std::string("Date: ") + date},
                       &o);
  };
  // nginx: the seconds of the Last-Modified, and the size.
  EXPECT_EQ(learn("\"2ebc98a1-f4240\"", kDate), -EAGAIN);
  EXPECT_EQ(learn("\"2ebc98a1-f4240\"", kNextSecond), -EAGAIN);
  EXPECT_EQ(learn("\"2ebc98a1-f4240\"", kLater), 0);
  EXPECT_STREQ(o.etag, "\"2ebc98a1-f4240\"");
  // Others are none of a time, or tell more of it.
  for (const char *etag :
       {"\"2ebc98a0-f4240\"", "\"2ebc98a1\"", "\"2ebc98a1-f4240-1\"",
        "\"f4240-2ebc98a1\"", "\"\"", "\"-\"", "\"2ebc98a1-\""})
    EXPECT_EQ(learn(etag, kDate), 0) << etag;
}

TEST(HttpAnswerTest, AServerWithoutRangesHasSmallObjectsOnly) {
  http_object o;
  auto learn = [&o](uint64_t length) {
    return LearnStatus({"HTTP/1.1 200 OK", "ETag: \"a\"",
                        "Content-Length: " + std::to_string(length)},
                       &o);
  };
  EXPECT_EQ(learn(HTTP_SMALL_OBJECT), 0);
  EXPECT_EQ(o.size, uint64_t{HTTP_SMALL_OBJECT});
  EXPECT_EQ(learn(0), 0);
  EXPECT_EQ(o.size, 0u);
  EXPECT_EQ(learn(HTTP_SMALL_OBJECT + 1), -EPROTO);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 200 OK", "ETag: \"a\""}, &o), -EPROTO);
}

TEST(HttpAnswerTest, AnEmptyObjectHasNoFirstByte) {
  http_object o;
  EXPECT_EQ(LearnStatus({"HTTP/1.1 416 No", "Content-Range: bytes */0"}, &o),
            0);
  EXPECT_EQ(o.size, 0u);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 416 No", "Content-Range: bytes */5"}, &o),
            -EPROTO);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 416 No"}, &o), -EPROTO);
}

TEST(HttpAnswerTest, AHeadProvesTheSameObjectOrNothing) {
  auto confirm = [](const Lines &lines, const http_object &o) {
    http_answer a = AnswerOf(lines);
    const char *why = nullptr;
    int status = http_answer_confirm(&a, &o, &why);
    EXPECT_EQ(status == 0, why == nullptr);
    return status;
  };
  const http_object tagged = ObjectOf(kSize, "\"a\""),
                    dated = ObjectOf(kSize, "", kDate);
  const std::string length = "Content-Length: 1000000",
                    date = std::string("Last-Modified: ") + kDate;
  EXPECT_EQ(confirm({"HTTP/1.1 200 OK", "ETag: \"a\"", length}, tagged), 0);
  EXPECT_EQ(confirm({"HTTP/1.1 200 OK", date, length}, dated), 0);
  for (const Lines &other : {Lines{"HTTP/1.1 200 OK", "ETag: \"b\"", length},
                             Lines{"HTTP/1.1 200 OK", "ETag: W/\"a\"", length},
                             Lines{"HTTP/1.1 200 OK", date, length},
                             Lines{"HTTP/1.1 412 No", "ETag: \"a\"", length}})
    EXPECT_EQ(confirm(other, tagged), -ESTALE);
  for (const Lines &nothing :
       {Lines{"HTTP/1.1 200 OK", "ETag: \"a\""},
        Lines{"HTTP/1.1 200 OK", "ETag: \"a\"", "Content-Length: 1"},
        Lines{"HTTP/1.1 206 OK", "ETag: \"a\"", length},
        Lines{"HTTP/1.1 301 OK", "ETag: \"a\"", length}})
    EXPECT_EQ(confirm(nothing, tagged), -EPROTO);
  EXPECT_EQ(confirm({"HTTP/1.1 405 No"}, tagged), -EREMOTEIO);
}

TEST(HttpAnswerTest, AnOpeningFailsAsAReadDoes) {
  http_object o;
  EXPECT_EQ(LearnStatus({"HTTP/1.1 404 No"}, &o), -ENOENT);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 403 No"}, &o), -EACCES);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 503 No"}, &o), -EAGAIN);
  EXPECT_EQ(LearnStatus({"HTTP/1.1 206 OK", "ETag: \"a\"",
                         "Content-Range: bytes 0-1/1000000"},
                        &o),
            -EPROTO);
}

} // namespace
