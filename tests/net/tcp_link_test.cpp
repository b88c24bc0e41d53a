// SPDX-License-Identifier: Apache-2.0
#include "tercet/net/tcp_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <asio.hpp>
#include <asio/ssl.hpp>
#include <atomic>
#include <fstream>
#include <future>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <variant>

#include "base/scratch.h"
#include "crypto/certificates_internal.h"
#include "net/dialler.h"
#include "net/door.h"
#include "net/frame.h"
#include "tercet/base/error.h"
#include "tercet/crypto/certificates.h"
#include "tercet/net/split_link.h"

namespace tercet::net {
namespace {

using namespace std::chrono_literals;
using asio::ip::tcp;
using testing::AllOf;
using testing::AnyOf;
using testing::Each;
using testing::HasSubstr;
using testing::Not;
using testing::ThrowsMessage;

const Agreement kAgreement{{"protocol version", "1"}, {"network digest", "ab12"}};

/// A socket that listens on a free port.
struct Listener {
  explicit Listener(asio::io_context& io)
      : acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {}
  std::uint16_t Port() const { return acceptor.local_endpoint().port(); }
  tcp::acceptor acceptor;
};

/// Certificates, made once, and the listening sockets of parties 0 and 1, made for each test.
class TcpLinkTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ = new Directory;
    crypto::MakeCertificates(*directory_ / "good", 10, false);
    crypto::MakeCertificates(*directory_ / "other", 10, false);
    crypto::MakeCertificatesValid(*directory_ / "late", {-3, -2}, false);
    crypto::MakeCertificatesValid(*directory_ / "early", {2, 3}, false);
  }
  static void TearDownTestSuite() {
    delete directory_;
    directory_ = nullptr;
  }

  struct Directory : ScratchDirectory {
    std::filesystem::path operator/(const char* name) const { return Path() / name; }
  };

  static TlsFiles Files(const char* set, int party) {
    const auto dir = *directory_ / set;
    return {dir / "ca.pem", dir / fmt::format("party{}.pem", party),
            dir / fmt::format("party{}-key.pem", party)};
  }

  TcpOptions Options(int party, bool tls = true) {
    TcpOptions options;
    options.party = party;
    options.endpoints = {Endpoint{"127.0.0.1", listeners_[0].Port()},
                         Endpoint{"127.0.0.1", listeners_[1].Port()}, Endpoint{}};
    if (party < 2)
      options.listen_fd =
          ::dup(listeners_[static_cast<std::size_t>(party)].acceptor.native_handle());
    if (tls) options.tls = Files("good", party);
    options.connect_timeout = 20s;
    options.timeout = 20s;
    options.agreement = kAgreement;
    return options;
  }

  std::array<TcpOptions, 3> AllOptions(bool tls = true) {
    return {Options(0, tls), Options(1, tls), Options(2, tls)};
  }

  using Result = std::variant<Links, std::string>;  ///< links or the error

  static Result Connect(const TcpOptions& options) {
    try {
      return ConnectTcp(options);
    } catch (const NetworkError& e) {
      return std::string(e.what());
    }
  }

  static std::array<Result, 3> ConnectAll(const std::array<TcpOptions, 3>& options) {
    std::array<std::future<Result>, 3> futures;
    for (std::size_t i = 0; i < 3; ++i) {
      futures[i] = std::async(std::launch::async, [&options, i] { return Connect(options[i]); });
    }
    return {futures[0].get(), futures[1].get(), futures[2].get()};
  }

  static std::array<Links, 3> Connected(const std::array<TcpOptions, 3>& options) {
    auto results = ConnectAll(options);
    std::array<Links, 3> links;
    for (std::size_t i = 0; i < 3; ++i) {
      if (const auto* error = std::get_if<std::string>(&results[i])) throw NetworkError(*error);
      links[i] = std::move(std::get<Links>(results[i]));
    }
    return links;
  }

  /// What went wrong; a failure of the test when nothing did.
  static std::string ErrorOf(const Result& result) {
    const auto* error = std::get_if<std::string>(&result);
    EXPECT_NE(error, nullptr) << "connected, although it should not have";
    return error == nullptr ? "" : *error;
  }

  tcp::socket Dial(int party) {
    tcp::socket socket(io_);
    socket.connect(listeners_[static_cast<std::size_t>(party)].acceptor.local_endpoint());
    return socket;
  }

  static Agreement WithTimeouts(const std::string& timeout_s = "20",
                                const std::string& stall_s = "600") {
    Agreement agreement = kAgreement;
    agreement.emplace_back("timeout_s", timeout_s);
    agreement.emplace_back("stall_timeout_s", stall_s);
    return agreement;
  }

  static std::string Encoded(const Frame& frame) {
    const auto header = EncodeFrameHeader(frame);
    std::string text(header.begin(), header.end());
    return text.append(frame.message.payload.begin(), frame.message.payload.end());
  }
  static std::string Ending(FrameKind kind, std::string_view reason) {
    return Encoded({kind, {.payload = Bytes(reason.begin(), reason.end())}});
  }

  static std::string Heartbeat(std::uint8_t waits_for = 0, std::uint32_t sender = 0,
                               std::uint32_t third = 0) {
    return Encoded(EncodeHeartbeat({waits_for, sender, third}));
  }

  /// A raw party without TLS that says hello and that this is its link, and leaves the rest to the
  /// test.
  tcp::socket DialWithHello(int party, int self, const std::string& timeout_s = "20",
                            const std::string& stall_s = "600") {
    tcp::socket socket = Greet(party, self, timeout_s, stall_s);
    asio::write(socket, asio::buffer(Heartbeat()));
    return socket;
  }
  tcp::socket Greet(int party, int self, const std::string& timeout_s = "20",
                    const std::string& stall_s = "600") {
    tcp::socket socket = Dial(party);
    const Agreement agreement = WithTimeouts(timeout_s, stall_s);
    asio::write(socket, asio::buffer(EncodeHello(self, agreement)));
    std::vector<char> hello(EncodeHello(party, agreement).size());
    asio::read(socket, asio::buffer(hello));
    return socket;
  }

  static Directory* directory_;
  asio::io_context io_;
  std::array<Listener, 2> listeners_{Listener(io_), Listener(io_)};
};

TcpLinkTest::Directory* TcpLinkTest::directory_ = nullptr;

Message Make(Phase phase, std::uint32_t tag, std::size_t size, std::uint8_t seed = 1) {
  Message m{phase, tag, 5, Bytes(size)};
  for (std::size_t i = 0; i < size; ++i)
    m.payload[i] = static_cast<std::uint8_t>((i >> 8) * 7 + i + seed);
  return m;
}

