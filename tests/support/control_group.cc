#include "tests/support/control_group.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace {

std::string Slurp(const std::string &path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// This process's group in the hierarchy with those controllers.
std::string OwnGroup(const std::string &controllers) {
  std::istringstream lines(Slurp("/proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    size_t at = line.find(":" + controllers + ":");
    if (at != std::string::npos)
      return line.substr(at + controllers.size() + 2);
  }
  return "";
}

// Where groups can be made: below this process's in version 1; beside it in
// version 2, where a group has either processes or groups.  "": nowhere.
std::string GroupsDirectory(ControlGroup::Version version) {
  const std::string v1 = "/sys/fs/cgroup/memory";
  if (version == ControlGroup::kAny &&
      access((v1 + "/memory.usage_in_bytes").c_str(), F_OK) == 0)
    return v1 + OwnGroup("memory");
  std::string v2 = "/sys/fs/cgroup" + OwnGroup("");
  if (v2.back() != '/')
    v2.resize(v2.rfind('/'));
  bool has =
      Slurp(v2 + "/cgroup.subtree_control").find("memory") != std::string::npos;
  return has ? v2 : "";
}

} // namespace

ControlGroup::ControlGroup(const std::string &name, Version version) {
  std::string directory = GroupsDirectory(version);
  if (directory.empty()) {
    why_not_ = version == kTwo
                   ? "no control group of version 2 has children with the "
                     "memory controller"
                   : "no control group has children with the memory controller";
    return;
  }
  std::string path =
      directory + "/cachetd-test-" + std::to_string(getpid()) + "-" + name;
  if (mkdir(path.c_str(), 0755) == 0)
    path_ = path;
  else
    why_not_ = "make " + path + ": " + strerror(errno);
}

ControlGroup::~ControlGroup() {
  if (!path_.empty())
    rmdir(path_.c_str());
}

bool ControlGroup::Enter() const { return Set("cgroup.procs", "0"); }

bool ControlGroup::Set(const std::string &file,
                       const std::string &value) const {
  int fd = open((path_ + "/" + file).c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0)
    return false;
  bool done = write(fd, value.data(), value.size()) == ssize_t(value.size());
  close(fd);
  return done;
}

std::string ControlGroup::Get(const std::string &file) const {
  return Slurp(path_ + "/" + file);
}

uint64_t ControlGroup::Get(const std::string &file,
                           const std::string &key) const {
  std::istringstream lines(Get(file));
  std::string known;
  for (uint64_t value; lines >> known >> value;)
    if (known == key)
      return value;
  return UINT64_MAX;
}
