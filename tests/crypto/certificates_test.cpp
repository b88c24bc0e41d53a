// SPDX-License-Identifier: Apache-2.0
#include "tercet/crypto/certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <fstream>
#include <iterator>
#include <string>

#include "base/scratch.h"
#include "crypto/certificates_internal.h"
#include "crypto/openssl_handles.h"
#include "tercet/base/error.h"

namespace tercet::crypto {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Throws;
using testing::ThrowsMessage;

CertificateHandle Load(const fs::path& path) {
  std::FILE* file = std::fopen(path.c_str(), "r");
  EXPECT_NE(file, nullptr) << path;
  CertificateHandle certificate(PEM_read_X509(file, nullptr, nullptr, nullptr));
  std::fclose(file);
  EXPECT_NE(certificate, nullptr) << path;
  return certificate;
}

// Of "CN=somebody<escape>else"; made by openssl req.
constexpr const char* kKnownCertificate = R"(-----BEGIN CERTIFICATE-----
MIIBhTCCASugAwIBAgIUMAIS07cyHo7qeYmdih/6owU3gBYwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNc29tZWJvZHkbZWxzZTAeFw0yNjExMjYwMzQxMzhaFw0zNjEx
MjMwMzQxMzhaMBgxFjAUBgNVBAMMDXNvbWVib2R5G2Vsc2UwWTATBgcqhkjOPQIB
BggqhkjOPQMBBwNCAAQC3wOoA7py8C8zORWLle9VSYH0RpDtA0ifz+Z0qS3oMJ0R
Yg4m5MeKWfqEBY0AeH+sn5ev5VRr8tbwZJZnHpf9o1MwUTAdBgNVHQ4EFgQUmYx0
PG/Rsm7BQv7c1XtLJFuqax0wHwYDVR0jBBgwFoAUmYx0PG/Rsm7BQv7c1XtLJFuq
ax0wDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEAriy/LF1x0ZMn
1+VFcAfLvbQdc4fEyB7n6pWy8HaHdtICIB01zzxCNSaYMpZ2c3hVv7wMofXCDV78
UjGyPdaPr6HF
-----END CERTIFICATE-----
)";
constexpr const char* kKnownFingerprint =
    "sha256:a73fa90319fc82590a18811485ea03f8000f0ea727976e2f66e80150846d76f6";

int Mode(const fs::path& path) {
  struct ::stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return static_cast<int>(info.st_mode & 0777U);
}

TEST(CertificatesTest, MakesAnAuthorityAndThreeParties) {
  const ScratchDirectory temp;
  const fs::path dir = temp.Path() / "new" / "certificates";
  MakeCertificates(dir, 30, false);
  EXPECT_EQ(Mode(dir), 0700);
  EXPECT_EQ(Mode(dir / "ca-key.pem"), 0600);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 8);
  const auto ca = Load(dir / "ca.pem");
  EXPECT_EQ(X509_check_ca(ca.get()), 1);
  for (int party = 0; party < 3; ++party) {
    const auto leaf = Load(dir / fmt::format("party{}.pem", party));
    EXPECT_EQ(Mode(dir / fmt::format("party{}-key.pem", party)), 0600);
    EXPECT_EQ(CommonName(leaf.get()), fmt::format("tercet party {}", party));
    EXPECT_EQ(
        X509_check_host(leaf.get(), fmt::format("party-{}.tercet", party).c_str(), 0, 0, nullptr),
        1);
    EXPECT_EQ(X509_verify(leaf.get(), X509_get0_pubkey(ca.get())), 1);
    EXPECT_EQ(X509_check_ca(leaf.get()), 0);
    EXPECT_EQ(X509_check_purpose(leaf.get(), X509_PURPOSE_SSL_CLIENT, 0), 1);
    EXPECT_EQ(X509_check_purpose(leaf.get(), X509_PURPOSE_SSL_SERVER, 0), 1);
    EXPECT_EQ(X509_cmp_current_time(X509_get0_notBefore(leaf.get())), -1);
    EXPECT_EQ(X509_cmp_current_time(X509_get0_notAfter(leaf.get())), 1);
  }
}

TEST(CertificatesTest, HandsOverPairsWithoutTheAuthoritysKey) {
  const ScratchDirectory temp;
  std::vector<std::optional<int>> order;
  MakeCertificates(
      30, [&](std::optional<int> party, std::string_view certificate, std::string_view key) {
        order.push_back(party);
        const std::string name = party ? fmt::format("party{}", *party) : "ca";
        std::ofstream(temp.Path() / (name + ".pem")) << certificate;
        if (!party) {
          EXPECT_EQ(key, "");
          return;
        }
        EXPECT_THAT(std::string(key), testing::StartsWith("-----BEGIN PRIVATE "
                                                          "KEY-----\n"));
        EXPECT_THAT(std::string(certificate), testing::Not(HasSubstr("KEY")));
        const auto leaf = Load(temp.Path() / (name + ".pem")), ca = Load(temp.Path() / "ca.pem");
        EXPECT_EQ(CommonName(leaf.get()), fmt::format("tercet party {}", *party));
        EXPECT_EQ(X509_verify(leaf.get(), X509_get0_pubkey(ca.get())), 1);
      });
  EXPECT_THAT(order, testing::ElementsAre(std::nullopt, 0, 1, 2));
}