void Exchange(std::array<Links, 3>& links) {
  std::array<std::future<void>, 3> parties;
  for (std::size_t i = 0; i < 3; ++i) {
    parties[i] = std::async(std::launch::async, [&links, i] {
      for (std::uint32_t round = 0; round < 50; ++round) {
        for (std::size_t j = 0; j < 3; ++j) {
          if (i == j) continue;
          links[i][j]->Send(Make(Phase::kOffline, 100 + round, 40'000));
          links[i][j]->Send(Make(Phase::kOnline, round, round * 700, static_cast<std::uint8_t>(i)));
        }
        for (std::size_t j = 0; j < 3; ++j) {
          if (i == j) continue;
          const Message m = links[i][j]->Receive(Phase::kOnline);
          ASSERT_EQ(m.tag, round);
          ASSERT_EQ(m.depth, 5U);
          ASSERT_EQ(m.payload,
                    Make(Phase::kOnline, 0, round * 700, static_cast<std::uint8_t>(j)).payload);
        }
      }
      for (std::uint32_t round = 0; round < 50; ++round) {
        for (std::size_t j = 0; j < 3; ++j) {
          if (i == j) continue;
          const Message m = links[i][j]->Receive(Phase::kOffline);
          ASSERT_EQ(m.tag, 100 + round);
          ASSERT_EQ(m.payload, Make(Phase::kOffline, 0, 40'000).payload);
          links[i][j]->Flush();
        }
      }
    });
  }
  for (auto& party : parties) party.get();
}

TEST_F(TcpLinkTest, ThreePartiesOverTls) {
  auto links = Connected(AllOptions());
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(links[i][i], nullptr);
    EXPECT_EQ(links[i][(i + 1) % 3]->Peer(), static_cast<int>((i + 1) % 3));
  }
  Exchange(links);
}

TEST_F(TcpLinkTest, ThreePartiesWithoutTls) {
  auto links = Connected(AllOptions(false));
  Exchange(links);
}

TEST_F(TcpLinkTest, SplitLinksExchangeSideBySide) {
  auto links = Connected(AllOptions());
  std::array<std::array<Links, 3>, 3> sessions;  // by session and party
  for (std::size_t i = 0; i < 3; ++i)
    for (std::size_t j = 0; j < 3; ++j) {
      if (i == j) continue;
      auto parts = SplitLink(std::move(links[i][j]), 3);
      for (std::size_t k = 0; k < 3; ++k) sessions[k][i][j] = std::move(parts[k]);
    }
  std::vector<std::future<void>> running;
  for (auto& session : sessions)
    running.push_back(std::async(std::launch::async, [&session] { Exchange(session); }));
  for (auto& session : running) session.get();
}

TEST_F(TcpLinkTest, LargeMessagesBothWaysAtOnce) {
  auto links = Connected(AllOptions());
  constexpr std::size_t kSize = std::size_t{64} << 20;
  links[0][1]->Send(Make(Phase::kOnline, 1, kSize, 3));
  links[1][0]->Send(Make(Phase::kOnline, 2, kSize, 4));
  links[0][1]->Send(Make(Phase::kOnline, 3, 1));
  auto other =
      std::async(std::launch::async, [&] { return links[1][0]->Receive(Phase::kOnline).payload; });
  EXPECT_TRUE(links[0][1]->Receive(Phase::kOnline).payload ==
              Make(Phase::kOnline, 0, kSize, 4).payload);
  EXPECT_TRUE(other.get() == Make(Phase::kOnline, 0, kSize, 3).payload);
  EXPECT_EQ(links[1][0]->Receive(Phase::kOnline).tag, 3U);
}

TEST_F(TcpLinkTest, RefusesMessagesThatAreTooLarge) {
  auto links = Connected(AllOptions(false));
  EXPECT_THROW(links[0][1]->Send({Phase::kOnline, 0, 0, Bytes(kMaxMessageBytes + 1)}),
               InternalError);
  links[0][1]->Send(Make(Phase::kOnline, 1, 1));
  EXPECT_EQ(links[1][0]->Receive(Phase::kOnline).tag, 1U);
}

TEST_F(TcpLinkTest, HeartbeatsKeepAnIdleLinkAlive) {
  auto options = AllOptions();
  for (auto& o : options) o.timeout = 400ms;
  auto links = Connected(options);
  // Party 2 waits three times the timeout for the message that party 0 sends after those of the raw
  // clock.
  asio::steady_timer timer(io_, 1200ms);
  timer.wait();
  links[0][2]->Send(Make(Phase::kOnline, 8, 10));
  EXPECT_EQ(links[2][0]->Receive(Phase::kOnline).tag, 8U);
}

TEST_F(TcpLinkTest, OrderlyCloseLeavesWhatIsQueued) {
  auto links = Connected(AllOptions());
  links[0][1]->Send(Make(Phase::kOnline, 1, 100'000));
  links[0][1]->Send(Make(Phase::kOffline, 2, 10));
  links[0][1]->Close();
  links[0][1]->Close();
  EXPECT_EQ(links[1][0]->Receive(Phase::kOnline).payload.size(), 100'000U);
  EXPECT_EQ(links[1][0]->Receive(Phase::kOffline).tag, 2U);
  EXPECT_THAT([&] { links[1][0]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>("party 0 closed the link"));
  EXPECT_THROW(links[1][0]->Send(Make(Phase::kOnline, 1, 1)), NetworkError);
  EXPECT_THROW(links[1][0]->Flush(), NetworkError);
  EXPECT_THAT([&] { links[0][1]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(HasSubstr("closed here")));
  links[0][2]->Send(Make(Phase::kOnline, 3, 1));  // the other link lives on
  EXPECT_EQ(links[2][0]->Receive(Phase::kOnline).tag, 3U);
}

TEST_F(TcpLinkTest, CloseDeliversALargeQueue) {
  auto links = Connected(AllOptions());
  for (std::uint32_t i = 0; i < 3; ++i)
    links[0][1]->Send(Make(Phase::kOnline, i, std::size_t{16} << 20));
  links[0] = Links{};
  for (std::uint32_t i = 0; i < 3; ++i) EXPECT_EQ(links[1][0]->Receive(Phase::kOnline).tag, i);
  EXPECT_THROW(links[1][0]->Receive(Phase::kOnline), NetworkError);
}

TEST_F(TcpLinkTest, AbortReasonArrives) {
  auto links = Connected(AllOptions());
  auto one = std::async(std::launch::async, [&] { links[1][0]->Receive(Phase::kOnline); });
  auto own = std::async(std::launch::async, [&] { links[0][2]->Receive(Phase::kOffline); });
  links[2][0]->Send(
      Make(Phase::kOnline, 1, std::size_t{8} << 20));  // unread data does not hide the reason
  for (const std::size_t peer : {1U, 2U})
    links[0][peer]->Abort("layer conv1:\nwrong length " + std::string(600, 'x'));
  EXPECT_THAT(
      [&] { one.get(); },
      ThrowsMessage<AbortError>(AllOf(
          HasSubstr("party 0 stopped: layer conv1:?wrong length xxx"),
          testing::ResultOf([](const std::string& s) { return s.size(); }, testing::Lt(600U)))));
  EXPECT_THAT([&] { own.get(); }, ThrowsMessage<NetworkError>(HasSubstr("closed here")));
  EXPECT_THAT([&] { links[2][0]->Receive(Phase::kOnline); },
              ThrowsMessage<AbortError>(HasSubstr("party 0 stopped: layer conv1")));
  EXPECT_THAT([&] { links[2][1]->Receive(Phase::kOnline); },
              ThrowsMessage<AbortError>(HasSubstr("party 0 stopped: layer conv1")));
}

TEST_F(TcpLinkTest, WrongAuthority) {
  auto options = AllOptions();
  options[2].tls = Files("other", 2);
  options[0].connect_timeout = options[1].connect_timeout = 2s;
  const auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[2]),
              AllOf(HasSubstr("party "), HasSubstr("not signed by our certificate authority")));
  EXPECT_THAT(ErrorOf(results[0]), AnyOf(HasSubstr("refused our certificate"),
                                         HasSubstr("not signed"), HasSubstr("party 1 stopped")));
}

/// Party 2's certificate is refused by the listeners; in TLS 1.3 its own handshake has succeeded by
/// then.
class RefusedCertificateTest : public TcpLinkTest {
 protected:
  void Run(const char* set, const std::string& here, const std::string& there) {
    auto options = AllOptions();
    options[2].tls = Files(set, 2);
    options[2].tls->ca = Files("good", 2).ca;
    options[0].connect_timeout = options[1].connect_timeout = 2s;
    std::atomic<int> refusals{0};
    options[0].on_wait = [&](const std::string& line) {
      refusals += line.find(here) != std::string::npos;
    };
    const auto results = ConnectAll(options);
    EXPECT_THAT(ErrorOf(results[2]), AllOf(HasSubstr("refused our certificate"), HasSubstr(there)));
    EXPECT_THAT(ErrorOf(results[0]),
                AnyOf(AllOf(HasSubstr("party 2 did not connect"), HasSubstr(here)),
                      HasSubstr("party 1 stopped")));
    EXPECT_GE(refusals, 1);
  }
};

TEST_F(RefusedCertificateTest, Unsigned) {
  Run("other", "not signed by our certificate authority", "not signed by");
}

TEST_F(TcpLinkTest, ExpiredAndNotYetValid) {
  for (const auto& [set, here, there] :
       {std::tuple{"late", "expired", "refused our certificate: expired"},
        std::tuple{"early", "not yet valid",
                   "refused our certificate: bad certificate (not yet valid"}}) {
    std::array<TcpOptions, 3> options = AllOptions();
    for (std::size_t i = 0; i < 3; ++i) options[i].tls = Files(set, static_cast<int>(i));
    options[0].connect_timeout = options[1].connect_timeout = 1s;
    const auto results = ConnectAll(options);
    EXPECT_THAT(ErrorOf(results[2]), AllOf(HasSubstr("party "), HasSubstr(here)));
    EXPECT_THAT(ErrorOf(results[0]), AnyOf(HasSubstr(there), HasSubstr(here)));
  }
}

TEST_F(TcpLinkTest, SwappedCertificates) {
  auto options = AllOptions();
  options[0].tls = Files("good", 1);
  options[1].tls = Files("good", 0);
  options[0].connect_timeout = options[1].connect_timeout = 2s;
  const auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[2]),
              AnyOf(HasSubstr("certificate belongs to party 1, expected party 0"),
                    HasSubstr("certificate belongs to party 0, expected party 1")));
  EXPECT_THAT(ErrorOf(results[1]), HasSubstr("certificate belongs to party"));
}

TEST_F(TcpLinkTest, ClientWithTheCertificateOfAnother) {
  auto options = AllOptions();
  options[2].tls = Files("good", 1);
  options[0].connect_timeout = options[1].connect_timeout = 2s;
  const auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[2]), HasSubstr("belongs to party 1"));
  ErrorOf(results[1]);
  ErrorOf(results[0]);
}

/// Every party has signed its own certificate, and the others pin its key.
class PinnedTest : public TcpLinkTest {
 protected:
  PinnedTest() {
    for (int p = 0; p < 3; ++p) own_.push_back(Make("own", p, {}));
  }

  static crypto::Fingerprint Make(const char* set, int party, const crypto::Validity& validity) {
    return crypto::MakePartyCertificateValid(*directory_ / set, party, validity, true).fingerprint;
  }

  std::array<TcpOptions, 3> PinnedOptions() {
    auto options = AllOptions();
    for (int p = 0; p < 3; ++p) {
      TlsFiles files = Files("own", p);
      files.ca.clear();
      files.pins = Pins{std::vector{own_[0]}, std::vector{own_[1]}, std::vector{own_[2]}};
      options[static_cast<std::size_t>(p)].tls = files;
    }
    return options;
  }

  /// Party 2 shows what is in `set`; both others refuse it.
  void ExpectRefused(const char* set, const std::string& here, const std::string& there) {
    auto options = PinnedOptions();
    options[2].tls->certificate = Files(set, 2).certificate;
    options[2].tls->key = Files(set, 2).key;
    options[0].connect_timeout = options[1].connect_timeout = 2s;
    std::string lines;
    options[0].on_wait = [&](const std::string& line) { lines += line + "\n"; };
    const auto results = ConnectAll(options);
    EXPECT_THAT(ErrorOf(results[2]), AllOf(HasSubstr("refused our certificate"), HasSubstr(there)));
    EXPECT_THAT(ErrorOf(results[0]),
                AnyOf(AllOf(HasSubstr("party 2 did not connect"), HasSubstr(here)),
                      HasSubstr("party 1 stopped")));
    ErrorOf(results[1]);
    EXPECT_THAT(lines, HasSubstr(here));
  }

  std::vector<crypto::Fingerprint> own_;
};

TEST_F(PinnedTest, ThreeParties) {
  auto options = PinnedOptions();
  options[0].tls->pins->at(0).clear();  // its own
  std::array<std::optional<crypto::Fingerprint>, 3> seen;
  options[0].on_peer = [&](int peer, const crypto::Certificate& certificate) {
    EXPECT_EQ(certificate.party, peer);
    seen[static_cast<std::size_t>(peer)] = certificate.fingerprint;
  };
  auto links = Connected(options);
  Exchange(links);
  EXPECT_FALSE(seen[0]);
  EXPECT_EQ(seen[1], own_[1]);
  EXPECT_EQ(seen[2], own_[2]);
}

TEST_F(PinnedTest, AnyOfSeveralKeysAndAnyCertificateOfAKey) {
  const auto next = Make("next", 1, {});
  for (const bool renewed : {false, true}) {
    auto options = PinnedOptions();
    for (auto& o : options) o.tls->pins->at(1) = {own_[1], next};
    if (renewed) {
      options[1].tls->certificate = Files("next", 1).certificate;
      options[1].tls->key = Files("next", 1).key;
      crypto::RenewPartyCertificate(*directory_ / "own", 2, 100);
    }
    auto links = Connected(options);
    Exchange(links);
  }
}

TEST_F(PinnedTest, AnotherKeyOfTheRightName) {
  const auto other = Make("other-key", 2, {});
  ExpectRefused("other-key",
                fmt::format("party 2 with key {}, but {} is pinned", other.Text(), own_[2].Text()),
                "its key is not pinned");
}

TEST_F(PinnedTest, AKeyThatIsPinnedForAnotherParty) {
  // Party 1's key, with a certificate that says party 2: 1 cannot be both.
  auto options = PinnedOptions();
  options[1].connect_timeout = options[0].connect_timeout = 2s;
  options[2].tls = options[1].tls;
  const auto results = ConnectAll(options);
  for (const auto& result : results) ErrorOf(result);
  EXPECT_THAT(ErrorOf(results[2]), HasSubstr("belongs to party 1"));
}

TEST_F(PinnedTest, TheServersKeyIsChecked) {
  auto options = PinnedOptions();
  const auto other = Make("other-server", 0, {});
  options[0].tls->certificate = Files("other-server", 0).certificate;
  options[0].tls->key = Files("other-server", 0).key;
  for (auto& o : options) o.connect_timeout = 2s;
  const auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[1]), AllOf(HasSubstr("party 0 at 127.0.0.1"), HasSubstr(other.Text()),
                                         HasSubstr(own_[0].Text())));
  EXPECT_THAT(ErrorOf(results[0]),
              AnyOf(HasSubstr("refused our certificate"),
                    // where the alert is lost with the connection
                    HasSubstr("closed the connection during the TLS handshake")));
}

