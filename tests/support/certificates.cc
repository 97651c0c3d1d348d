#include "tests/support/certificates.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>

namespace {

constexpr long kHour = 3600;

void Check(bool ok, const char *what) {
  if (ok)
    return;
  fprintf(stderr, "certificates: %s\n", what);
  abort();
}

void Extend(X509 *certificate, X509 *issuer, int nid, const char *value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION *e = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  Check(e && X509_add_ext(certificate, e, -1), value);
  X509_EXTENSION_free(e);
}

FILE *Create(const std::string &path) {
  FILE *f = fopen(path.c_str(), "wx");
  Check(f && fchmod(fileno(f), 0600) == 0, path.c_str());
  return f;
}

} // namespace

Certificates::Key Certificates::NewKey() {
  Key key(EVP_EC_gen("P-256"));
  Check(key != nullptr, "make a key");
  return key;
}

// Without extensions and signature; its issuer is itself.
Certificates::Certificate Certificates::NewCertificate(EVP_PKEY *key,
                                                       const std::string &name,
                                                       Flaw flaw) {
  static long serial = 1;
  Certificate certificate(X509_new());
  X509 *c = certificate.get();
  Check(c && X509_set_version(c, 2) &&
            ASN1_INTEGER_set(X509_get_serialNumber(c), serial++),
        "make a certificate");
  X509_gmtime_adj(X509_getm_notBefore(c), flaw == kNotYet ? kHour : -kHour);
  X509_gmtime_adj(X509_getm_notAfter(c), flaw == kExpired ? -60 : 2 * kHour);
  X509_set_pubkey(c, key);
  X509_NAME *subject = X509_get_subject_name(c);
  X509_NAME_add_entry_by_txt(
      subject, "CN", MBSTRING_UTF8,
      reinterpret_cast<const unsigned char *>(name.c_str()), -1, -1, 0);
  X509_set_issuer_name(c, subject);
  return certificate;
}

Certificates::Certificates() {
  char directory[] = "/tmp/cachetd-certs-XXXXXX";
  Check(mkdtemp(directory), "make a directory");
  directory_ = directory;
  ca_key_ = NewKey();
  ca_ = NewCertificate(ca_key_.get(), "test authority " + directory_, kNone);
  Extend(ca_.get(), ca_.get(), NID_basic_constraints, "critical,CA:TRUE");
  Extend(ca_.get(), ca_.get(), NID_key_usage, "critical,keyCertSign,cRLSign");
  Extend(ca_.get(), ca_.get(), NID_subject_key_identifier, "hash");
  Check(X509_sign(ca_.get(), ca_key_.get(), EVP_sha256()), "sign");
  FILE *f = Create(ca());
  Check(PEM_write_X509(f, ca_.get()), "write");
  fclose(f);
}

Certificates::~Certificates() {
  std::string command = "rm -rf '" + directory_ + "'";
  Check(system(command.c_str()) == 0, "remove");
}

std::string Certificates::Make(const std::string &name,
                               const std::string &names, Flaw flaw) const {
  Key key = NewKey();
  Certificate c = NewCertificate(key.get(), name, flaw);
  X509 *issuer = flaw == kSelfSigned ? c.get() : ca_.get();
  X509_set_issuer_name(c.get(), X509_get_subject_name(issuer));
  Extend(c.get(), issuer, NID_basic_constraints, "critical,CA:FALSE");
  if (!names.empty())
    Extend(c.get(), issuer, NID_subject_alt_name, names.c_str());
  EVP_PKEY *by = flaw == kSelfSigned ? key.get() : ca_key_.get();
  Check(X509_sign(c.get(), by, EVP_sha256()), "sign");
  std::string path = File(name + ".pem");
  FILE *f = Create(path);
  Check(PEM_write_X509(f, c.get()) &&
            PEM_write_PrivateKey(f, key.get(), nullptr, nullptr, 0, nullptr,
                                 nullptr),
        "write");
  fclose(f);
  return path;
}

std::string Certificates::Revoke(const std::string &path) const {
  FILE *f = fopen(path.c_str(), "r");
  Check(f, path.c_str());
  Certificate revoked(PEM_read_X509(f, nullptr, nullptr, nullptr));
  fclose(f);
  std::unique_ptr<X509_CRL, Free> crl(X509_CRL_new());
  ASN1_TIME *now = X509_gmtime_adj(nullptr, -60);
  ASN1_TIME *later = X509_gmtime_adj(nullptr, kHour);
  X509_REVOKED *entry = X509_REVOKED_new();
  Check(revoked && crl && now && later && entry &&
            X509_REVOKED_set_serialNumber(
                entry, X509_get_serialNumber(revoked.get())) &&
            X509_REVOKED_set_revocationDate(entry, now) &&
            X509_CRL_set_version(crl.get(), 1) &&
            X509_CRL_set_issuer_name(crl.get(),
                                     X509_get_subject_name(ca_.get())) &&
            X509_CRL_set1_lastUpdate(crl.get(), now) &&
            X509_CRL_set1_nextUpdate(crl.get(), later) &&
            X509_CRL_add0_revoked(crl.get(), entry) &&
            X509_CRL_sign(crl.get(), ca_key_.get(), EVP_sha256()),
        "make a list");
  ASN1_TIME_free(now);
  ASN1_TIME_free(later);
  std::string to = path + ".ca";
  f = Create(to);
  Check(PEM_write_X509(f, ca_.get()) && PEM_write_X509_CRL(f, crl.get()),
        "write");
  fclose(f);
  return to;
}

std::string Certificates::SplitKey(const std::string &path,
                                   const std::string &password) const {
  FILE *f = fopen(path.c_str(), "r");
  Check(f, path.c_str());
  Key key(PEM_read_PrivateKey(f, nullptr, nullptr, nullptr));
  fclose(f);
  std::string to = path + ".key";
  f = Create(to);
  Check(key && PEM_write_PKCS8PrivateKey(
                   f, key.get(), password.empty() ? nullptr : EVP_aes_128_cbc(),
                   password.data(), int(password.size()), nullptr, nullptr),
        "write");
  fclose(f);
  return to;
}

std::string Certificates::Write(const std::string &name,
                                const std::string &bytes) const {
  std::string path = File(name);
  FILE *f = Create(path);
  Check(fwrite(bytes.data(), 1, bytes.size(), f) == bytes.size(), "write");
  fclose(f);
  return path;
}
