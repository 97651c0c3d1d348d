#include "tests/support/image_servers.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "tests/support/certificates.h"
#include "tests/support/daemon_process.h"
#include "tests/support/fake_s3.h"
#include "tests/support/nbd_server.h"
#include "tests/support/nginx.h"

namespace {

using Bytes = std::vector<uint8_t>;

// Writes a file that was modified long ago, so that a time in whole seconds
// tells its version.
void Write(const std::string &path, const Bytes &bytes) {
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char *>(bytes.data()),
             std::streamsize(bytes.size()));
  const timespec stamp = {1000000000, 0}, stamps[] = {stamp, stamp};
  EXPECT_EQ(utimensat(AT_FDCWD, path.c_str(), stamps, 0), 0);
}

// A program that will not run as root runs as nobody, and may write into `dir`.
std::vector<std::string> AsNobody(const std::string &dir,
                                  std::vector<std::string> command) {
  if (geteuid() != 0)
    return command;
  EXPECT_EQ(system(("chown -R nobody:nogroup " + dir).c_str()), 0);
  const char *words[] = {"setpriv", "--reuid=nobody", "--regid=nogroup",
                         "--clear-groups"};
  command.insert(command.begin(), std::begin(words), std::end(words));
  return command;
}

// ---- HTTP -------------------------------------------------------------------

class NginxServer : public ImageServer {
public:
  NginxServer(const Bytes &bytes, bool has_tls)
      : ca_(has_tls ? ",ca=" + certificates_.ca() : ""),
        nginx_(
            {has_tls ? certificates_.Make("server", "IP:127.0.0.1") : "", ""}) {
    nginx_.Put("x", std::string(bytes.begin(), bytes.end()));
  }
  std::string source() const override { return nginx_.Url("/x") + ca_; }

private:
  Certificates certificates_;
  std::string ca_;
  Nginx nginx_;
};

class Apache : public ImageServer {
public:
  enum Protocol { kPlain, kTls, kHttp2 };

  Apache(const Bytes &bytes, Protocol protocol)
      : protocol_(protocol == kHttp2 ? "HTTP/2.0" : "HTTP/1.1"),
        port_(std::to_string(DaemonProcess::FreePort())) {
    const std::string conf = dir_ / "conf";
    Write(dir_ / "x", bytes);
    std::ofstream file(conf);
    for (const char *module : {"mpm_event", "authz_core", "ssl", "http2"})
      file << "LoadModule " << module << "_module /usr/lib/apache2/modules/mod_"
           << module << ".so\n";
    file << "ServerName localhost\nListen 127.0.0.1:" << port_
         << "\nDocumentRoot " << dir_.path() << "\nPidFile " << (dir_ / "pid")
         << "\nErrorLog " << (dir_ / "errors") << "\nCustomLog "
         << (dir_ / "requests") << " %H\nDefaultRuntimeDir " << dir_.path()
         << "\nMutex posixsem\nMaxKeepAliveRequests 0\n";
    if (protocol != kPlain) {
      std::ofstream(dir_ / "pem")
          << std::ifstream(certificates_.Make("server", "IP:127.0.0.1"))
                 .rdbuf();
      file << "SSLEngine on\nSSLSessionCache none\nSSLCertificateFile "
           << (dir_ / "pem") << "\nProtocols "
           << (protocol == kHttp2 ? "h2" : "http/1.1") << "\n";
    }
    file.close();
    source_ = std::string(protocol == kPlain ? "http" : "https") +
              "://127.0.0.1:" + port_ + "/x" +
              (protocol == kPlain ? "" : ",ca=" + certificates_.ca());
    // One process, without children.
    server_ = std::make_unique<NbdServer>(
        AsNobody(dir_.path(),
                 {"/usr/sbin/apache2", "-X", "-d", dir_.path(), "-f", conf}),
        port_);
  }
  std::string source() const override { return source_; }

  void CheckProtocol() const override {
    std::ifstream log(dir_ / "requests");
    int n = 0;
    for (std::string line; std::getline(log, line); n++)
      EXPECT_EQ(line, protocol_) << n;
    EXPECT_GT(n, 0);
  }

private:
  TempDir dir_;
  Certificates certificates_;
  const std::string protocol_;
  std::string port_, source_;
  std::unique_ptr<NbdServer> server_;
};