TEST_F(PinnedTest, DatesCount) {
  own_[2] = Make("late-key", 2, {-3, -2});
  ExpectRefused("late-key", "party 2 that has expired on ", "expired");
  own_[2] = Make("early-key", 2, {2, 3});
  ExpectRefused("early-key", "party 2 that is not yet valid", "bad certificate");
}

TEST_F(PinnedTest, NobodysName) {
  const auto ca = crypto::ReadCertificate(*directory_ / "good" / "ca.pem");
  auto options = PinnedOptions();
  for (auto& o : options) o.tls->pins->at(2).push_back(ca.fingerprint);
  options[2].tls->certificate = *directory_ / "good" / "ca.pem";
  options[2].tls->key = *directory_ / "good" / "ca-key.pem";
  options[0].connect_timeout = options[1].connect_timeout = 2s;
  const auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[2]), HasSubstr("refused our certificate"));
  ErrorOf(results[0]);
  ErrorOf(results[1]);
}

TEST_F(TcpLinkTest, AgreementDiffers) {
  auto options = AllOptions();
  options[2].agreement[1].second = "cd34";
  const auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[0]), HasSubstr("network digest: here ab12, there cd34"));
  EXPECT_THAT(ErrorOf(results[1]), HasSubstr("network digest: here ab12, there cd34"));
  EXPECT_THAT(ErrorOf(results[2]), HasSubstr("network digest: here cd34, there ab12"));
}

// A party that sends heartbeats for a longer timeout would be silent for too long.
TEST_F(TcpLinkTest, TimeoutsDiffer) {
  auto options = AllOptions();
  options[1].timeout = 90s;
  auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[1]), HasSubstr("timeout_s: here 90, there 20"));
  EXPECT_THAT(ErrorOf(results[2]),
              AnyOf(HasSubstr("timeout_s: here 20, there 90"), HasSubstr("party 0 stopped")));
  options = AllOptions();
  options[2].stall_timeout = 25500ms;
  results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[2]), HasSubstr("stall_timeout_s: here 25.5, there 600"));
  options[2].stall_timeout = 10s;
  EXPECT_THROW(ConnectTcp(options[2]), InternalError);  // shorter than a silence
}

TEST_F(TcpLinkTest, StrangersDoNotDisturb) {
  auto options = AllOptions();
  std::promise<void> refused;
  std::atomic<int> lines{0};
  options[0].on_wait = [&](const std::string& line) {
    if (line.find("refused") != std::string::npos && ++lines == 2) refused.set_value();
  };
  tcp::socket garbage = Dial(0), half = Dial(0), mute = Dial(0);
  asio::write(garbage, asio::buffer(std::string("GET / HTTP/1.1\r\nHost: tercet\r\n\r\n")));
  asio::write(half, asio::buffer(
                        std::string("\x16\x03\x01\x01\x00\x01", 6)));  // the begin of a ClientHello
  auto zero = std::async(std::launch::async, [&] { return Connect(options[0]); });
  half.shutdown(tcp::socket::shutdown_send);
  refused.get_future().wait();
  auto one = std::async(std::launch::async, [&] { return Connect(options[1]); });
  const Result two = Connect(options[2]);
  EXPECT_TRUE(std::holds_alternative<Links>(two));
  EXPECT_TRUE(std::holds_alternative<Links>(zero.get()));
  EXPECT_TRUE(std::holds_alternative<Links>(one.get()));
}

// So many idle connections, opened before the parties come and while they come, that neither all
// nor the first of them can be kept.
TEST_F(TcpLinkTest, ManyIdleStrangersDoNotKeepPartiesApart) {
  auto options = AllOptions();
  std::vector<tcp::socket> strangers;
  auto zero = std::async(std::launch::async, [&] { return Connect(options[0]); });
  for (int i = 0; i < 1000; ++i) strangers.push_back(Dial(i % 2));
  auto one = std::async(std::launch::async, [&] { return Connect(options[1]); });
  for (int i = 0; i < 200; ++i) strangers.push_back(Dial(i % 2));
  const Result two = Connect(options[2]);
  for (const auto& result : {zero.get(), one.get()})
    EXPECT_TRUE(std::holds_alternative<Links>(result)) << std::get<std::string>(result);
  EXPECT_TRUE(std::holds_alternative<Links>(two)) << std::get<std::string>(two);
}

