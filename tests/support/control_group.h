// A control group of its own, for tests of memory; root may make them where the
// memory controller is.
#ifndef TESTS_SUPPORT_CONTROL_GROUP_H
#define TESTS_SUPPORT_CONTROL_GROUP_H

#include <cstdint>
#include <string>

class ControlGroup {
public:
  // Which versions of control groups will do.
  enum Version { kAny, kTwo };

  // Makes one, whose name has `name` in it.
  explicit ControlGroup(const std::string &name, Version version = kAny);
  // Takes it away; its processes have ended.
  ~ControlGroup();
  ControlGroup(const ControlGroup &) = delete;
  ControlGroup &operator=(const ControlGroup &) = delete;

  // Why there is none, for GTEST_SKIP(); "" where there is one.
  const std::string &why_not() const { return why_not_; }

  // Moves the calling process into it.  Between fork and exec.
  bool Enter() const;

  // One of its files, as a whole.
  bool Set(const std::string &file, const std::string &value) const;
  std::string Get(const std::string &file) const;
  // A value of a file that has a line for each: memory.stat, memory.events.
  // UINT64_MAX: the kernel does not tell.
  uint64_t Get(const std::string &file, const std::string &key) const;

private:
  std::string path_; // "" until it is made
  std::string why_not_;
};

#endif
