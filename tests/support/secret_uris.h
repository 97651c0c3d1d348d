// URIs with the word SECRET in each place that may hold one, of each scheme.
// Nothing listens at their hosts.
#ifndef TESTS_SUPPORT_SECRET_URIS_H
#define TESTS_SUPPORT_SECRET_URIS_H

#include <string>
#include <vector>

inline std::vector<std::string> SecretUris() {
  // Also schemes that are unknown, and slashes that are missing or too many.
  static const char *const schemes[] = {
      "cachet://",    "cachets://",  "cachet+unix://",
      "http://",      "https://",    "s3://",
      "nbd://",       "nbds://",     "nbd+unix://",
      "nbds+unix://", "rbd://",      "rbd:",
      "file://",      "zz://",       "zz:",
      "CACHETS:/",    "https:///",   "cachets:",
      "cachet+unix:", "zz:https://",
  };
  static const char *const places[] = {
      // the user and the password
      "u:SECRET@127.0.0.1:1/p",
      "SECRET@127.0.0.1:1/p",
      "SECRET:x@127.0.0.1:1/p",
      "u:x@SECRET@127.0.0.1:1/p",
      "u:SECRET@127.0.0.1:1x/p",
      // with bytes that should have been encoded
      "u:SECRET/x@127.0.0.1:1/p",
      "u:x/SECRET@127.0.0.1:1/p",
      "u@x:x/SECRET@127.0.0.1:1/p",
      "u:SECRET?x@127.0.0.1:1/p",
      "u:x?SECRET@127.0.0.1:1/p",
      "u:SECRET#x@127.0.0.1:1/p",
      "u:x#SECRET@127.0.0.1:1/p",
      "u:SECRET,x@127.0.0.1:1/p",
      "u:x,SECRET@127.0.0.1:1/p",
      "u:SECRET x@127.0.0.1:1/p",
      "u:%zzSECRET@127.0.0.1:1/p",
      "u:SECRET%40127.0.0.1:1/p",
      "SECRET%40127.0.0.1:1/p",
      // the host and the port
      "[SECRET@127.0.0.1:1/p",
      "[::1]SECRET@x:1/p",
      "[::1]:SECRET/p",
      "SECRET@/p",
      "SECRET@",
      "127.0.0.1:SECRET/p",
      "127.0.0.1:1SECRET/p",
      "u:SECRET:1/p",
      "127.0.0.1:SECRET",
      // the query
      "127.0.0.1:1/p?SECRET",
      "127.0.0.1:1/p?token=SECRET",
      "127.0.0.1:1/p?token=SECRET&offset=SECRET",
      "127.0.0.1:1/p?offset=SECRET",
      "127.0.0.1:1/p?length=SECRET",
      "127.0.0.1:1/p?ca=%zzSECRET",
      "127.0.0.1:1/p?ca=/x&SECRET",
      "127.0.0.1:1/p?ca=/x&ca=SECRET",
      "127.0.0.1:1/p?key=SECRET",
      "127.0.0.1:1/p?versionId=%zzSECRET",
      "127.0.0.1:1?token=SECRET",
      // the fragment
      "127.0.0.1:1/p#SECRET",
      "127.0.0.1:1#SECRET",
      "127.0.0.1:1/p#token=SECRET",
      "127.0.0.1:1/p#ca=%zzSECRET",
      "127.0.0.1:1/p#ca=SECRET",
      "127.0.0.1:1/p#offset=SECRET",
      "127.0.0.1:1/p#fetch-size=SECRET",
      "127.0.0.1:1/p#connections=SECRET",
      "127.0.0.1:1/p#attempt-timeout=SECRET",
  };
  std::vector<std::string> uris;
  for (const char *scheme : schemes)
    for (const char *place : places)
      uris.push_back(std::string(scheme) + place);
  // What only a URI without a host has.
  for (const std::string scheme :
       {"cachet+unix:///", "nbd+unix:///", "nbds+unix:///", "file:///"})
    for (const std::string &place :
         {std::string("p?SECRET"), std::string("p?token=SECRET"),
          std::string("p?offset=SECRET"), std::string("p?socket=%zzSECRET"),
          std::string("p#SECRET"), "p?socket=/SECRET" + std::string(200, 'x'),
          std::string("p?socket=cachets://u:SECRET@127.0.0.1/"),
          std::string("p?socket=/x&token=SECRET")})
      uris.push_back(scheme + place);
  uris.push_back("cachet+unix:///u:SECRET@127.0.0.1/p");
  uris.push_back("nbd+unix:///u:SECRET@127.0.0.1/p");
  return uris;
}

#endif