TEST_F(TcpLinkTest, ARestartedPartyIsLetInAgain) {
  auto options = AllOptions();
  std::promise<void> gone, lost;
  options[0].on_wait = [&](const std::string& line) {
    if (line.find("party 2 left: stopped by hand; waiting for it") != std::string::npos)
      lost.set_value();
  };
  auto zero = std::async(std::launch::async, [&] { return Connect(options[0]); });
  // Party 2 reaches party 0 but not party 1, and is stopped.
  std::atomic<int> asked{0};
  auto first = options[2];
  first.interrupted = [&]() -> std::optional<std::string> {
    if (++asked < 10) return std::nullopt;
    return "stopped by hand";
  };
  EXPECT_EQ(ErrorOf(Connect(first)), "stopped by hand");
  lost.get_future().wait();
  auto two = std::async(std::launch::async, [&] { return Connect(options[2]); });
  const Result one = Connect(options[1]);
  for (const auto& result : {zero.get(), two.get()})
    EXPECT_TRUE(std::holds_alternative<Links>(result)) << std::get<std::string>(result);
  EXPECT_TRUE(std::holds_alternative<Links>(one)) << std::get<std::string>(one);
}

// A process that came back without the end of the one before having been noticed.
TEST_F(TcpLinkTest, TheLaterOfTwoProcessesCounts) {
  auto options = AllOptions(false);
  auto zero = std::async(std::launch::async, [&] { return Connect(options[0]); });
  tcp::socket before = DialWithHello(0, 2);
  auto two = std::async(std::launch::async, [&] { return Connect(options[2]); });
  std::vector<std::uint8_t> said(4096);
  std::error_code ec;
  const std::size_t count = asio::read(before, asio::buffer(said), ec);  // until it is closed
  EXPECT_THAT(std::string(said.begin(), said.begin() + static_cast<std::ptrdiff_t>(count)),
              HasSubstr("another process has connected as party 2"));
  before.close();
  const Result one = Connect(options[1]);
  for (const auto& result : {zero.get(), two.get()})
    EXPECT_TRUE(std::holds_alternative<Links>(result)) << std::get<std::string>(result);
  EXPECT_TRUE(std::holds_alternative<Links>(one)) << std::get<std::string>(one);
}

/// A process of party 2 that a newer one replaces; party 0 is played by the test.
class DismissedTest : public TcpLinkTest {
 protected:
  // Party 2 dials, and party 0 takes it for a link.
  void Begin() {
    TcpOptions options = Options(2, false);
    options.endpoints[0].port = zero_.Port();
    older_ = std::async(std::launch::async, [options] { return Connect(options); });
    link_ = Answer(zero_);
  }
  // The next that dials hears party `self`'s hello.
  static tcp::socket Answer(Listener& listener, int self = 0) {
    tcp::socket socket = listener.acceptor.accept();
    ReadHello(socket);
    asio::write(socket, asio::buffer(EncodeHello(self, WithTimeouts())));
    return socket;
  }
  static void ReadHello(tcp::socket& socket) {
    std::vector<char> hello(EncodeHello(2, WithTimeouts()).size());
    asio::read(socket, asio::buffer(hello));
  }
  static std::string ReadToEnd(tcp::socket& socket) {
    std::string said;
    std::error_code ec;
    asio::read(socket, asio::dynamic_buffer(said), ec);
    return said;
  }
  void Dismiss() {
    asio::write(link_, asio::buffer(Ending(FrameKind::kDismissal, "there is a newer one")));
    ReadToEnd(link_);
  }

  Listener zero_{io_};
  tcp::socket link_{io_};
  std::future<Result> older_;
};

TEST_F(DismissedTest, MeetsNobodyElse) {
  Begin();
  tcp::socket one = listeners_[1].acceptor.accept();
  ReadHello(one);
  Dismiss();
  std::error_code gone;
  asio::write(one, asio::buffer(EncodeHello(1, WithTimeouts())), gone);
  EXPECT_EQ(ReadToEnd(one), "");
  EXPECT_EQ(ErrorOf(older_.get()), "party 0 dismissed this process: there is a newer one");
}

// Whom it has met waits for the newer one.
TEST_F(DismissedTest, LeavesWhomItHasMet) {
  TcpOptions options = Options(1, false);
  Listener zero_of_one(io_);
  options.endpoints[0].port = zero_of_one.Port();
  std::promise<void> waits_again;
  options.on_wait = [&](const std::string& line) {
    if (line ==
        "party 2 left: party 0 dismissed this process: there is a newer one; waiting for it "
        "to come again")
      waits_again.set_value();
  };
  auto one = std::async(std::launch::async, [options] { return Connect(options); });
  Begin();
  const Result older = older_.get();
  ASSERT_TRUE(std::holds_alternative<Links>(older)) << std::get<std::string>(older);
  Dismiss();
  EXPECT_THAT([&] { std::get<Links>(older)[0]->Receive(Phase::kSetup); },
              ThrowsMessage<AbortError>("party 0 dismissed this process: there is a newer one"));
  waits_again.get_future().wait();
  tcp::socket newer = DialWithHello(1, 2);
  tcp::socket zero = Answer(zero_of_one);
  const Result met = one.get();
  EXPECT_TRUE(std::holds_alternative<Links>(met)) << std::get<std::string>(met);
  for (auto* socket : {&newer, &zero}) socket->close();
}

// Of two processes of party 2 one meets party 0 and the other party 1, so that neither meets all.
TEST_F(TcpLinkTest, TwoProcessesOfOnePartyAreTold) {
  auto options = AllOptions(false);
  auto zero = std::async(std::launch::async, [&] { return ConnectTcp(options[0]); });
  auto one = std::async(std::launch::async, [&] { return ConnectTcp(options[1]); });
  std::array<tcp::socket, 2> twins{Greet(0, 2), Greet(1, 2)};
  for (std::uint32_t i = 0; i < 2; ++i) asio::write(twins[i], asio::buffer(Heartbeat(0, 7 + i)));
  std::array<Links, 2> links{zero.get(), one.get()};
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_THAT([&] { links[i][1 - i]->Receive(Phase::kSetup); },
                ThrowsMessage<Error>(HasSubstr("another process of party 2 than")));
  for (auto& twin : twins) twin.close();
}

// A party that greets several addresses may reach the same listener by two of them.
TEST_F(TcpLinkTest, TheConnectionThatIsChosenBecomesTheLink) {
  auto options = AllOptions(false);
  std::vector<std::string> lines;
  options[0].on_wait = [&](const std::string& line) { lines.push_back(line); };
  auto zero = std::async(std::launch::async, [&] { return ConnectTcp(options[0]); });
  tcp::socket chosen = Greet(0, 2), other = Greet(0, 2);
  auto one = std::async(std::launch::async, [&] { return ConnectTcp(options[1]); });
  tcp::socket two = DialWithHello(1, 2);
  asio::write(chosen,
              asio::buffer(Heartbeat() + Encoded({FrameKind::kData, {Phase::kOnline, 4, 0, {}}})));
  Links links = zero.get();
  EXPECT_EQ(links[2]->Receive(Phase::kOnline).tag, 4U);
  EXPECT_THAT(lines, Each(Not(HasSubstr("come again"))));
  for (auto* socket : {&chosen, &two}) socket->close();
}

// A party that greets and never says which connection is its link. Its oldest ones go; it may still
// come.
TEST_F(TcpLinkTest, GreetingsThatComeToNothingDoNotGrow) {
  auto options = AllOptions(false);
  auto zero = std::async(std::launch::async, [&] { return Connect(options[0]); });
  auto one = std::async(std::launch::async, [&] { return Connect(options[1]); });
  std::vector<tcp::socket> greeted;
  for (std::size_t i = 0; i <= Door::kOfOneHost; ++i) greeted.push_back(Greet(0, 2));
  std::array<char, 1> byte{};
  std::error_code ec;
  greeted.front().read_some(asio::buffer(byte), ec);
  EXPECT_TRUE(ec);
  asio::write(greeted.back(), asio::buffer(Heartbeat()));
  tcp::socket two = DialWithHello(1, 2);
  EXPECT_TRUE(std::holds_alternative<Links>(zero.get()));
  EXPECT_TRUE(std::holds_alternative<Links>(one.get()));
}

