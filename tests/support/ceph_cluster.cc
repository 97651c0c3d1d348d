#include "tests/support/ceph_cluster.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

namespace {

void Check(bool ok, const std::string &what) {
  if (ok)
    return;
  fprintf(stderr, "ceph-cluster: %s\n", what.c_str());
  abort();
}

} // namespace

CephCluster::CephCluster(Gateway gateway) {
  const std::string script =
      DaemonProcess::Runfile("tests/support/ceph-cluster");
  const char *words[] = {script.c_str(), dir_.path().c_str(),
                         gateway == Gateway::kS3 ? "rgw" : nullptr, nullptr};
  int to[2], from[2];
  Check(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0, "no pipe");
  pid_ = fork();
  Check(pid_ >= 0, "no process");
  if (pid_ == 0) {
    dup2(to[0], 0);
    dup2(from[1], 1);
    execv(words[0], const_cast<char **>(words));
    _exit(127);
  }
  close(to[0]);
  close(from[1]);
  to_ = to[1];
  from_ = from[0];
  Await("ready");
}

CephCluster::~CephCluster() {
  close(to_);
  waitpid(pid_, nullptr, 0);
  close(from_);
}

void CephCluster::Await(const std::string &answer) {
  std::string line;
  char c;
  while (read(from_, &c, 1) == 1 && c != '\n')
    line += c;
  Check(line == answer, "it ended, having said \"" + line + "\"");
}

void CephCluster::Do(const std::string &command) {
  const std::string line = command + "\n";
  Check(write(to_, line.data(), line.size()) == ssize_t(line.size()),
        "it ended");
  Await("done");
}

std::string CephCluster::endpoint() const {
  std::string port;
  std::ifstream(dir_ / "rgw.port") >> port;
  return "http://127.0.0.1:" + port;
}

bool CephCluster::Run(const std::string &program,
                      const std::string &arguments) const {
  const std::string said = dir_ / "run.out";
  const std::string command = program + " -c '" + conf() + "' " + arguments +
                              " >" + said + " 2>&1 </dev/null || { cat " +
                              said + " >&2; false; }";
  return system(command.c_str()) == 0;
}
