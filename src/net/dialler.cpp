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
constexpr auto kRetry = std::chrono::milliseconds(100);
constexpr auto kLookUpAgain = std::chrono::seconds(1);
constexpr Clock::duration kStagger = std::chrono::milliseconds(500);
constexpr std::size_t kToldAddresses = 16;
constexpr const char* kNoAnswer = "no answer";

std::string WhyNot(const std::error_code& error) {
  if (error == asio::error::connection_refused) return "refused";
  if (error == asio::error::timed_out || error == asio::error::operation_aborted) return kNoAnswer;
  return error.message();
}

}  // namespace

Dialler::Dialler(asio::io_context& io, const Endpoint& there, Clock::duration patience, Greet greet,
                 Done done)
    : io_(io),
      there_(there),
      patience_(patience),
      greet_(std::move(greet)),
      done_(std::move(done)),
      resolver_(io),
      look_up_(io),
      retry_(io),
      stagger_(io) {}

Clock::duration Dialler::Stagger(Clock::duration patience, std::size_t addresses) {
  return std::min(kStagger, patience / static_cast<int>(2 * addresses));
}

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
  for (Attempt& attempt : attempts_) attempt.listed = false;
  for (const auto& address : addresses) {
    const auto known = std::find_if(attempts_.begin(), attempts_.end(),
                                    [&](const Attempt& attempt) { return attempt.to == address; });
    if (known != attempts_.end()) {
      known->listed = true;
    } else {
      attempts_.emplace_back(io_, address);
    }
  }
  GoOn();
}

void Dialler::Resolve() {
  resolver_.async_resolve(
      there_.host, std::to_string(there_.port),
      [self = shared_from_this()](const std::error_code& error,
                                  const tcp::resolver::results_type& found) {
        if (!self->done_) return;
        self->look_up_.expires_after(error ? Clock::duration(kRetry) : kLookUpAgain);
        self->look_up_.async_wait([self](const std::error_code& cancelled) {
          if (!cancelled && self->done_) self->Resolve();
        });
        if (error) {
          self->unresolved_ = fmt::format("host name not found: {}", error.message());
          return;
        }
        std::vector<tcp::endpoint> addresses;
        for (const auto& entry : found) addresses.push_back(entry.endpoint());
        self->StartWith(addresses);
      });
}

// Looks what there is to do after something has changed.
void Dialler::GoOn() {
  using State = Attempt::State;
  attempts_.remove_if([](const Attempt& attempt) {
    return !attempt.listed &&
           (attempt.state == State::kWaiting || attempt.state == State::kHopeless);
  });
  const auto is = [](State state) {
    return [state](const Attempt& attempt) { return attempt.state == state; };
  };
  if (!attempts_.empty() && std::all_of(attempts_.begin(), attempts_.end(), is(State::kHopeless))) {
    Finish({.kind = Greeting::Outcome::Kind::kDefinite, .reason = Reasons()});
    return;
  }
  TryAgain();
  const auto ready = std::find_if(attempts_.begin(), attempts_.end(), is(State::kReady));
  if (ready != attempts_.end() && !may_answer_) GreetNext(*ready);
}

// Tries those that have waited long enough, as many as there is room for.
void Dialler::TryAgain() {
  using State = Attempt::State;
  const auto under_way =
      std::count_if(attempts_.begin(), attempts_.end(), [](const Attempt& attempt) {
        return attempt.state != State::kWaiting && attempt.state != State::kHopeless;
      });
  for (auto room = kMaxAtOnce - static_cast<std::size_t>(under_way); room > 0; --room) {
    Attempt* next = nullptr;
    for (Attempt& attempt : attempts_) {
      if (attempt.state != State::kWaiting) continue;
      if (next == nullptr || attempt.not_before < next->not_before) next = &attempt;
    }
    if (next == nullptr) return;
    if (next->not_before > Clock::now()) {
      retry_.expires_at(next->not_before);
      retry_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
        if (!cancelled && self->done_) self->GoOn();
      });
      return;
    }
    Try(*next);
  }
}

void Dialler::Try(Attempt& attempt) {
  using State = Attempt::State;
  attempt.state = State::kConnecting;
  attempt.socket = tcp::socket(io_);
  attempt.limit.expires_after(kAddressLimit);
  attempt.limit.async_wait([self = shared_from_this(), &attempt](const std::error_code& cancelled) {
    std::error_code ignored;
    if (!cancelled && self->done_ && attempt.state == State::kConnecting)
      attempt.socket.close(ignored);
  });
  attempt.socket.async_connect(attempt.to,
                               [self = shared_from_this(), &attempt](const std::error_code& error) {
                                 if (!self->done_) return;
                                 attempt.limit.cancel();
                                 attempt.state = error ? State::kWaiting : State::kReady;
                                 attempt.not_before = Clock::now() + kRetry;
                                 if (error) attempt.reason = WhyNot(error);
                                 self->GoOn();
                               });
}

void Dialler::GreetNext(Attempt& attempt) {
  may_answer_ = true;
  stagger_.expires_after(Stagger(patience_, attempts_.size()));
  stagger_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
    if (cancelled || !self->done_) return;
    self->may_answer_ = false;
    self->GoOn();
  });
  attempt.state = Attempt::State::kGreeted;
  attempt.reason = "it accepted the connection but did not answer";
  attempt.cancel = greet_(std::move(attempt.socket), attempts_.size() == 1,
                          [self = shared_from_this(), &attempt](Greeting::Outcome outcome) {
                            if (self->done_) self->OnGreeted(attempt, std::move(outcome));
                          });
}

void Dialler::OnGreeted(Attempt& attempt, Greeting::Outcome outcome) {
  using Kind = Greeting::Outcome::Kind;
  attempt.cancel = nullptr;
  if (outcome.kind == Kind::kAgreed || outcome.kind == Kind::kDiffers) {
    Finish(std::move(outcome));
    return;
  }
  using State = Attempt::State;
  attempt.state = outcome.kind == Kind::kDefinite ? State::kHopeless : State::kWaiting;
  attempt.not_before = Clock::now() + kRetry;
  attempt.reason = std::move(outcome.reason);
  may_answer_ = false;
  GoOn();
}

std::string Dialler::Reasons() const {
  if (attempts_.empty()) return unresolved_;
  std::string text;
  std::size_t told = 0;
  for (const Attempt& attempt : attempts_) {
    if (told++ == kToldAddresses)
      return text + fmt::format("; and {} more", attempts_.size() - kToldAddresses);
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
  look_up_.cancel();
  retry_.cancel();
  stagger_.cancel();
  for (Attempt& attempt : attempts_) {
    if (const auto cancel = std::exchange(attempt.cancel, nullptr)) cancel();
    std::error_code ignored;
    attempt.socket.close(ignored);
    attempt.limit.cancel();
  }
}

}  // namespace tercet::net