/// Party 0 without TLS has met both others, of whom party 2, played by the test, has not come to
/// party 1 yet.
class NotAllMetTest : public TcpLinkTest {
 protected:
  void Begin(std::chrono::milliseconds connect_timeout) {
    std::array<TcpOptions, 2> options{Options(0, false), Options(1, false)};
    for (auto& o : options) {
      o.connect_timeout = connect_timeout;
      o.timeout = o.stall_timeout = 500ms;
    }
    one_ = std::async(std::launch::async, [o = options[1]] { return Connect(o); });
    auto zero = std::async(std::launch::async, [o = options[0]] { return ConnectTcp(o); });
    two_ = Greet(0, 2, "0.5", "0.5");
    asio::write(two_, asio::buffer(Heartbeat()));
    links_ = zero.get();
  }

  std::future<Result> one_;
  Links links_;
  tcp::socket two_{io_};
};

// Party 1 is connected for longer than a stall may last, and waits for party 2.
TEST_F(NotAllMetTest, WhoWaitsForAPartyToComeIsNotBlamed) {
  Begin(3s);
  std::atomic<bool> stop{false};
  std::thread heart([&] {
    std::error_code ec;
    while (!stop && !ec) {
      asio::write(two_, asio::buffer(Heartbeat()), ec);
      std::this_thread::sleep_for(50ms);
    }
  });
  EXPECT_THAT([&] { links_[1]->Receive(Phase::kSetup); },
              ThrowsMessage<AbortError>(
                  HasSubstr("party 1 stopped: party 2 did not connect to party 1 within 3.0 s")));
  stop = true;
  heart.join();
  EXPECT_THAT(ErrorOf(one_.get()), HasSubstr("party 2 did not connect to party 1 within 3.0 s"));
}

// Party 1 hears of the goodbye long before it stops waiting for party 2.
TEST_F(NotAllMetTest, AGoodbyeReachesWhoStillWaits) {
  Begin(20s);
  asio::write(two_, asio::buffer(Ending(FrameKind::kGoodbye, "")));
  EXPECT_EQ(ErrorOf(one_.get()), "party 0 stopped: party 2 closed the link");
  EXPECT_THAT([&] { links_[1]->Receive(Phase::kSetup); },
              ThrowsMessage<NetworkError>("party 2 closed the link"));
}

TEST_F(TcpLinkTest, ListensWhereItIsTold) {
  auto options = AllOptions();
  ::close(*options[0].listen_fd);
  options[0].listen_fd.reset();
  const auto port = listeners_[0].Port();
  listeners_[0].acceptor.close();
  options[0].endpoints[0].host = "203.0.113.7";  // by which the others reach it, through a router
  EXPECT_THAT([&] { ConnectTcp(options[0]); },
              ThrowsMessage<ConfigError>(
                  AllOf(HasSubstr("cannot listen on 203.0.113.7"), HasSubstr("\"listen\""))));
  options[0].listen = "localhost";
  options[0].endpoints[2].host = "203.0.113.9";
  std::vector<std::string> lines, warnings;
  options[0].on_wait = [&](const std::string& line) { lines.push_back(line); };
  options[0].on_warning = [&](const std::string& line) { warnings.push_back(line); };
  const auto results = ConnectAll(options);
  for (const auto& result : results)
    EXPECT_TRUE(std::holds_alternative<Links>(result)) << std::get<std::string>(result);
  EXPECT_THAT(lines, testing::Contains(AllOf(HasSubstr("listening on "),
                                             HasSubstr(fmt::format("127.0.0.1:{}", port)))));
  EXPECT_THAT(warnings, testing::ElementsAre(AllOf(HasSubstr("listens on "),
                                                   HasSubstr("which party 2 at 203.0.113.9"))));
}

TEST_F(TcpLinkTest, FinalErrorNamesTheRefusals) {
  auto options = Options(1);
  options.endpoints[0] = {"127.0.0.1", listeners_[0].Port()};
  options.connect_timeout = 1s;
  tcp::socket half = Dial(1);
  asio::write(half, asio::buffer(std::string("\x16\x03\x01\x01\x00\x01", 6)));
  EXPECT_THAT(ErrorOf(Connect(options)),
              AllOf(HasSubstr("party 2 did not connect to party 1 within 1.0 s"),
                    HasSubstr("did not finish the TLS handshake within 0.5 s"),
                    HasSubstr("party 0 at 127.0.0.1"), HasSubstr("did not answer")));
}

TEST_F(TcpLinkTest, NotSpeakingTls) {
  auto options = Options(2);
  auto server = std::async(std::launch::async, [&] {
    tcp::socket socket = listeners_[0].acceptor.accept();
    asio::write(socket, asio::buffer(std::string("220 mail.example ESMTP ready\r\n")));
    std::array<char, 4096> sink;
    std::error_code ec;
    while (!ec) socket.read_some(asio::buffer(sink), ec);
  });
  EXPECT_THAT(ErrorOf(Connect(options)),
              AllOf(HasSubstr("party 0 at 127.0.0.1"), HasSubstr("not speaking TLS")));
  server.get();
}

TEST_F(TcpLinkTest, OneSideWithoutTls) {
  auto options = AllOptions();
  options[2].tls.reset();
  for (auto& o : options) o.connect_timeout = 1s;
  const auto results = ConnectAll(options);
  EXPECT_THAT(ErrorOf(results[2]),
              AnyOf(HasSubstr("speaks TLS, but this party runs without"),
                    HasSubstr("closed the connection before its hello (does it want TLS?)")));
  EXPECT_THAT(ErrorOf(results[0]), AnyOf(HasSubstr("not speaking TLS"), HasSubstr("party 1")));
}

TEST_F(TcpLinkTest, NobodyThere) {
  auto options = Options(2);
  listeners_[0].acceptor.close();
  listeners_[1].acceptor.close();
  options.connect_timeout = 1500ms;
  std::vector<std::string> lines;
  options.on_wait = [&](const std::string& line) { lines.push_back(line); };
  EXPECT_THAT(ErrorOf(Connect(options)), AllOf(HasSubstr("party 0 at 127.0.0.1"),
                                               HasSubstr("could not be reached within 1.5 s"),
                                               HasSubstr("refused"), HasSubstr("party 1 at")));
  ASSERT_FALSE(lines.empty());
  EXPECT_THAT(lines[0], HasSubstr("waiting for party 0 at 127.0.0.1"));
}

TEST_F(TcpLinkTest, WhoIsWaitedForAndWhere) {
  auto options = Options(1);
  options.connect_timeout = std::chrono::milliseconds(1500);
  std::vector<std::string> lines;
  options.on_wait = [&](const std::string& line) { lines.push_back(line); };
  EXPECT_THAT(ErrorOf(Connect(options)), HasSubstr("party 2 did not connect to party 1"));
  EXPECT_THAT(lines, testing::Contains(HasSubstr(fmt::format(
                         "waiting for party 0 at 127.0.0.1:{}, ", options.endpoints[0].port))));
  EXPECT_THAT(lines, testing::Contains(HasSubstr(fmt::format("waiting for party 2 on port {}, ",
                                                             options.endpoints[1].port))));
}

// The reason of one that was there is not lost among the attempts to reach it again.
TEST_F(TcpLinkTest, LeavesForGood) {
  auto options = Options(1, false);
  options.connect_timeout = 2s;
  auto one = std::async(std::launch::async, [&] { return Connect(options); });
  tcp::socket zero = listeners_[0].acceptor.accept();
  listeners_[0].acceptor.close();
  std::vector<char> said(EncodeHello(1, WithTimeouts()).size());
  asio::read(zero, asio::buffer(said));
  asio::write(zero, asio::buffer(EncodeHello(0, WithTimeouts())));
  asio::read(zero, asio::buffer(said, Heartbeat().size()));
  asio::write(zero, asio::buffer(Ending(FrameKind::kGoodbye, "stopped by hand")));
  zero.shutdown(tcp::socket::shutdown_send);
  EXPECT_THAT(ErrorOf(one.get()),
              AllOf(HasSubstr("party 0 at 127.0.0.1"),
                    HasSubstr("(party 0 left: stopped by hand; last: refused)")));
}

TEST_F(TcpLinkTest, PortInUse) {
  auto options = Options(0);
  ::close(*options.listen_fd);
  options.listen_fd.reset();
  EXPECT_THAT([&] { ConnectTcp(options); },
              ThrowsMessage<ConfigError>(
                  HasSubstr(fmt::format("port {} on 127.0.0.1 is in use", listeners_[0].Port()))));
}