TEST(CertificatesTest, OverwritesOnlyWhenTold) {
  const ScratchDirectory temp;
  std::ofstream(temp.Path() / "party1.pem") << "mine";
  EXPECT_THAT(
      [&] { MakeCertificates(temp.Path(), 30, false); },
      ThrowsMessage<ConfigError>(HasSubstr("party1.pem: exists already; --force replaces it")));
  EXPECT_EQ(std::distance(fs::directory_iterator(temp.Path()), fs::directory_iterator()), 1);
  MakeCertificates(temp.Path(), 30, true);
  EXPECT_EQ(CommonName(Load(temp.Path() / "party1.pem").get()), "tercet party 1");
}

TEST(CertificatesTest, RemovesWhatWasBegun) {
  const ScratchDirectory temp;
  fs::create_directories(temp.Path() / "party2-key.pem" / "in the way");
  EXPECT_THROW(MakeCertificates(temp.Path(), 30, true), ConfigError);
  EXPECT_EQ(std::distance(fs::directory_iterator(temp.Path()), fs::directory_iterator()), 1);
  std::ofstream(temp.Path() / "file") << "x";
  EXPECT_THAT([&] { MakeCertificates(temp.Path() / "file", 30, false); },
              ThrowsMessage<ConfigError>(HasSubstr("cannot be made a directory")));
}

// Whoever may write to the directory could put keys of their own there.
TEST(CertificatesTest, MakesNoKeysWhereOthersMayWrite) {
  const ScratchDirectory temp;
  fs::permissions(temp.Path(), fs::perms::all);
  const auto refused = ThrowsMessage<ConfigError>(
      HasSubstr(temp.Path().string() + ": has mode 777, so others than its owner may replace"));
  EXPECT_THAT([&] { MakeCertificates(temp.Path(), 30, false); }, refused);
  EXPECT_THAT([&] { MakePartyCertificate(temp.Path(), 1, 30, false); }, refused);
  EXPECT_TRUE(fs::is_empty(temp.Path()));
  fs::permissions(temp.Path(), fs::perms::owner_all);
  MakePartyCertificate(temp.Path(), 1, 30, false);
  fs::permissions(temp.Path(), fs::perms::all);
  EXPECT_THAT([&] { RenewPartyCertificate(temp.Path(), 1, 30); }, refused);
}

