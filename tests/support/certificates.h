// Certificates that live as long as a test: a directory with a certificate
// authority, and what it signs.
#ifndef TESTS_SUPPORT_CERTIFICATES_H
#define TESTS_SUPPORT_CERTIFICATES_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

class Certificates {
public:
  enum Flaw { kNone, kExpired, kNotYet, kSelfSigned };

  // Makes the authority.
  Certificates();
  ~Certificates();

  // A file of the certificate that all others are signed by.
  std::string ca() const { return File("ca.pem"); }

  // Makes a file with a certificate and its key.  `names` is as OpenSSL has a
  // subject alternative name: "DNS:localhost,IP:127.0.0.1".
  std::string Make(const std::string &name, const std::string &names,
                   Flaw flaw = kNone) const;

  // A file of the authority with its list of those that were revoked, on which
  // is the certificate in such a file.
  std::string Revoke(const std::string &path) const;

  // Writes the key of such a file to a file of its own; `password`: encrypted.
  std::string SplitKey(const std::string &path,
                       const std::string &password = "") const;

  // A file in the directory, with these bytes.
  std::string Write(const std::string &name, const std::string &bytes) const;

private:
  struct Free {
    void operator()(EVP_PKEY *p) const { EVP_PKEY_free(p); }
    void operator()(X509 *p) const { X509_free(p); }
    void operator()(X509_CRL *p) const { X509_CRL_free(p); }
  };
  using Key = std::unique_ptr<EVP_PKEY, Free>;
  using Certificate = std::unique_ptr<X509, Free>;

  static Key NewKey();
  static Certificate NewCertificate(EVP_PKEY *key, const std::string &name,
                                    Flaw flaw);
  std::string File(const std::string &name) const {
    return directory_ + "/" + name;
  }

  std::string directory_;
  Key ca_key_;
  Certificate ca_;
};

#endif // TESTS_SUPPORT_CERTIFICATES_H
