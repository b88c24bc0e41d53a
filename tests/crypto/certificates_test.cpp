#include "tercet/crypto/certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <sys/stat.h>

#include <fstream>

#include "crypto/certificates_internal.h"
#include "crypto/openssl_handles.h"
#include "base/temp_directory.h"
#include "tercet/base/error.h"

namespace tercet::crypto {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

CertificateHandle Load(const fs::path& path) {
  std::FILE* file = std::fopen(path.c_str(), "r");
  EXPECT_NE(file, nullptr) << path;
  CertificateHandle certificate(PEM_read_X509(file, nullptr, nullptr, nullptr));
  std::fclose(file);
  EXPECT_NE(certificate, nullptr) << path;
  return certificate;
}

int Mode(const fs::path& path) {
  struct ::stat info {};
  EXPECT_EQ(::stat(path.c_str(), &info), 0) << path;
  return static_cast<int>(info.st_mode & 0777U);
}

TEST(CertificatesTest, MakesAnAuthorityAndThreeParties) {
  const TempDirectory temp;
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

TEST(CertificatesTest, OverwritesOnlyWhenTold) {
  const TempDirectory temp;
  std::ofstream(temp.Path() / "party1.pem") << "mine";
  EXPECT_THAT([&] { MakeCertificates(temp.Path(), 30, false); },
              ThrowsMessage<ConfigError>(HasSubstr("party1.pem: exists already")));
  EXPECT_EQ(std::distance(fs::directory_iterator(temp.Path()), fs::directory_iterator()), 1);
  MakeCertificates(temp.Path(), 30, true);
  EXPECT_EQ(CommonName(Load(temp.Path() / "party1.pem").get()), "tercet party 1");
}

TEST(CertificatesTest, RemovesWhatWasBegun) {
  const TempDirectory temp;
  fs::create_directories(temp.Path() / "party2-key.pem" / "in the way");
  EXPECT_THROW(MakeCertificates(temp.Path(), 30, true), ConfigError);
  for (const auto& entry : fs::directory_iterator(temp.Path()))
    EXPECT_NE(entry.path().extension(), ".part");
  std::ofstream(temp.Path() / "file") << "x";
  EXPECT_THAT([&] { MakeCertificates(temp.Path() / "file", 30, false); },
              ThrowsMessage<ConfigError>(HasSubstr("cannot be made a directory")));
}

TEST(CertificatesTest, ChecksDays) {
  const TempDirectory temp;
  for (const int days : {0, -1, 36'501}) {
    EXPECT_THAT([&] { MakeCertificates(temp.Path() / "x", days, false); },
                ThrowsMessage<ConfigError>(HasSubstr("1 to 36500 days")));
  }
  EXPECT_FALSE(fs::exists(temp.Path() / "x"));
}

TEST(CertificatesTest, MakesExpiredOnesForTests) {
  const TempDirectory temp;
  MakeCertificatesValid(temp.Path(), {-3, -2}, false);
  EXPECT_EQ(X509_cmp_current_time(X509_get0_notAfter(Load(temp.Path() / "party0.pem").get())), -1);
  EXPECT_EQ(X509_cmp_current_time(X509_get0_notAfter(Load(temp.Path() / "ca.pem").get())), 1);
}

TEST(DigestTest, Sha256) {
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

}  // namespace
}  // namespace tercet::crypto
