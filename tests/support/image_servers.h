// Servers of one image each, of every kind that a daemon can read from: those
// of packages, the tests' own S3, and another daemon.
#ifndef TESTS_SUPPORT_IMAGE_SERVERS_H
#define TESTS_SUPPORT_IMAGE_SERVERS_H

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

// Each is a process of its own, so that a test may fork readers beside it.
class ImageServer {
public:
  virtual ~ImageServer() = default;
  // What stands behind "NAME=" in an --image.
  virtual std::string source() const = 0;
  // Fails if a request came by another protocol than the server is here for.
  // Only some servers keep a log of that.
  virtual void CheckProtocol() const {}
};

struct ImageServerKind {
  const char *name;
  // The length is one of whole sectors.
  std::unique_ptr<ImageServer> (*start)(const std::vector<uint8_t> &bytes);
};

extern const ImageServerKind kImageServerKinds[10];

std::ostream &operator<<(std::ostream &out, const ImageServerKind &kind);

#endif
