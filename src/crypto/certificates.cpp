#include "tercet/crypto/certificates.h"

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <system_error>
#include <utility>
#include <vector>

#include "crypto/certificates_internal.h"
#include "crypto/openssl_handles.h"
#include "tercet/base/error.h"

namespace tercet::crypto {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDays = 36'500;
constexpr const char* kAuthority = "tercet certificate authority";

/// Throws with OpenSSL's reason unless `done`.
void Check(bool done, const char* what) {
  if (done) return;
  std::array<char, 256> reason{};
  ERR_error_string_n(ERR_get_error(), reason.data(), reason.size());
  throw InternalError(fmt::format("OpenSSL could not {}: {}", what, reason.data()));
}

std::string SystemReason(int code) { return std::generic_category().message(code); }

KeyHandle NewKey() {
  KeyHandle key(EVP_EC_gen("P-256"));
  Check(key != nullptr, "make a P-256 key");
  return key;
}

void AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const ExtensionHandle extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value));
  Check(extension != nullptr && X509_add_ext(certificate, extension.get(), -1) == 1,
        "add a certificate extension");
}

/// A certificate without extensions and signature.
CertificateHandle Draft(const std::string& subject, EVP_PKEY* key, const Validity& validity) {
  CertificateHandle certificate(X509_new());
  Check(certificate != nullptr && X509_set_version(certificate.get(), X509_VERSION_3) == 1,
        "make a certificate");
  const BigNumberHandle serial(BN_new());
  Check(serial != nullptr && BN_rand(serial.get(), 127, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1 &&
            BN_to_ASN1_INTEGER(serial.get(), X509_get_serialNumber(certificate.get())) != nullptr,
        "draw a serial number");
  Check(X509_time_adj_ex(X509_getm_notBefore(certificate.get()), validity.from_days, 0, nullptr) !=
                nullptr &&
            X509_time_adj_ex(X509_getm_notAfter(certificate.get()), validity.to_days, 0, nullptr) !=
                nullptr,
        "set a certificate's dates");
  Check(X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>(subject.data()),
                                   static_cast<int>(subject.size()), -1, 0) == 1 &&
            X509_set_pubkey(certificate.get(), key) == 1,
        "fill in a certificate");
  return certificate;
}

void Sign(X509* certificate, const X509* issuer, EVP_PKEY* issuer_key) {
  Check(X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) == 1 &&
            X509_sign(certificate, issuer_key, EVP_sha256()) > 0,
        "sign a certificate");
}