// A squid that stands before an nginx.
class Squid : public ImageServer {
public:
  explicit Squid(const Bytes &bytes)
      : port_(std::to_string(DaemonProcess::FreePort())) {
    const std::string conf = dir_ / "conf";
    nginx_.Put("x", std::string(bytes.begin(), bytes.end()));
    std::ofstream(conf)
        << "http_port 127.0.0.1:" << port_
        << " accel defaultsite=localhost no-vhost\ncache_peer 127.0.0.1 parent "
        << nginx_.port()
        << " 0 no-query originserver\nhttp_access allow all\npid_filename "
        << (dir_ / "pid") << "\naccess_log none\ncache_log " << (dir_ / "log")
        << "\ncoredump_dir " << dir_.path()
        << "\npinger_enable off\nnetdb_filename none\n"
           "visible_hostname localhost\n";
    server_ = std::make_unique<NbdServer>(
        AsNobody(dir_.path(), {"/usr/sbin/squid", "-N", "-f", conf}), port_);
  }
  std::string source() const override {
    return "http://127.0.0.1:" + port_ + "/x";
  }

private:
  TempDir dir_;
  Nginx nginx_;
  std::string port_;
  std::unique_ptr<NbdServer> server_;
};

// ---- NBD --------------------------------------------------------------------

class Nbd : public ImageServer {
public:
  Nbd(const Bytes &bytes, bool is_qcow2) {
    const std::string image = dir_ / "image", packed = dir_ / "packed";
    Write(image, bytes);
    if (is_qcow2) {
      EXPECT_EQ(
          system(("qemu-img convert -c -f raw -O qcow2 " + image + " " + packed)
                     .c_str()),
          0);
    }
    const std::vector<std::string> command =
        is_qcow2 ? std::vector<std::string>{"qemu-nbd", "-r",  "-t",    "-e",
                                            "8",        "-f",  "qcow2", "-k",
                                            socket_,    packed}
                 : std::vector<std::string>{"nbdkit", "-f",   "-r", "-U",
                                            socket_,  "file", image};
    server_ = std::make_unique<NbdServer>(command, socket_);
  }
  std::string source() const override {
    return "nbd+unix:///?socket=" + socket_;
  }

private:
  TempDir dir_;
  const std::string socket_ = dir_ / "socket";
  std::unique_ptr<NbdServer> server_;
};

// ---- S3 ---------------------------------------------------------------------

class S3 : public ImageServer {
public:
  explicit S3(const Bytes &bytes) {
    int ends[2];
    EXPECT_EQ(pipe2(ends, O_CLOEXEC), 0);
    pid_ = fork();
    if (pid_ == 0)
      Serve(bytes, ends[1]);
    close(ends[1]);
    char text[64] = "";
    EXPECT_GT(read(ends[0], text, sizeof text - 1), 0);
    close(ends[0]);
    endpoint_ = text;
    std::ofstream(dir_ / "keys") << "[default]\naws_access_key_id = AKID\n"
                                    "aws_secret_access_key = secret/+key\n";
  }
  ~S3() override {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  std::string source() const override {
    return "s3://bucket/key,endpoint=" + endpoint_ +
           ",credentials=" + (dir_ / "keys");
  }

private:
  [[noreturn]] static void Serve(const Bytes &bytes, int to) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    FakeS3 s3(std::string(bytes.begin(), bytes.end()));
    const std::string endpoint = s3.endpoint();
    if (write(to, endpoint.data(), endpoint.size()) < 0)
      _exit(1);
    for (;;)
      pause();
  }

  TempDir dir_;
  pid_t pid_;
  std::string endpoint_;
};

// ---- Another daemon ---------------------------------------------------------

class Parent : public ImageServer {
public:
  explicit Parent(const Bytes &bytes) {
    Write(dir_ / "x", bytes);
    daemon_ = std::make_unique<DaemonProcess>(std::vector<std::string>{
        "--image", dir_ / "x", "--listen", "unix:" + (dir_ / "socket")});
    EXPECT_TRUE(daemon_->ready()) << daemon_->log();
  }
  std::string source() const override {
    return "cachet+unix:///x?socket=" + (dir_ / "socket");
  }

private:
  TempDir dir_;
  std::unique_ptr<DaemonProcess> daemon_;
};

template <typename Server, auto... how>
std::unique_ptr<ImageServer> Start(const Bytes &bytes) {
  return std::make_unique<Server>(bytes, how...);
}

} // namespace

const ImageServerKind kImageServerKinds[10] = {
    {"nginx", Start<NginxServer, false>},
    {"nginx_by_http2", Start<NginxServer, true>},
    {"apache", Start<Apache, Apache::kPlain>},
    {"apache_by_tls", Start<Apache, Apache::kTls>},
    {"apache_by_http2", Start<Apache, Apache::kHttp2>},
    {"squid", Start<Squid>},
    {"nbdkit", Start<Nbd, false>},
    {"qcow2", Start<Nbd, true>},
    {"s3", Start<S3>},
    {"parent", Start<Parent>},
};

std::ostream &operator<<(std::ostream &out, const ImageServerKind &kind) {
  return out << kind.name;
}
