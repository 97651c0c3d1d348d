// A Ceph of a test's own, on loopback (tests/support/ceph-cluster).
#ifndef TESTS_SUPPORT_CEPH_CLUSTER_H
#define TESTS_SUPPORT_CEPH_CLUSTER_H

#include <sys/types.h>

#include <string>

#include "tests/support/daemon_process.h"

class CephCluster {
public:
  enum class Gateway { kNone, kS3 };

  // Takes ten seconds or twenty.  The process has one thread meanwhile.
  explicit CephCluster(Gateway gateway);
  ~CephCluster(); // ends all of it

  // The file that tells where the cluster is, and which clients may ask it.
  std::string conf() const { return dir_ / "ceph.conf"; }
  // Where the gateway listens: http://...
  std::string endpoint() const;
  // A place for files, which goes with the cluster.
  std::string File(const std::string &name) const { return dir_ / name; }

  // "end osd", "start mon": as the script says.
  void Do(const std::string &command);

  // Runs a program of Ceph's for this cluster, by a shell; true: it succeeded.
  bool Run(const std::string &program, const std::string &arguments) const;

private:
  void Await(const std::string &answer);

  TempDir dir_;
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
};

#endif