TEST(CertificatesTest, ChecksDays) {
  const ScratchDirectory temp;
  for (const int days : {0, -1, 3'651}) {
    EXPECT_THAT([&] { MakeCertificates(temp.Path() / "x", days, false); },
                ThrowsMessage<ConfigError>(HasSubstr("1 to 3650 days")));
  }
  EXPECT_FALSE(fs::exists(temp.Path() / "x"));
}

TEST(CertificatesTest, MakesExpiredOnesForTests) {
  const ScratchDirectory temp;
  MakeCertificatesValid(temp.Path(), {-3, -2}, false);
  EXPECT_EQ(X509_cmp_current_time(X509_get0_notAfter(Load(temp.Path() / "party0.pem").get())), -1);
  EXPECT_EQ(X509_cmp_current_time(X509_get0_notAfter(Load(temp.Path() / "ca.pem").get())), 1);
}

TEST(PartyCertificateTest, OnePartysKeyAndNothingElse) {
  const ScratchDirectory temp;
  const fs::path dir = temp.Path() / "keys";
  const auto made = MakePartyCertificate(dir, 2, 30, false);
  EXPECT_EQ(Mode(dir), 0700);
  EXPECT_EQ(Mode(dir / "party2-key.pem"), 0600);
  EXPECT_EQ(std::distance(fs::directory_iterator(dir), fs::directory_iterator()), 2);
  EXPECT_EQ(made.party, 2);
  EXPECT_EQ(made.name, "tercet party 2");
  EXPECT_TRUE(made.self_signed);
  const auto leaf = Load(dir / "party2.pem");
  EXPECT_EQ(X509_verify(leaf.get(), X509_get0_pubkey(leaf.get())), 1);
  EXPECT_EQ(X509_check_ca(leaf.get()), 0);
  const auto read = ReadCertificate(dir / "party2.pem");
  EXPECT_EQ(read.fingerprint, made.fingerprint);
  EXPECT_EQ(read.not_after - read.not_before, std::chrono::days(31));
  EXPECT_THAT([&] { MakePartyCertificate(dir, 2, 30, false); },
              ThrowsMessage<ConfigError>(
                  AllOf(HasSubstr("--force replaces it"), HasSubstr("--renew keeps the key"))));
  EXPECT_FALSE(MakePartyCertificate(dir, 2, 30, true).fingerprint == made.fingerprint);
}

TEST(PartyCertificateTest, IsRenewedWithTheSameKey) {
  const ScratchDirectory temp;
  const auto old = MakePartyCertificateValid(temp.Path(), 1, {-9, -2}, false);
  const auto key = ReadAll(temp.Path() / "party1-key.pem");
  const auto renewed = RenewPartyCertificate(temp.Path(), 1, 40);
  EXPECT_EQ(renewed.fingerprint, old.fingerprint);
  EXPECT_GT(renewed.not_after, old.not_after + std::chrono::days(39));
  EXPECT_EQ(ReadAll(temp.Path() / "party1-key.pem"), key);
  EXPECT_EQ(ReadCertificate(temp.Path() / "party1.pem").not_after, renewed.not_after);
  EXPECT_THAT([&] { RenewPartyCertificate(temp.Path(), 2, 40); }, Throws<ConfigError>());
  EXPECT_THAT([&] { RenewPartyCertificate(temp.Path(), 1, 0); }, Throws<ConfigError>());
  // Neither with another's key nor where an authority has signed.
  MakePartyCertificate(temp.Path() / "other", 1, 40, false);
  fs::copy_file(temp.Path() / "other/party1-key.pem", temp.Path() / "party1-key.pem",
                fs::copy_options::overwrite_existing);
  EXPECT_THAT([&] { RenewPartyCertificate(temp.Path(), 1, 40); },
              ThrowsMessage<ConfigError>(HasSubstr("is not the key of")));
  MakeCertificates(temp.Path() / "all", 30, false);
  EXPECT_THAT([&] { RenewPartyCertificate(temp.Path() / "all", 1, 40); },
              ThrowsMessage<ConfigError>(HasSubstr("signed by \"tercet certificate authority\"")));
}

TEST(PartyCertificateTest, WarnsFromFourteenDaysBeforeTheEnd) {
  const ScratchDirectory temp;
  const auto made = MakePartyCertificate(temp.Path(), 0, 100, false);
  EXPECT_FALSE(ExpiryWarning(made, made.not_after - std::chrono::days(15)));
  EXPECT_FALSE(
      ExpiryWarning(made, made.not_after - std::chrono::days(14) - std::chrono::seconds(1)));
  const auto warning = ExpiryWarning(made, made.not_after - std::chrono::days(14));
  ASSERT_TRUE(warning);
  EXPECT_THAT(*warning,
              AllOf(HasSubstr("\"tercet party 0\" expires on " + DateText(made.not_after)),
                    HasSubstr("in 14 days"), HasSubstr("--party 0 --renew")));
}

TEST(FingerprintTest, IsThatOfThePublicKeyAsOpensslPrintsIt) {
  // openssl x509 -in FILE -pubkey -noout | openssl pkey -pubin -outform DER | sha256sum
  const ScratchDirectory temp;
  std::ofstream(temp.Path() / "c.pem") << kKnownCertificate;
  const auto read = ReadCertificate(temp.Path() / "c.pem");
  EXPECT_EQ(read.fingerprint.Text(), kKnownFingerprint);
  EXPECT_EQ(read.name, "somebody?else");  // what could disturb a terminal is replaced
  EXPECT_FALSE(read.party);
}

TEST(FingerprintTest, ParsesOneFormOnly) {
  const std::string digits = std::string(63, 'a') + "B";
  const auto parsed = Fingerprint::Parse("sha256:" + digits);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->Text(), "sha256:" + std::string(63, 'a') + "b");
  EXPECT_FALSE(*parsed == *Fingerprint::Parse("sha256:" + std::string(64, 'a')));
  for (const std::string& wrong : {digits, "sha256:" + digits + "0", "sha256:" + digits.substr(1),
                                   "sha1:" + digits + "00", "sha256:" + std::string(63, 'a') + "g",
                                   "sha256:" + std::string(63, 'a') + " ", std::string()})
    EXPECT_FALSE(Fingerprint::Parse(wrong)) << wrong;
}

TEST(CertificateFileTest, NamesWhatIsWrong) {
  const ScratchDirectory temp;
  EXPECT_THAT([&] { ReadCertificate(temp.Path() / "none.pem"); },
              ThrowsMessage<ConfigError>(HasSubstr("none.pem: ")));
  MakePartyCertificate(temp.Path(), 1, 30, false);
  EXPECT_THAT([&] { ReadCertificate(temp.Path() / "party1-key.pem"); },
              ThrowsMessage<ConfigError>(HasSubstr("party1-key.pem: holds no certificate")));
  std::ofstream(temp.Path() / "empty.pem").close();
  EXPECT_THAT([&] { ReadCertificate(temp.Path() / "empty.pem"); },
              ThrowsMessage<ConfigError>(HasSubstr("empty.pem: holds no certificate")));
}

TEST(DigestTest, Sha256) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

// The test case 1 of RFC 4231.
TEST(KeyedTag, IsAnHmacUnderTheKeysFile) {
  const ScratchDirectory scratch;
  const auto key = scratch.Path() / "key";
  std::ofstream(key) << std::string(20, '\x0b');
  EXPECT_THROW(KeyedTag(key, "Hi There"), ConfigError) << "others may read it";
  fs::permissions(key, fs::perms::owner_read);
  EXPECT_EQ(KeyedTag(key, "Hi There"),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
}

}  // namespace
}  // namespace tercet::crypto