TEST_F(TcpLinkTest, BadConfiguration) {
  auto options = Options(2);
  options.tls->key = Files("good", 1).key;
  EXPECT_THAT([&] { ConnectTcp(options); },
              ThrowsMessage<ConfigError>(HasSubstr("is not the key of")));
  options.tls->key = "/nowhere/key.pem";
  EXPECT_THAT(
      [&] { ConnectTcp(options); },
      ThrowsMessage<ConfigError>("/nowhere/key.pem: cannot be read: No such file or directory"));
  // Whatever stands in a file's place, OpenSSL never opens it.
  const auto fifo = *directory_ / "fifo";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  for (auto member : {&TlsFiles::ca, &TlsFiles::certificate, &TlsFiles::key}) {
    options = Options(2);
    options.tls.value().*member = fifo;
    EXPECT_THAT([&] { ConnectTcp(options); },
                ThrowsMessage<ConfigError>(HasSubstr("/fifo: is no regular file but a FIFO")));
  }
  const auto rubbish = *directory_ / "rubbish.pem";
  std::ofstream(rubbish) << "-----BEGIN CERTIFICATE-----\nrubbish\n";
  ASSERT_EQ(::chmod(rubbish.c_str(), 0600), 0);
  for (auto member : {&TlsFiles::ca, &TlsFiles::certificate, &TlsFiles::key}) {
    options = Options(2);
    options.tls.value().*member = rubbish;
    EXPECT_THAT([&] { ConnectTcp(options); },
                ThrowsMessage<ConfigError>(HasSubstr("/rubbish.pem: cannot be read as a ")));
  }
  options = Options(2);
  ASSERT_EQ(::chmod(options.tls->key.c_str(), 0644), 0);
  EXPECT_THAT([&] { ConnectTcp(options); },
              ThrowsMessage<ConfigError>(
                  AllOf(HasSubstr("party2-key.pem: has mode 644"), HasSubstr("chmod 600"))));
  ASSERT_EQ(::chmod(options.tls->key.c_str(), 0600), 0);
  auto listening = Options(0);
  ::close(*listening.listen_fd);
  listening.listen_fd = -1;
  EXPECT_THAT([&] { ConnectTcp(listening); },
              ThrowsMessage<ConfigError>(HasSubstr("no listening socket")));
}

/// Strangers from elsewhere take no place of a host where a party is expected.
TEST(DoorTest, TheOldestGo) {
  asio::io_context io;
  const Agreement agreement;
  Door door;
  const auto address = [](int a, int b) {
    return asio::ip::make_address(fmt::format("10.0.{}.{}", a, b));
  };
  const auto come = [&] {
    return std::make_shared<Greeting>(
        io, MakeChannel(tcp::socket(io), nullptr), false, 0, [] { return std::array<bool, 3>{}; },
        agreement, 1s, [](Greeting::Outcome) {});
  };
  door.Expect(address(0, 1));
  std::vector<std::shared_ptr<Greeting>> guests{come()};
  EXPECT_TRUE(door.Enter(guests[0], address(0, 1)).empty());
  // Of one address the oldest, of many the oldest of all strangers.
  for (std::size_t i = 0; i < 2 * Door::kStrangers; ++i) {
    guests.push_back(come());
    const auto gone = door.Enter(guests.back(), address(1, static_cast<int>(i / 4)));
    ASSERT_EQ(gone.size(), i < Door::kStrangers ? 0U : 1U);
    if (!gone.empty()) {
      EXPECT_EQ(gone[0], guests[1 + i - Door::kStrangers]);
    }
  }
  Door other;
  for (std::size_t i = 0; i < Door::kOfOneAddress; ++i) {
    guests.push_back(come());
    EXPECT_TRUE(other.Enter(guests.back(), address(2, 2)).empty());
  }
  const auto newcomer = come();
  EXPECT_EQ(other.Enter(newcomer, address(2, 2)).at(0),
            guests[guests.size() - Door::kOfOneAddress]);
  other.Leave(newcomer.get());
  EXPECT_TRUE(other.Enter(newcomer, address(2, 2)).empty());
}

/// A host with several addresses; those of the loopback network stand for them.
class DiallerTest : public testing::Test {
 protected:
  using Kind = Greeting::Outcome::Kind;
  tcp::endpoint Address(int last) const {
    return {asio::ip::make_address(fmt::format("127.0.0.{}", last)), port_};
  }
  void Listen(int last, int backlog = 8) {
    tcp::acceptor acceptor(io_);
    acceptor.open(tcp::v4());
    acceptor.bind(port_ == 0 ? tcp::endpoint(Address(last).address(), 0) : Address(last));
    acceptor.listen(backlog);
    port_ = acceptor.local_endpoint().port();
    listening_.push_back(std::move(acceptor));
  }
  using Outcomes = std::map<int, Kind>;
  // Dials and greets with the outcomes that are given, by address; the others stay silent. Goes on
  // until there is a result or the reasons are `until`, which are returned then.
  Greeting::Outcome Dial(const std::vector<int>& addresses, Outcomes outcomes,
                         const std::string& until = "", const std::function<void()>& then = {}) {
    io_.restart();
    outcomes_ = std::move(outcomes);
    std::optional<Greeting::Outcome> result;
    std::vector<tcp::endpoint> endpoints;
    for (const int last : addresses) endpoints.push_back(Address(last));
    dialler_ = std::make_shared<Dialler>(
        io_, Endpoint{"host.example", port_}, 5s,
        [&](tcp::socket socket, const Dialler::Done& done) {
          const int last = socket.remote_endpoint().address().to_v4().to_bytes()[3];
          ++greeted_[last];
          if (const auto found = outcomes_.find(last); found != outcomes_.end()) {
            auto timer = std::make_shared<asio::steady_timer>(io_, takes_);
            timer->async_wait([done, last, kind = found->second, timer](const std::error_code&) {
              done({.kind = kind, .reason = fmt::format("reason {}", last)});
            });
          }
          return [this, last] { cancelled_.push_back(last); };
        },
        [&](Greeting::Outcome outcome) { result = std::move(outcome); });
    dialler_->StartWith(endpoints);
    bool reached = false;
    while (!result && (!reached || then) && io_.run_one_for(5s) > 0) {
      if (result || reached || until.empty() || dialler_->Reasons() != until) continue;
      reached = true;
      if (then) then();
    }
    if (result) return std::move(*result);
    Greeting::Outcome pending{.reason = dialler_->Reasons()};
    dialler_->Cancel();
    io_.poll();
    return pending;
  }

  asio::io_context io_;
  std::uint16_t port_ = 0;
  std::vector<tcp::acceptor> listening_;
  Outcomes outcomes_;
  std::chrono::milliseconds takes_{0};  ///< until an outcome is there
  std::map<int, int> greeted_;          ///< how often, by address
  std::vector<int> cancelled_;          ///< the addresses whose greetings were ended
  std::shared_ptr<Dialler> dialler_;
};

TEST_F(DiallerTest, AnyAddressWillDo) {
  Listen(3);
  Listen(5);
  EXPECT_EQ(Dial({2, 3, 4}, {{3, Kind::kAgreed}}).kind, Kind::kAgreed);
  EXPECT_EQ(Dial({3, 2, 5}, {{3, Kind::kDefinite}, {5, Kind::kAgreed}}).kind, Kind::kAgreed);
  EXPECT_EQ(Dial({5, 3}, {{3, Kind::kDiffers}, {5, Kind::kFailed}}).kind, Kind::kDiffers);
}

// One that takes connections and stays silent does not keep the party from the next, which would
// give up on it by then.
TEST_F(DiallerTest, ASilentAddressIsGreetedBesideTheOthers) {
  Listen(3);
  Listen(4);
  Listen(5);
  EXPECT_EQ(Dial({3, 4, 5}, {{5, Kind::kAgreed}}).kind, Kind::kAgreed);
  EXPECT_EQ(cancelled_, (std::vector<int>{3, 4}));
  const std::string reasons =
      "127.0.0.3: it accepted the connection but did not answer; 127.0.0.4: reason 4";
  EXPECT_EQ(Dial({3, 4}, {{4, Kind::kFailed}}, reasons).reason, reasons);
}

// A party that starts later than this one is found beside an address that keeps it waiting.
TEST_F(DiallerTest, EachAddressIsTriedAgainByItself) {
  Listen(3);
  const auto outcome =
      Dial({3, 4}, {{4, Kind::kAgreed}},
           "127.0.0.3: it accepted the connection but did not answer; 127.0.0.4: refused",
           [this] { Listen(4); });
  EXPECT_EQ(outcome.kind, Kind::kAgreed);
  EXPECT_EQ(greeted_, (std::map<int, int>{{3, 1}, {4, 1}}));
}

// Addresses that fail and are ready again before the others have been greeted do not take turns
// with each other alone.
TEST_F(DiallerTest, EachAddressGetsItsTurn) {
  takes_ = 150ms;
  for (const int last : {3, 4, 5, 6}) Listen(last);
  const Outcomes outcomes{
      {3, Kind::kFailed}, {4, Kind::kFailed}, {5, Kind::kFailed}, {6, Kind::kAgreed}};
  EXPECT_EQ(Dial({3, 4, 5, 6}, outcomes).kind, Kind::kAgreed);
  EXPECT_EQ(greeted_, (std::map<int, int>{{3, 1}, {4, 1}, {5, 1}, {6, 1}}));
}

