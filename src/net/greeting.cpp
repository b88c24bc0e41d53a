// SPDX-License-Identifier: Apache-2.0
#include "net/greeting.h"

#include <asio/error.hpp>
#include <utility>

#include "net/failure.h"
#include "tercet/base/error.h"

namespace tercet::net {
namespace {

constexpr auto kDrain = std::chrono::milliseconds(500);
constexpr std::uint8_t kTlsHandshakeRecord = 0x16;
constexpr std::uint8_t kTlsAlertRecord = 0x15;

std::string Names(const std::array<bool, 3>& expected) {
  std::string text;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i]) text += fmt::format("{}party {}", text.empty() ? "" : " or ", i);
  }
  return text.empty() ? "nobody" : text;
}

}  // namespace

Greeting::Greeting(asio::io_context& io, std::unique_ptr<Channel> channel, bool client, int self,
                   Expected expected, const Agreement& agreement, Clock::duration limit, Done done)
    : channel_(std::move(channel)),
      client_(client),
      self_(self),
      expected_(std::move(expected)),
      agreement_(agreement),
      limit_(limit),
      done_(std::move(done)),
      timer_(io) {}

void Greeting::Start() {
  timer_.expires_after(limit_);
  timer_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
    if (cancelled) return;
    self->Fail(Outcome::Kind::kFailed, fmt::format("did not finish the {} within {:.1f} s",
                                                   self->stage_, Seconds(self->limit_)));
  });
  channel_->Handshake(client_, [self = shared_from_this()](const std::error_code& error) {
    if (self->done_) self->OnHandshake(error);
  });
}

void Greeting::Cancel() {
  done_ = nullptr;
  timer_.cancel();
  std::error_code ignored;
  if (channel_) channel_->Socket().close(ignored);
}

void Greeting::OnHandshake(const std::error_code& error) {
  if (error) {
    FailFor(error, "during the TLS handshake");
    return;
  }
  stage_ = "exchange of hellos";
  if (channel_->Encrypted()) {
    const auto certificate = channel_->PeerCertificate();
    if (certificate) certified_ = certificate->party;
    if (!certified_) {
      Refuse(fmt::format("certificate belongs to \"{}\", expected {}",
                         certificate ? certificate->name : "", Names(expected_())));
      return;
    }
    if (!CheckPeer(*certified_, "certificate belongs to")) return;
  }
  if (client_) {
    WriteHello([this] { ReadHello([this] { Compare(); }); });
  } else {
    ReadHello([this] { WriteHello([this] { Compare(); }); });
  }
}

bool Greeting::CheckPeer(int peer, const std::string& what) {
  const auto expected = expected_();
  if (expected[static_cast<std::size_t>(peer)]) return true;
  Refuse(fmt::format("{} party {}, expected {}", what, peer, Names(expected)));
  return false;
}

void Greeting::Write(Bytes bytes, std::function<void()> then) {
  out_ = std::move(bytes);
  channel_->Write({asio::buffer(out_), asio::const_buffer()},
                  [self = shared_from_this(), then = std::move(then)](const std::error_code& error,
                                                                      std::size_t) {
                    if (!self->done_) return;
                    // A peer that refused us may have closed already; what it said is still to be
                    // read.
                    if (error && !self->client_) {
                      self->FailFor(error, "before its hello");
                    } else {
                      then();
                    }
                  });
}

void Greeting::WriteHello(std::function<void()> then) {
  Write(EncodeHello(self_, agreement_), std::move(then));
}

void Greeting::ReadHello(std::function<void()> then) {
  in_.resize(kHelloHeadBytes);
  channel_->ReadFull(asio::buffer(in_), [self = shared_from_this(), then = std::move(then)](
                                            const std::error_code& error, std::size_t count) {
    if (!self->done_) return;
    // Garbage shows before it is complete.
    const bool tls =
        count > 0 && (self->in_[0] == kTlsHandshakeRecord || self->in_[0] == kTlsAlertRecord);
    if (tls && !self->channel_->Encrypted()) {
      self->Fail(Outcome::Kind::kDefinite, "speaks TLS, but this party runs without");
    } else if (error) {
      self->FailFor(error, "before its hello");
    } else {
      self->OnHelloHead(then);
    }
  });
}

void Greeting::OnHelloHead(const std::function<void()>& then) {
  try {
    head_ =
        ParseHelloHead(std::span<const std::uint8_t, kHelloHeadBytes>(in_.data(), kHelloHeadBytes));
  } catch (const ProtocolError& e) {
    Fail(Outcome::Kind::kDefinite, fmt::format("sent something else than a hello: {}", e.what()));
    return;
  }
  in_.resize(head_.length);
  channel_->ReadFull(asio::buffer(in_),
                     [self = shared_from_this(), then](const std::error_code& error, std::size_t) {
                       if (!self->done_) return;
                       if (error) {
                         self->FailFor(error, "within its hello");
                       } else {
                         self->OnHelloBody(then);
                       }
                     });
}

