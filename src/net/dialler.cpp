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
constexpr Clock::duration kLookUpAgain = std::chrono::seconds(1);
// After a greeting that failed again and again.
constexpr Clock::duration kLongestPause = std::chrono::seconds(1);
constexpr int kDoublings = 4;
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
    unresolved_ = "no answer from the name server";
    Resolve();
  } else {
    StartWith({tcp::endpoint(address, there_.port)});
  }
}

void Dialler::StartWith(const std::vector<tcp::endpoint>& addresses) {
  for (const auto& attempt : attempts_) attempt->listed = false;
  for (const auto& address : addresses) {
    const auto known =
        std::find_if(attempts_.begin(), attempts_.end(),
                     [&](const AttemptPtr& attempt) { return attempt->to == address; });
    if (known != attempts_.end()) {
      (*known)->listed = true;
    } else {
      attempts_.push_back(std::make_shared<Attempt>(io_, address));
    }
  }
  GoOn();
}

void Dialler::Resolve() {
  resolver_.Resolve(there_.host, there_.port, false,
                    [self = shared_from_this()](const std::error_code& error,
                                                const Resolver::Addresses& addresses) {
                      if (!self->done_) return;
                      self->look_up_.expires_after(error ? Clock::duration(kRetry) : kLookUpAgain);
                      self->look_up_.async_wait([self](const std::error_code& cancelled) {
                        if (!cancelled && self->done_) self->Resolve();
                      });
                      if (error) {
                        self->unresolved_ = fmt::format("host name not found: {}", error.message());
                      } else {
                        self->StartWith(addresses);
                      }
                    });
}

// Looks what there is to do after something has changed.
void Dialler::GoOn() {
  using State = Attempt::State;
  std::erase_if(attempts_, [](const AttemptPtr& attempt) {
    return !attempt->listed && attempt->state == State::kWaiting;
  });
  const bool hopeless = std::all_of(attempts_.begin(), attempts_.end(), [](const auto& attempt) {
    return attempt->state == State::kWaiting && attempt->hopeless;
  });
  if (hopeless && !attempts_.empty()) {
    Finish({.kind = Greeting::Outcome::Kind::kDefinite, .reason = Reasons()});
    return;
  }
  TryAgain();
  if (may_answer_) return;
  // Each gets its turn, also where others fail and are ready again in no time.
  AttemptPtr next;
  for (const auto& attempt : attempts_) {
    if (attempt->state != State::kReady) continue;
    if (!next || attempt->greeted_at < next->greeted_at) next = attempt;
  }
  if (next) GreetNext(next);
}

// Tries those that have waited long enough, as many as there is room for.
void Dialler::TryAgain() {
  using State = Attempt::State;
  const auto waiting =
      std::count_if(attempts_.begin(), attempts_.end(),
                    [](const AttemptPtr& attempt) { return attempt->state == State::kWaiting; });
  const std::size_t under_way = attempts_.size() - static_cast<std::size_t>(waiting);
  for (std::size_t room = kMaxAtOnce - std::min(kMaxAtOnce, under_way); room > 0; --room) {
    AttemptPtr next;
    for (const auto& attempt : attempts_) {
      if (attempt->state != State::kWaiting) continue;
      if (!next || attempt->not_before < next->not_before) next = attempt;
    }
    if (!next) return;
    if (next->not_before > Clock::now()) {
      retry_.expires_at(next->not_before);
      retry_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
        if (!cancelled && self->done_) self->GoOn();
      });
      return;
    }
    Try(next);
  }
}

void Dialler::Try(const AttemptPtr& attempt) {
  using State = Attempt::State;
  attempt->state = State::kConnecting;
  attempt->socket = tcp::socket(io_);
  attempt->limit.expires_after(kAddressLimit);
  attempt->limit.async_wait([attempt](const std::error_code& cancelled) {
    std::error_code ignored;
    if (!cancelled && attempt->state == State::kConnecting) attempt->socket.close(ignored);
  });
  attempt->socket.async_connect(
      attempt->to, [self = shared_from_this(), attempt](const std::error_code& error) {
        if (!self->done_) return;
        attempt->limit.cancel();
        if (error) {
          std::error_code ignored;
          attempt->socket.close(ignored);
          attempt->state = State::kWaiting;
          attempt->not_before = Clock::now() + kRetry;
          attempt->hopeless = false;
          attempt->reason = WhyNot(error);
        } else {
          attempt->state = State::kReady;
          if (attempt->greeted_at == Clock::time_point())
            attempt->reason = "it accepted the connection; others are greeted first";
        }
        self->GoOn();
      });
}

void Dialler::GreetNext(const AttemptPtr& attempt) {
  may_answer_ = true;
  stagger_.expires_after(Stagger(patience_, attempts_.size()));
  stagger_.async_wait([self = shared_from_this()](const std::error_code& cancelled) {
    if (cancelled || !self->done_) return;
    self->may_answer_ = false;
    self->GoOn();
  });
  attempt->state = Attempt::State::kGreeted;
  attempt->greeted_at = Clock::now();
  attempt->reason = "it accepted the connection but did not answer";
  attempt->cancel = greet_(std::move(attempt->socket),
                           [self = shared_from_this(), attempt](Greeting::Outcome outcome) {
                             if (self->done_) self->OnGreeted(*attempt, std::move(outcome));
                           });
}

void Dialler::OnGreeted(Attempt& attempt, Greeting::Outcome outcome) {
  using Kind = Greeting::Outcome::Kind;
  attempt.cancel = nullptr;
  if (outcome.kind == Kind::kAgreed || outcome.kind == Kind::kDiffers) {
    Finish(std::move(outcome));
    return;
  }
  attempt.state = Attempt::State::kWaiting;
  attempt.hopeless = outcome.kind == Kind::kDefinite;
  attempt.not_before =
      Clock::now() + std::min<Clock::duration>(kLongestPause, kRetry * (1 << attempt.failures));
  attempt.failures = std::min(attempt.failures + 1, kDoublings);
  attempt.reason = std::move(outcome.reason);
  may_answer_ = false;
  GoOn();
}

std::string Dialler::Reasons() const {
  if (attempts_.empty()) return unresolved_;
  std::string text;
  std::size_t told = 0;
  for (const auto& attempt : attempts_) {
    if (told++ == kToldAddresses)
      return text + fmt::format("; and {} more", attempts_.size() - kToldAddresses);
    const std::string address = attempt->to.address().to_string();
    if (!text.empty()) text += "; ";
    if (address != there_.host) text += address + ": ";
    text += attempt->reason.empty() ? kNoAnswer : attempt->reason;
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
  resolver_.Cancel();
  look_up_.cancel();
  retry_.cancel();
  stagger_.cancel();
  for (const auto& attempt : attempts_) {
    if (const auto cancel = std::exchange(attempt->cancel, nullptr)) cancel();
    std::error_code ignored;
    attempt->socket.close(ignored);
    attempt->limit.cancel();
  }
}

}  // namespace tercet::net