// What hardly passes may pass while there is another address to wait for.
TEST_F(DiallerTest, AHopelessAddressIsTriedAgainBesideOthers) {
  Listen(3);
  const auto outcome =
      Dial({2, 3}, {{3, Kind::kDefinite}}, "127.0.0.2: refused; 127.0.0.3: reason 3",
           [this] { outcomes_[3] = Kind::kAgreed; });
  EXPECT_EQ(outcome.kind, Kind::kAgreed);
  EXPECT_EQ(greeted_, (std::map<int, int>{{3, 2}}));
}

// Those above the number that are tried at once get their turn, and are counted where not all are
// named.
TEST_F(DiallerTest, NoAddressIsLeftOut) {
  std::vector<int> many;
  for (int last = 10; last < 10 + static_cast<int>(Dialler::kMaxAtOnce) + 20; ++last)
    many.push_back(last);
  Listen(many.back());
  EXPECT_EQ(Dial(many, {{many.back(), Kind::kAgreed}}).kind, Kind::kAgreed);
  std::string reasons;
  for (int last = 10; last < 26; ++last) reasons += fmt::format("127.0.0.{}: refused; ", last);
  EXPECT_EQ(Dial(many, {{many.back(), Kind::kFailed}}, reasons + "and 68 more").reason,
            reasons + "and 68 more");
}

// All are greeted within half of the time for which a listener keeps a connection.
TEST_F(DiallerTest, ManyAddressesAreGreetedFaster) {
  EXPECT_EQ(Dialler::Stagger(10s, 2), 500ms);
  EXPECT_EQ(Dialler::Stagger(10s, 10), 500ms);
  EXPECT_EQ(Dialler::Stagger(10s, 50), 100ms);
  EXPECT_EQ(Dialler::Stagger(1s, 5), 100ms);
}

TEST_F(DiallerTest, TellsOfEachAddress) {
  Listen(3);
  // The refusal may pass.
  const std::string reasons = "127.0.0.2: refused; 127.0.0.3: reason 3";
  EXPECT_EQ(Dial({2, 3}, {{3, Kind::kDefinite}}, reasons).reason, reasons);
  EXPECT_EQ(greeted_[3], 1);
  EXPECT_EQ(Dial({3}, {{3, Kind::kDefinite}}).kind, Kind::kDefinite);
  // One that takes no more connections, and one that is not there.
  Listen(4, 0);
  std::vector<tcp::socket> waiting;
  for (int i = 0; i < 8; ++i) {
    waiting.emplace_back(io_);
    waiting.back().async_connect(Address(4), [](const std::error_code&) {});
  }
  const std::string unanswered = "127.0.0.2: refused; 127.0.0.4: no answer";
  EXPECT_EQ(Dial({2, 4}, {}, unanswered).reason, unanswered);
}

// What the name stands for may change while it is dialled.
TEST_F(DiallerTest, TakesTheAddressesOfNow) {
  Listen(3);
  Listen(5);
  const auto outcome = Dial(
      {3, 4}, {{5, Kind::kAgreed}},
      "127.0.0.3: it accepted the connection but did not answer; 127.0.0.4: refused", [this] {
        dialler_->StartWith({Address(3), Address(5)});
        EXPECT_EQ(dialler_->Reasons(),
                  "127.0.0.3: it accepted the connection but did not answer; 127.0.0.5: no answer");
      });
  EXPECT_EQ(outcome.kind, Kind::kAgreed);
  EXPECT_EQ(greeted_, (std::map<int, int>{{3, 1}, {5, 1}}));
}

/// Parties 0 and 1 without TLS, party 2 is played by the test.
class RawPeerTest : public TcpLinkTest {
 protected:
  void SetUp() override {
    std::array<TcpOptions, 2> options{Options(0, false), Options(1, false)};
    for (auto& o : options) {
      o.timeout = timeout_;
      o.stall_timeout = stall_;
    }
    std::array<std::future<Links>, 2> futures;
    for (std::size_t i = 0; i < 2; ++i) {
      futures[i] = std::async(std::launch::async, [o = options[i]] { return ConnectTcp(o); });
    }
    for (int i = 0; i < 2; ++i)
      raw_.push_back(DialWithHello(i, 2, fmt::format("{}", timeout_.count()),
                                   fmt::format("{}", stall_.count())));
    for (std::size_t i = 0; i < 2; ++i) links_[i] = futures[i].get();
  }
  // Writes to party 0 every 50 ms until told to stop: `bytes` again and again, or a byte at a time.
  std::thread Keep(std::string bytes, bool slowly) {
    return std::thread([this, bytes = std::move(bytes), slowly] {
      std::error_code ec;
      for (std::size_t i = 0; !stop_ && !ec; ++i) {
        const std::string_view part =
            slowly ? std::string_view(bytes).substr(i % bytes.size(), 1) : bytes;
        asio::write(raw_[0], asio::buffer(part), ec);
        std::this_thread::sleep_for(50ms);
      }
    });
  }

  std::chrono::seconds timeout_{2}, stall_{600};
  std::atomic<bool> stop_{false};
  std::array<Links, 2> links_;
  std::vector<tcp::socket> raw_;  // closed before the links, which then need not wait for it
};