void Greeting::OnHelloBody(const std::function<void()>& then) {
  if (head_.refusal) {
    const std::string_view text(reinterpret_cast<const char*>(in_.data()), in_.size());
    Fail(Outcome::Kind::kDefinite, fmt::format("refused us: {}", CleanText(text, kMaxReasonBytes)));
    return;
  }
  if (certified_ && *certified_ != head_.party) {
    Refuse(fmt::format("hello says party {}, but its certificate belongs to party {}", head_.party,
                       *certified_));
    return;
  }
  if (!CheckPeer(head_.party, "hello says")) return;
  peer_ = head_.party;
  try {
    theirs_ = ParseHelloBody(head_, in_);
  } catch (const ProtocolError& e) {
    Fail(Outcome::Kind::kDefinite, fmt::format("sent a broken hello: {}", e.what()));
    return;
  }
  then();
}

void Greeting::Compare() {
  if (std::string differences = Differences(agreement_, theirs_); !differences.empty()) {
    Fail(Outcome::Kind::kDiffers, std::move(differences));
    return;
  }
  if (client_) {
    Agree();
  } else {
    AwaitChoice();
  }
}

void Greeting::AwaitChoice() {
  stage_ = "exchange of hellos with a heartbeat";
  in_.resize(kHeartbeatFrameBytes);
  channel_->ReadFull(asio::buffer(in_), [self = shared_from_this()](const std::error_code& error,
                                                                    std::size_t) {
    if (!self->done_) return;
    if (error) {
      self->FailFor(error, "before its first heartbeat");
      return;
    }
    bool heartbeat = false;
    try {
      const std::span<const std::uint8_t, kFrameHeaderBytes> header(self->in_.data(),
                                                                    kFrameHeaderBytes);
      heartbeat = ParseFrameHeader(header).kind == FrameKind::kHeartbeat;
      if (heartbeat)
        self->process_ = ParseHeartbeat(std::span(self->in_).subspan(kFrameHeaderBytes)).sender;
    } catch (const ProtocolError&) {
      heartbeat = false;
    }
    if (heartbeat) {
      self->Agree();
    } else {
      self->Fail(Outcome::Kind::kFailed, "sent something else than a heartbeat after its hello");
    }
  });
}

void Greeting::Agree() {
  if (expected_()[static_cast<std::size_t>(peer_)]) {
    Finish({Outcome::Kind::kAgreed, peer_, {}, std::move(channel_), process_});
  } else {  // this party has given up on it meanwhile
    Fail(Outcome::Kind::kFailed, fmt::format("party {} is waited for no more", peer_));
  }
}

void Greeting::Refuse(const std::string& reason) {
  Write(EncodeRefusal(self_, reason), [this, reason] { Fail(Outcome::Kind::kDefinite, reason); });
}

void Greeting::FailFor(const std::error_code& error, const std::string& during) {
  Channel::Reason reason = channel_->Explain(error);
  if (!reason.definite) reason.text += " " + during;
  if (client_ && !channel_->Encrypted()) reason.text += " (does it want TLS?)";
  Fail(reason.definite ? Outcome::Kind::kDefinite : Outcome::Kind::kFailed, std::move(reason.text));
}

void Greeting::Fail(Outcome::Kind kind, std::string reason) {
  if (!done_) return;
  const int peer = certified_ ? *certified_ : peer_;
  Finish({kind, peer, std::move(reason), nullptr});
  Drain();
}

void Greeting::Finish(Outcome outcome) {
  timer_.cancel();
  const Done done = std::exchange(done_, nullptr);
  if (done) done(std::move(outcome));
}

/// Closing a socket with unread bytes resets the connection, and the peer might lose the alert or
/// refusal that says why: what it still sends is read for a moment.
void Greeting::Drain() {
  std::error_code ignored;
  channel_->Socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  timer_.expires_after(kDrain);
  timer_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
    std::error_code unused;
    if (!cancelled) self->channel_->Socket().close(unused);
  });
  struct Loop {
    static void Next(const std::shared_ptr<Greeting>& self) {
      self->drained_.resize(4096);
      self->channel_->Socket().async_read_some(asio::buffer(self->drained_),
                                               [self](const std::error_code& error, std::size_t) {
                                                 if (!error) {
                                                   Next(self);
                                                   return;
                                                 }
                                                 self->timer_.cancel();
                                                 std::error_code unused;
                                                 self->channel_->Socket().close(unused);
                                               });
    }
  };
  Loop::Next(shared_from_this());
}

}  // namespace tercet::net
