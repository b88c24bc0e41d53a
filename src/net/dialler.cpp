// SPDX-License-Identifier: Apache-2.0
#include "net/dialler.h"

#include <algorithm>
#include <asio/error.hpp>
#include <utility>

#include "tercet/base/error.h"

namespace tercet::net {
namespace {

using asio::ip::tcp;

constexpr auto kAddressLimit = std::chrono::seconds(5);
constexpr std::size_t kMaxAddresses = 16;
// All are greeted before the first listener gives up on us.
constexpr auto kStagger = std::chrono::milliseconds(500);
constexpr const char* kNoAnswer = "no answer";

std::string WhyNot(const std::error_code& error) {
  if (error == asio::error::connection_refused) return "refused";
  if (error == asio::error::timed_out || error == asio::error::operation_aborted) return kNoAnswer;
  return error.message();
}

}  // namespace

Dialler::Dialler(asio::io_context& io, const Endpoint& there, Greet greet, Done done)
    : io_(io),
      there_(there),
      greet_(std::move(greet)),
      done_(std::move(done)),
      resolver_(io),
      stagger_(io) {}

void Dialler::Start() {
  std::error_code no_address;
  const auto address = asio::ip::make_address(there_.host, no_address);
  if (no_address) {
    Resolve();
  } else {
    StartWith({tcp::endpoint(address, there_.port)});
  }
}

void Dialler::StartWith(const std::vector<tcp::endpoint>& addresses) {
  for (const auto& address : addresses) {
    if (attempts_.size() == kMaxAddresses) break;
    attempts_.emplace_back(io_, address);
  }
  for (Attempt& attempt : attempts_) Try(attempt);
}

void Dialler::Resolve() {
  resolver_.async_resolve(
      there_.host, std::to_string(there_.port),
      [self = shared_from_this()](const std::error_code& error,
                                  const tcp::resolver::results_type& found) {
        if (!self->done_) return;
        if (error) {
          self->Finish({.reason = fmt::format("host name not found: {}", error.message())});
          return;
        }
        std::vector<tcp::endpoint> addresses;
        for (const auto& entry : found) addresses.push_back(entry.endpoint());
        self->StartWith(addresses);
      });
}

void Dialler::Try(Attempt& attempt) {
  attempt.limit.expires_after(kAddressLimit);
  attempt.limit.async_wait([self = shared_from_this(), &attempt](const std::error_code& cancelled) {
    std::error_code ignored;
    if (!cancelled && attempt.state == Attempt::State::kConnecting) attempt.socket.close(ignored);
  });
  attempt.socket.async_connect(
      attempt.to, [self = shared_from_this(), &attempt](const std::error_code& error) {
        if (!self->done_) return;
        attempt.limit.cancel();
        attempt.state = error ? Attempt::State::kFailed : Attempt::State::kReady;
        if (error) attempt.reason = WhyNot(error);
        self->GoOn();
      });
}

// Greets the next that took the connection, or ends when nothing is under way any more.
void Dialler::GoOn() {
  using State = Attempt::State;
  const auto is = [](State state) {
    return [state](const Attempt& attempt) { return attempt.state == state; };
  };
  const auto ready = std::find_if(attempts_.begin(), attempts_.end(), is(State::kReady));
  if (ready != attempts_.end()) {
    if (!may_answer_) GreetNext(*ready);
    return;
  }
  if (std::any_of(attempts_.begin(), attempts_.end(), is(State::kConnecting)) ||
      std::any_of(attempts_.begin(), attempts_.end(), is(State::kGreeted)))
    return;
  const bool hopeless = std::all_of(attempts_.begin(), attempts_.end(),
                                    [](const Attempt& attempt) { return attempt.definite; });
  using Kind = Greeting::Outcome::Kind;
  Finish({.kind = hopeless ? Kind::kDefinite : Kind::kFailed, .reason = Reasons()});
}

void Dialler::GreetNext(Attempt& attempt) {
  may_answer_ = true;
  stagger_.expires_after(kStagger);
  stagger_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
    if (cancelled || !self->done_) return;
    self->may_answer_ = false;
    self->GoOn();
  });
  attempt.state = Attempt::State::kGreeted;
  attempt.reason = "it accepted the connection but did not answer";
  attempt.cancel = greet_(std::move(attempt.socket), attempts_.size() == 1,
                          [self = shared_from_this(), &attempt](Greeting::Outcome outcome) {
                            if (!self->done_) return;
                            attempt.cancel = nullptr;
                            using Kind = Greeting::Outcome::Kind;
                            if (outcome.kind == Kind::kAgreed || outcome.kind == Kind::kDiffers) {
                              self->Finish(std::move(outcome));
                              return;
                            }
                            attempt.state = Attempt::State::kFailed;
                            attempt.reason = std::move(outcome.reason);
                            attempt.definite = outcome.kind == Kind::kDefinite;
                            self->may_answer_ = false;
                            self->GoOn();
                          });
}

std::string Dialler::Reasons() const {
  std::string text;
  for (const Attempt& attempt : attempts_) {
    const std::string address = attempt.to.address().to_string();
    if (!text.empty()) text += "; ";
    if (address != there_.host) text += address + ": ";
    text += attempt.reason.empty() ? kNoAnswer : attempt.reason;
  }
  return text;
}

void Dialler::Finish(Greeting::Outcome outcome) {
  CloseAll();
  const Done done = std::exchange(done_, nullptr);
  done(std::move(outcome));
}

void Dialler::Cancel() {
  done_ = nullptr;
  CloseAll();
}

void Dialler::CloseAll() {
  greet_ = nullptr;
  resolver_.cancel();
  stagger_.cancel();
  for (Attempt& attempt : attempts_) {
    if (const auto cancel = std::exchange(attempt.cancel, nullptr)) cancel();
    std::error_code ignored;
    attempt.socket.close(ignored);
    attempt.limit.cancel();
  }
}

}  // namespace tercet::net