CertificateHandle MakeAuthority(EVP_PKEY* key, const Validity& validity) {
  auto certificate = Draft(kAuthority, key, validity);
  X509* c = certificate.get();
  AddExtension(c, c, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
  AddExtension(c, c, NID_key_usage, "critical,keyCertSign,cRLSign");
  AddExtension(c, c, NID_subject_key_identifier, "hash");
  Sign(c, c, key);
  return certificate;
}

CertificateHandle MakeLeaf(int party, EVP_PKEY* key, X509* authority, EVP_PKEY* authority_key,
                           const Validity& validity) {
  auto certificate = Draft(PartyName(party), key, validity);
  X509* c = certificate.get();
  AddExtension(c, authority, NID_basic_constraints, "critical,CA:FALSE");
  AddExtension(c, authority, NID_key_usage, "critical,digitalSignature");
  AddExtension(c, authority, NID_ext_key_usage, "serverAuth,clientAuth");
  AddExtension(c, authority, NID_subject_alt_name,
               fmt::format("DNS:party-{}.tercet", party).c_str());
  AddExtension(c, authority, NID_subject_key_identifier, "hash");
  AddExtension(c, authority, NID_authority_key_identifier, "keyid");
  Sign(c, authority, authority_key);
  return certificate;
}

/// Files that appear under their names together at the end; what was begun is removed when that
/// fails.
class FileSet {
 public:
  FileSet(fs::path directory, bool overwrite)
      : directory_(std::move(directory)), overwrite_(overwrite) {
    std::error_code ec;
    if (directory_.has_parent_path()) fs::create_directories(directory_.parent_path(), ec);
    if (::mkdir(directory_.c_str(), 0700) == 0) {
      made_directory_ = true;
    } else if (errno != EEXIST || !fs::is_directory(directory_, ec)) {
      throw ConfigError(directory_.string(), "cannot be made a directory: " + SystemReason(errno));
    }
  }
  FileSet(const FileSet&) = delete;
  FileSet& operator=(const FileSet&) = delete;
  ~FileSet() {
    if (committed_) return;
    std::error_code ec;
    for (const auto& name : begun_) fs::remove(Part(name), ec);
    if (!overwrite_) {
      for (const auto& name : placed_) fs::remove(directory_ / name, ec);
    }
    if (made_directory_) fs::remove(directory_, ec);  // only when empty
  }

  void Expect(const std::string& name) const {
    std::error_code ec;
    if (!overwrite_ && fs::exists(fs::symlink_status(directory_ / name, ec))) {
      throw ConfigError((directory_ / name).string(),
                        "exists already and is not overwritten without being told to");
    }
  }

  template <class Write>
  void Add(const std::string& name, ::mode_t mode, Write&& write) {
    const fs::path part = Part(name);
    std::error_code ec;
    fs::remove(part, ec);
    const int fd = ::open(part.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
      throw ConfigError((directory_ / name).string(), "cannot be written: " + SystemReason(errno));
    begun_.push_back(name);
    std::FILE* file = ::fdopen(fd, "w");
    if (file == nullptr) {
      ::close(fd);
      throw ConfigError((directory_ / name).string(), "cannot be written: " + SystemReason(errno));
    }
    const bool written = write(file) == 1;
    if (const bool closed = std::fclose(file) == 0; !written || !closed) {
      throw ConfigError((directory_ / name).string(), "cannot be written: " + SystemReason(errno));
    }
  }

  void Commit() {
    for (const auto& name : begun_) {
      std::error_code ec;
      fs::rename(Part(name), directory_ / name, ec);
      if (ec) throw ConfigError((directory_ / name).string(), "cannot be written: " + ec.message());
      placed_.push_back(name);
    }
    committed_ = true;
  }

 private:
  fs::path Part(const std::string& name) const { return directory_ / (name + ".part"); }

  fs::path directory_;
  bool overwrite_;
  bool made_directory_ = false;
  bool committed_ = false;
  std::vector<std::string> begun_, placed_;
};

void AddPair(FileSet& files, const std::string& name, X509* certificate, EVP_PKEY* key) {
  files.Add(name + ".pem", 0644, [&](std::FILE* f) { return PEM_write_X509(f, certificate); });
  files.Add(name + "-key.pem", 0600, [&](std::FILE* f) {
    return PEM_write_PrivateKey(f, key, nullptr, nullptr, 0, nullptr, nullptr);
  });
}

}  // namespace

std::string PartyName(int party) { return fmt::format("tercet party {}", party); }

std::optional<std::string> CommonName(const x509_st* certificate) {
  const X509_NAME* subject = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at < 0 || X509_NAME_get_index_by_NID(subject, NID_commonName, at) >= 0) return std::nullopt;
  const ASN1_STRING* text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at));
  return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                     static_cast<std::size_t>(ASN1_STRING_length(text)));
}

void MakeCertificatesValid(const fs::path& directory, const Validity& validity, bool overwrite) {
  fs::path target = directory.lexically_normal();
  if (!target.has_filename()) target = target.parent_path();
  FileSet files(target, overwrite);
  std::array<std::string, 3> names;
  for (int party = 0; party < 3; ++party)
    names[static_cast<std::size_t>(party)] = fmt::format("party{}", party);
  for (const auto& name : {std::string("ca"), names[0], names[1], names[2]}) {
    files.Expect(name + ".pem");
    files.Expect(name + "-key.pem");
  }

  const KeyHandle authority_key = NewKey();
  const CertificateHandle authority = MakeAuthority(
      authority_key.get(), {std::min(validity.from_days, -1), std::max(validity.to_days, 1)});
  AddPair(files, "ca", authority.get(), authority_key.get());
  for (int party = 0; party < 3; ++party) {
    const KeyHandle key = NewKey();
    const CertificateHandle leaf =
        MakeLeaf(party, key.get(), authority.get(), authority_key.get(), validity);
    AddPair(files, names[static_cast<std::size_t>(party)], leaf.get(), key.get());
  }
  files.Commit();
}

void MakeCertificates(const fs::path& directory, int days, bool overwrite) {
  if (days < 1 || days > kMaxDays) {
    throw ConfigError(
        "days", fmt::format("a certificate is valid for 1 to {} days, got {}", kMaxDays, days));
  }
  // A day of slack at the start, for machines whose clocks differ.
  MakeCertificatesValid(directory, {-1, days}, overwrite);
}

std::string Sha256Hex(std::string_view text) {
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(text.data()),
                     text.size());
  std::string hex;
  for (const unsigned char byte : digest) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace tercet::crypto
