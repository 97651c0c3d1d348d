// What a server of a test needs for TLS, and its clients: a certificate for
// 127.0.0.1 and the authority that signed it.  Clients need none.
#ifndef TESTS_SUPPORT_TLS_SIDE_H
#define TESTS_SUPPORT_TLS_SIDE_H

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "proto/tls.h"
#include "tests/support/certificates.h"

class TlsSide {
public:
  TlsSide() {
    std::string certificate = certificates_.Make("server", "IP:127.0.0.1");
    tls_files files = {certificate.c_str(), nullptr, nullptr};
    tls_context *context = nullptr;
    char why[TLS_WHY_LEN];
    EXPECT_EQ(tls_server(&files, false, &context, why), 0) << why;
    context_.reset(context);
  }
  tls_context *context() const { return context_.get(); }
  std::string ca() const { return certificates_.ca(); }

private:
  struct Unref {
    void operator()(tls_context *c) const { tls_context_unref(c); }
  };
  Certificates certificates_;
  std::unique_ptr<tls_context, Unref> context_;
};

#endif // TESTS_SUPPORT_TLS_SIDE_H
