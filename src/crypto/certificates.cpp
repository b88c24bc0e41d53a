// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/certificates.h"

#include <fmt/chrono.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <ctime>
#include <system_error>
#include <utility>
#include <vector>

#include "base/json.h"
#include "crypto/certificates_internal.h"
#include "crypto/openssl_handles.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"
#include "tercet/crypto/sealing.h"

namespace tercet::crypto {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFingerprintPrefix = "sha256:";
constexpr const char* kAuthority = "tercet certificate authority";

/// Throws with OpenSSL's reason unless `done`.
void Check(bool done, const char* what) {
  if (done) return;
  std::array<char, 256> reason{};
  ERR_error_string_n(ERR_get_error(), reason.data(), reason.size());
  throw InternalError(fmt::format("OpenSSL could not {}: {}", what, reason.data()));
}

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

/// A certificate of `name` for `hosts` (as OpenSSL writes subjectAltName); without an authority it
/// signs itself.
CertificateHandle MakeLeaf(const std::string& name, const std::string& hosts, EVP_PKEY* key,
                           X509* authority, EVP_PKEY* authority_key, const Validity& validity) {
  auto certificate = Draft(name, key, validity);
  X509* c = certificate.get();
  X509* issuer = authority != nullptr ? authority : c;
  AddExtension(c, issuer, NID_basic_constraints, "critical,CA:FALSE");
  AddExtension(c, issuer, NID_key_usage, "critical,digitalSignature");
  AddExtension(c, issuer, NID_ext_key_usage, "serverAuth,clientAuth");
  AddExtension(c, issuer, NID_subject_alt_name, hosts.c_str());
  AddExtension(c, issuer, NID_subject_key_identifier, "hash");
  if (authority != nullptr) AddExtension(c, issuer, NID_authority_key_identifier, "keyid");
  Sign(c, issuer, authority != nullptr ? authority_key : key);
  return certificate;
}

BioHandle ToPem(X509* certificate) {
  BioHandle pem(BIO_new(BIO_s_mem()));
  Check(pem != nullptr && PEM_write_bio_X509(pem.get(), certificate) == 1, "write a certificate");
  return pem;
}

/// Wiped when it goes.
BioHandle ToPem(EVP_PKEY* key) {
  BioHandle pem(BIO_new(BIO_s_secmem()));
  Check(pem != nullptr &&
            PEM_write_bio_PrivateKey(pem.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1,
        "write a private key");
  return pem;
}

std::string_view Text(const BioHandle& pem) {
  char* text = nullptr;
  const long size = BIO_get_mem_data(pem.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

/// Keys and certificates on the way to a directory, which is made where it is missing and goes
/// again if they are not written.
class FileSet {
 public:
  FileSet(fs::path directory, bool overwrite)
      : directory_(std::move(directory)), overwrite_(overwrite) {
    made_directory_ = MakePrivateDirectory(directory_);
  }
  FileSet(const FileSet&) = delete;
  FileSet& operator=(const FileSet&) = delete;
  ~FileSet() {
    std::error_code ec;
    if (made_directory_ && !written_) fs::remove(directory_, ec);  // only when empty
  }

  /// Throws unless both files of a pair may be written; `advice` says what to do when one is there.
  void ExpectPair(const std::string& name, const char* advice) const {
    std::error_code ec;
    for (const auto& file : {CertificateFile(name), KeyFile(name)}) {
      if (!overwrite_ && fs::exists(fs::symlink_status(file, ec)))
        throw ConfigError(file.string(), fmt::format("exists already; {}", advice));
    }
  }

  void AddCertificate(const std::string& name, X509* certificate) {
    Add(CertificateFile(name), ToPem(certificate), FileRights::kUsual);
  }
  void AddKey(const std::string& name, EVP_PKEY* key) {
    Add(KeyFile(name), ToPem(key), FileRights::kOwner);
  }

  void Write() {
    WriteFiles(outputs_);
    written_ = true;
  }

 private:
  fs::path CertificateFile(const std::string& name) const { return directory_ / (name + ".pem"); }
  fs::path KeyFile(const std::string& name) const { return directory_ / (name + "-key.pem"); }

  void Add(fs::path file, BioHandle pem, FileRights rights) {
    outputs_.push_back({std::move(file), Text(pem), rights, overwrite_});
    texts_.push_back(std::move(pem));
  }

  fs::path directory_;
  bool overwrite_;
  bool made_directory_ = false;
  bool written_ = false;
  std::vector<BioHandle> texts_;
  std::vector<Output> outputs_;  ///< of texts_
};

void AddPair(FileSet& files, const std::string& name, X509* certificate, EVP_PKEY* key) {
  files.AddCertificate(name, certificate);
  files.AddKey(name, key);
}

CertificateHandle MakePartyLeaf(int party, EVP_PKEY* key, X509* authority, EVP_PKEY* authority_key,
                                const Validity& validity) {
  return MakeLeaf(PartyName(party), fmt::format("DNS:party-{}.tercet", party), key, authority,
                  authority_key, validity);
}

/// The authority, which is no party, and then the three.
void MakeAll(const Validity& validity,
             const std::function<void(std::optional<int>, X509*, EVP_PKEY*)>& take) {
  const KeyHandle authority_key = NewKey();
  const CertificateHandle authority = MakeAuthority(
      authority_key.get(), {std::min(validity.from_days, -1), std::max(validity.to_days, 1)});
  take(std::nullopt, authority.get(), authority_key.get());
  for (int party = 0; party < 3; ++party) {
    const KeyHandle key = NewKey();
    const CertificateHandle leaf =
        MakePartyLeaf(party, key.get(), authority.get(), authority_key.get(), validity);
    take(party, leaf.get(), key.get());
  }
}

void CheckParty(int party) {
  TERCET_CHECK(party >= 0 && party < 3, "party {} is not in 0..2", party);
}

std::string PartyFile(int party) { return fmt::format("party{}", party); }

void CheckDays(int days) {
  if (days < 1 || days > kMaxCertificateDays) {
    throw ConfigError("--days", fmt::format("a certificate is valid for 1 to {} days, got {}",
                                            kMaxCertificateDays, days));
  }
}

/// A day of slack at the start, for machines whose clocks differ.
Validity FromToday(int days) {
  CheckDays(days);
  return {-1, days};
}

BioHandle Pem(const std::vector<std::uint8_t>& bytes) {
  // No bytes are not no memory.
  const void* begin = bytes.empty() ? static_cast<const void*>("") : bytes.data();
  BioHandle pem(BIO_new_mem_buf(begin, static_cast<int>(bytes.size())));
  Check(pem != nullptr, "read from memory");
  return pem;
}

CertificateHandle LoadCertificate(const fs::path& file) {
  const auto bytes = ReadFile(file, kCertificateFile);
  CertificateHandle certificate(PEM_read_bio_X509(Pem(bytes).get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr)
    throw ConfigError(file.string(), "holds no certificate in PEM format");
  for (const ASN1_TIME* time :
       {X509_get0_notBefore(certificate.get()), X509_get0_notAfter(certificate.get())}) {
    std::tm unused{};
    if (ASN1_TIME_to_tm(time, &unused) != 1)
      throw ConfigError(file.string(), "holds a certificate with a date that is none");
  }
  return certificate;
}

KeyHandle LoadKey(const fs::path& file) {
  // Without a callback OpenSSL would ask for the passphrase of an encrypted key on the terminal.
  const auto no_passphrase = [](char*, int, int, void*) { return -1; };
  auto bytes = ReadPrivateFile(file, kKeyFile);
  KeyHandle key(PEM_read_bio_PrivateKey(Pem(bytes).get(), nullptr, no_passphrase, nullptr));
  sodium_memzero(bytes.data(), bytes.size());
  if (key == nullptr)
    throw ConfigError(file.string(), "holds no private key in PEM format without passphrase");
  return key;
}

/// The common name in a certificate's subject or issuer; nothing when there is none or more than
/// one.
std::optional<std::string> CommonName(const X509_NAME* name) {
  const int at = X509_NAME_get_index_by_NID(name, NID_commonName, -1);
  if (at < 0 || X509_NAME_get_index_by_NID(name, NID_commonName, at) >= 0) return std::nullopt;
  const ASN1_STRING* text = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
  return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                     static_cast<std::size_t>(ASN1_STRING_length(text)));
}

std::chrono::sys_seconds Time(const ASN1_TIME* time) {
  std::tm parts{};
  Check(ASN1_TIME_to_tm(time, &parts) == 1, "read a certificate's dates");
  return std::chrono::sys_seconds(std::chrono::seconds(::timegm(&parts)));
}

Fingerprint KeyFingerprint(const X509* certificate) {
  unsigned char* encoded = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &encoded);
  Check(size > 0, "encode a certificate's public key");
  std::array<std::uint8_t, Fingerprint::kBytes> digest{};
  crypto_hash_sha256(digest.data(), encoded, static_cast<unsigned long long>(size));
  OPENSSL_free(encoded);
  return Fingerprint(digest);
}

}  // namespace

std::string PartyName(int party) { return fmt::format("tercet party {}", party); }

std::optional<std::string> CommonName(const x509_st* certificate) {
  return CommonName(X509_get_subject_name(certificate));
}

std::optional<Fingerprint> Fingerprint::Parse(std::string_view text) {
  std::array<std::uint8_t, kBytes> digest{};
  if (text.size() != kFingerprintPrefix.size() + 2 * kBytes ||
      !text.starts_with(kFingerprintPrefix))
    return std::nullopt;
  const std::string_view hex = text.substr(kFingerprintPrefix.size());
  const char* end = nullptr;
  if (sodium_hex2bin(digest.data(), digest.size(), hex.data(), hex.size(), nullptr, nullptr,
                     &end) != 0 ||
      end != hex.data() + hex.size())
    return std::nullopt;
  return Fingerprint(digest);
}

std::string Fingerprint::Text() const { return std::string(kFingerprintPrefix) + HexText(digest_); }

bool Fingerprint::operator==(const Fingerprint& other) const {
  return sodium_memcmp(digest_.data(), other.digest_.data(), kBytes) == 0;
}

Certificate Describe(const x509_st* certificate) {
  const std::string name = CommonName(certificate).value_or("");
  std::optional<int> party;
  for (int p = 0; p < 3; ++p)
    if (name == PartyName(p)) party = p;
  const X509_NAME* issuer = X509_get_issuer_name(certificate);
  return {Printable(name),
          party,
          Printable(CommonName(issuer).value_or("")),
          X509_NAME_cmp(issuer, X509_get_subject_name(certificate)) == 0,
          Time(X509_get0_notBefore(certificate)),
          Time(X509_get0_notAfter(certificate)),
          KeyFingerprint(certificate)};
}

Certificate ReadCertificate(const fs::path& file) { return Describe(LoadCertificate(file).get()); }

std::string DateText(std::chrono::sys_seconds time) {
  return fmt::format("{:%F}", fmt::gmtime(time.time_since_epoch().count()));
}

std::string HowToRenew(const Certificate& certificate) {
  if (certificate.self_signed && certificate.party)
    return fmt::format(
        "party {0} renews it with `tercet keygen --party {0} --renew DIRECTORY`, which keeps the "
        "key, "
        "so the others need not change anything",
        *certificate.party);
  return fmt::format("a new one comes from whoever has the key of \"{}\"", certificate.issuer);
}

std::optional<std::string> ExpiryWarning(const Certificate& certificate,
                                         std::chrono::sys_seconds now) {
  using std::chrono::days;
  const auto left = certificate.not_after - now;
  if (left > days(kExpiryWarningDays)) return std::nullopt;
  return fmt::format("the certificate of \"{}\" expires on {}, in {} days; {}", certificate.name,
                     DateText(certificate.not_after),
                     std::chrono::duration_cast<days>(left).count(), HowToRenew(certificate));
}

void MakeCertificatesValid(const fs::path& directory, const Validity& validity, bool overwrite) {
  FileSet files(directory, overwrite);
  for (const auto& name : {std::string("ca"), PartyFile(0), PartyFile(1), PartyFile(2)})
    files.ExpectPair(name, "--force replaces it");

  MakeAll(validity, [&](std::optional<int> party, X509* certificate, EVP_PKEY* key) {
    AddPair(files, party ? PartyFile(*party) : "ca", certificate, key);
  });
  files.Write();
}

void MakeCertificates(const fs::path& directory, int days, bool overwrite) {
  MakeCertificatesValid(directory, FromToday(days), overwrite);
}

void MakeCertificates(
    int days, const std::function<void(std::optional<int> party, std::string_view certificate,
                                       std::string_view key)>& take) {
  MakeAll(FromToday(days), [&](std::optional<int> party, X509* certificate, EVP_PKEY* key) {
    const BioHandle certificate_pem = ToPem(certificate),
                    key_pem = party ? ToPem(key) : BioHandle();
    take(party, Text(certificate_pem), party ? Text(key_pem) : std::string_view());
  });
}

Certificate MakePartyCertificateValid(const fs::path& directory, int party,
                                      const Validity& validity, bool overwrite) {
  CheckParty(party);
  FileSet files(directory, overwrite);
  files.ExpectPair(
      PartyFile(party),
      "--force replaces it, and then the others must pin the new key; --renew keeps the key");
  const KeyHandle key = NewKey();
  const CertificateHandle leaf = MakePartyLeaf(party, key.get(), nullptr, nullptr, validity);
  AddPair(files, PartyFile(party), leaf.get(), key.get());
  files.Write();
  return Describe(leaf.get());
}

Certificate MakePartyCertificate(const fs::path& directory, int party, int days, bool overwrite) {
  return MakePartyCertificateValid(directory, party, FromToday(days), overwrite);
}

void MakeServerCertificate(const fs::path& directory, const std::string& name,
                           const std::string& host, int days, bool overwrite) {
  const auto letters = host.find_first_not_of("0123456789.");
  const bool address = letters == std::string::npos || host.find(':') != std::string::npos;
  // What OpenSSL reads as more than one name, or as a file to read, is no host.
  if (host.empty() || host.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz"
                                             "ABCDEFGHIJKLMNOPQRSTUVWXYZ.:-") != std::string::npos)
    throw ConfigError("host", fmt::format("\"{}\" is no name and no address", Printable(host)));
  FileSet files(directory, overwrite);
  files.ExpectPair(name, "--force replaces it");
  const KeyHandle key = NewKey();
  const CertificateHandle leaf =
      MakeLeaf(fmt::format("tercet service {}", host), (address ? "IP:" : "DNS:") + host, key.get(),
               nullptr, nullptr, FromToday(days));
  AddPair(files, name, leaf.get(), key.get());
  files.Write();
}

Certificate RenewPartyCertificate(const fs::path& directory, int party, int days) {
  CheckParty(party);
  const Validity validity = FromToday(days);
  const fs::path file = directory / (PartyFile(party) + ".pem"),
                 key_file = directory / (PartyFile(party) + "-key.pem");
  const CertificateHandle old = LoadCertificate(file);
  const Certificate described = Describe(old.get());
  if (described.party != party)
    throw ConfigError(file.string(), fmt::format("is of \"{}\", expected \"{}\"", described.name,
                                                 PartyName(party)));
  if (!described.self_signed)
    throw ConfigError(file.string(), fmt::format("is signed by \"{}\", which alone can renew it",
                                                 described.issuer));
  const KeyHandle key = LoadKey(key_file);
  if (X509_check_private_key(old.get(), key.get()) != 1)
    throw ConfigError(key_file.string(), "is not the key of " + file.string());
  FileSet files(directory, true);
  const CertificateHandle leaf = MakePartyLeaf(party, key.get(), nullptr, nullptr, validity);
  files.AddCertificate(PartyFile(party), leaf.get());
  files.Write();
  return Describe(leaf.get());
}

std::string Sha256Hex(std::string_view text) {
  std::array<unsigned char, crypto_hash_sha256_BYTES> digest{};
  crypto_hash_sha256(digest.data(), reinterpret_cast<const unsigned char*>(text.data()),
                     text.size());
  return HexText(digest);
}

std::string KeyedTag(const std::filesystem::path& key, std::string_view text) {
  auto secret = ReadPrivateFile(key, kKeyFile);
  crypto_auth_hmacsha256_state state;
  crypto_auth_hmacsha256_init(&state, secret.data(), secret.size());
  sodium_memzero(secret.data(), secret.size());
  crypto_auth_hmacsha256_update(&state, reinterpret_cast<const unsigned char*>(text.data()),
                                text.size());
  std::array<unsigned char, crypto_auth_hmacsha256_BYTES> tag{};
  crypto_auth_hmacsha256_final(&state, tag.data());
  sodium_memzero(&state, sizeof state);
  return HexText(tag);
}

}  // namespace tercet::crypto