TEST_F(RawPeerTest, Vanishes) {
  const Frame frame{FrameKind::kData, {Phase::kOnline, 4, 0, {}}};
  asio::write(raw_[0], asio::buffer(EncodeFrameHeader(frame)));
  raw_[0].close();
  EXPECT_EQ(links_[0][2]->Receive(Phase::kOnline).tag, 4U);
  EXPECT_THAT([&] { links_[0][2]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(HasSubstr("party 2 closed the connection")));
}

// Party 0 waits for party 1, which need not have a link on which it would hear of the end of 2.
TEST_F(RawPeerTest, ItsEndEndsTheOtherLink) {
  auto waits = std::async(std::launch::async, [&] { links_[0][1]->Receive(Phase::kOnline); });
  raw_[0].close();
  EXPECT_THAT([&] { waits.get(); },
              ThrowsMessage<NetworkError>(HasSubstr("party 2 closed the connection without a")));
  EXPECT_THAT([&] { links_[0][1]->Send(Make(Phase::kOnline, 1, 1)); },
              ThrowsMessage<NetworkError>(HasSubstr("party 2 closed the connection without a")));
  EXPECT_THAT([&] { links_[1][0]->Receive(Phase::kOnline); },
              ThrowsMessage<AbortError>(
                  HasSubstr("party 0 stopped: party 2 closed the connection without a goodbye")));
}

// Party 1 has met party 2 by now, and knows whether it needs it any more.
TEST_F(RawPeerTest, ItsEndLeavesALinkThatIsInUse) {
  for (std::size_t i = 0; i < 2; ++i) links_[i][1 - i]->Send(Make(Phase::kOnline, 1, 1));
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(links_[i][1 - i]->Receive(Phase::kOnline).tag, 1U);
  for (auto& raw : raw_) asio::write(raw, asio::buffer(Ending(FrameKind::kAbort, "enough")));
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_THAT([&] { links_[i][2]->Receive(Phase::kOnline); },
                ThrowsMessage<AbortError>("party 2 stopped: enough"));
  links_[0][1]->Send(Make(Phase::kOnline, 9, 1));
  EXPECT_EQ(links_[1][0]->Receive(Phase::kOnline).tag, 9U);
}

TEST_F(RawPeerTest, ThatIsAskedToStopEndsTheOtherLink) {
  asio::write(raw_[0], asio::buffer(Ending(FrameKind::kGoodbye, "had enough")));
  EXPECT_THAT([&] { links_[1][0]->Receive(Phase::kOnline); },
              ThrowsMessage<AbortError>("party 0 stopped: party 2 left: had enough"));
}

// A party that has done its part, as a helper whose material has been sent, may go.
TEST_F(RawPeerTest, ItsGoodbyeLeavesTheOtherLink) {
  for (auto& raw : raw_) asio::write(raw, asio::buffer(Ending(FrameKind::kGoodbye, "")));
  for (std::size_t i = 0; i < 2; ++i)
    EXPECT_THAT([&] { links_[i][2]->Receive(Phase::kOnline); },
                ThrowsMessage<NetworkError>("party 2 closed the link"));
  links_[0][1]->Send(Make(Phase::kOnline, 9, 1));
  EXPECT_EQ(links_[1][0]->Receive(Phase::kOnline).tag, 9U);
}

/// Party 1 without TLS, which meets party 2 first; both others are played by the test.
class HalfGreetedTest : public TcpLinkTest {
 protected:
  // Party 1 ends while party 0, which it has told everything, has still to answer.
  void Begin(TcpOptions options) {
    listener_.emplace(io_);
    options.endpoints[0].port = listener_->Port();
    one_ = std::async(std::launch::async, [options] { return Connect(options); });
    zero_ = listener_->acceptor.accept();
    hello_.resize(EncodeHello(1, WithTimeouts()).size());
    asio::read(zero_, asio::buffer(hello_));
    two_ = DialWithHello(1, 2);
  }
  // All that party 0 hears after its answer.
  std::string Answer() {
    asio::write(zero_, asio::buffer(EncodeHello(0, WithTimeouts())));
    std::string said;
    std::error_code ec;
    asio::read(zero_, asio::dynamic_buffer(said), ec);  // until it is closed
    return said;
  }

  std::optional<Listener> listener_;
  std::vector<char> hello_;
  std::future<Result> one_;
  tcp::socket zero_{io_}, two_{io_};
};

TEST_F(HalfGreetedTest, IsToldWhatAThirdPartySaid) {
  Begin(Options(1, false));
  asio::write(two_, asio::buffer(Ending(FrameKind::kAbort, "its disk is full")));
  std::string rest;
  std::error_code ec;
  asio::read(two_, asio::dynamic_buffer(rest), ec);  // until party 1 has understood
  EXPECT_THAT(Answer(), HasSubstr("party 2 stopped: its disk is full"));
  EXPECT_EQ(ErrorOf(one_.get()), "party 2 stopped: its disk is full");
}

TEST_F(HalfGreetedTest, IsToldThatThePartyWasStopped) {
  auto options = Options(1, false);
  std::atomic<bool> stop{false};
  std::promise<void> asked;
  options.interrupted = [&]() -> std::optional<std::string> {
    if (!stop) return std::nullopt;
    asked.set_value();
    return "stopped by hand";
  };
  Begin(options);
  stop = true;
  asked.get_future().wait();
  EXPECT_THAT(Answer(), HasSubstr("stopped by hand"));
  EXPECT_EQ(ErrorOf(one_.get()), "stopped by hand");
}

TEST_F(RawPeerTest, IsSilent) {
  EXPECT_THAT([&] { links_[0][2]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(
                  AllOf(HasSubstr("party 2 at 127.0.0.1:"), HasSubstr("sent nothing for 2.0 s"))));
  EXPECT_THROW(links_[0][2]->Send(Make(Phase::kOnline, 1, 1)), NetworkError);
}

/// The same with short timeouts.
class StallTest : public RawPeerTest {
 protected:
  StallTest() {
    timeout_ = 1s;
    stall_ = 2s;
  }
  // To party 1, party 2 has nothing to say.
  void SetUp() override {
    RawPeerTest::SetUp();
    asio::write(raw_[1], asio::buffer(Ending(FrameKind::kGoodbye, "")));
  }
  // What party 0 says of party 2 while this goes on.
  void Expect(const std::string& bytes, bool slowly, const std::string& message) {
    std::thread sender = Keep(bytes, slowly);
    EXPECT_THAT(
        [&] { links_[0][2]->Receive(Phase::kOnline); },
        ThrowsMessage<NetworkError>(AllOf(HasSubstr("party 2 at 127.0.0.1:"), HasSubstr(message))));
    stop_ = true;
    sender.join();
  }
};

TEST_F(StallTest, HeartbeatsAreNoProgress) {
  Expect(Heartbeat(), false, "sent heartbeats but no online data for 2.0 s");
  // The peer is told, too.
  std::vector<char> said(4096);
  std::error_code ec;
  const std::size_t count = asio::read(raw_[0], asio::buffer(said), ec);
  EXPECT_THAT(std::string(said.data(), count), HasSubstr("sent heartbeats but no online data"));
}

TEST_F(StallTest, ByteAfterByteIsNoProgress) {
  Expect(Encoded({FrameKind::kData, {Phase::kOnline, 1, 0, Bytes(200)}}), true,
         "no online data for 2.0 s");
}

TEST_F(StallTest, DataOfAnotherPhaseIsNoProgress) {
  Expect(Encoded({FrameKind::kData, {Phase::kOffline, 1, 0, Bytes(1)}}), false,
         "no online data for 2.0 s");
}

// It gets the time in which whoever waits for the third party names that one.
TEST_F(StallTest, APeerThatWaitsItselfGetsMoreTime) {
  Expect(Heartbeat(1U << 1), false, "no online data for 3.0 s");
}

/// Heartbeats come every second, and whoever waits itself gets 4 s more.
class PatientStallTest : public StallTest {
 protected:
  PatientStallTest() { timeout_ = stall_ = 4s; }
};

// Between the end of its wait and its word to the third party it must not seem to wait for nobody.
TEST_F(PatientStallTest, APeerWhoseWaitHasJustFailedStillGetsMoreTime) {
  auto third = std::async(std::launch::async, [this] { links_[1][0]->Receive(Phase::kOnline); });
  std::thread sender = Keep(Heartbeat(), false);
  auto wait = std::async(std::launch::async, [this] { links_[0][2]->Receive(Phase::kOnline); });
  asio::steady_timer timer(io_, 3s);
  timer.wait();
  stop_ = true;
  sender.join();
  asio::write(raw_[0], asio::buffer(Ending(FrameKind::kGoodbye, "")));
  EXPECT_THAT([&] { wait.get(); }, ThrowsMessage<NetworkError>("party 2 closed the link"));
  timer.expires_after(3s);
  timer.wait();
  links_[0][1]->Abort("party 2 has left");
  EXPECT_THAT([&] { third.get(); }, ThrowsMessage<AbortError>("party 0 stopped: party 2 has left"));
}

TEST_F(StallTest, ComputingForLongIsNoStall) {
  std::thread sender = Keep(Heartbeat(), false);
  asio::steady_timer timer(io_, 3s);
  timer.wait();  // nobody waits for data meanwhile
  asio::write(raw_[0], asio::buffer(Encoded({FrameKind::kData, {Phase::kOnline, 7, 0, {}}})));
  EXPECT_EQ(links_[0][2]->Receive(Phase::kOnline).tag, 7U);
  stop_ = true;
  sender.join();
}

TEST_F(StallTest, APeerThatDoesNotReadIsNoticed) {
  std::thread sender = Keep(Heartbeat(), false);
  EXPECT_THAT(
      [&] {
        for (int i = 0; i < 40; ++i)
          links_[0][2]->Send({Phase::kOnline, 1, 0, Bytes(std::size_t{16} << 20)});
      },
      ThrowsMessage<NetworkError>(
          AllOf(HasSubstr("party 2"), HasSubstr("took no data for 2.0 s"))));
  stop_ = true;
  sender.join();
}

std::size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  std::size_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

TEST_F(StallTest, EmptyMessagesDoNotGrow) {
  constexpr std::size_t kMessages = 10'000'000, kAtOnce = 10'000;
  std::string bytes;
  for (std::size_t i = 0; i < kAtOnce; ++i)
    bytes += Encoded({FrameKind::kData, {Phase::kOffline, 1, 0, {}}});
  std::atomic<std::size_t> sent{0};
  const std::size_t before = ResidentBytes();
  std::thread sender([&] {
    std::error_code ec;
    for (; sent < kMessages && !ec; sent += kAtOnce) asio::write(raw_[0], asio::buffer(bytes), ec);
  });
  // What waits is unread, so the message that is waited for cannot come, and the link ends.
  EXPECT_THAT([&] { links_[0][2]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(HasSubstr("from party 2 wait unread in other phases")));
  EXPECT_LT(ResidentBytes() - before, std::size_t{64} << 20);
  EXPECT_LT(sent, kMessages / 2);
  links_[0][2].reset();
  sender.join();
}

TEST_F(RawPeerTest, DoesNotReadAndIsClosedInTime) {
  // More than the system takes for a peer that does not read.
  constexpr std::size_t kSize = std::size_t{16} << 20;
  auto one = std::async(std::launch::async, [&] {
    links_[1][2]->Send({Phase::kOnline, 1, 0, Bytes(kSize)});
    links_[1][2]->Abort("enough");
  });
  links_[0][2]->Send({Phase::kOnline, 1, 0, Bytes(kSize)});
  links_[0][2].reset();
  one.get();
}

TEST_F(RawPeerTest, BreaksTheFormat) {
  asio::write(raw_[0], asio::buffer(std::string(64, '\xff')));
  EXPECT_THAT([&] { links_[0][2]->Receive(Phase::kOnline); },
              ThrowsMessage<NetworkError>(
                  AllOf(HasSubstr("broke the wire format"), HasSubstr("kind 255"))));
}

TEST_F(RawPeerTest, SaysGoodbyeHalfWay) {
  raw_[0].shutdown(tcp::socket::shutdown_send);
  EXPECT_THAT([&] { links_[0][2]->Receive(Phase::kSetup); },
              ThrowsMessage<NetworkError>(HasSubstr("without a goodbye")));
}

}  // namespace
}  // namespace tercet::net
