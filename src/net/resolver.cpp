// SPDX-License-Identifier: Apache-2.0
#include "net/resolver.h"

#include <algorithm>
#include <asio/error.hpp>
#include <asio/post.hpp>
#include <atomic>
#include <exception>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace tercet::net {

using asio::ip::tcp;

namespace {
constexpr int kMaxLookUps = 64;  // of a process at once
}

/// Where look-ups leave what they found, as long as somebody wants to know.
struct Resolver::Mailbox {
  explicit Mailbox(asio::io_context& context) : io(&context) {}
  std::mutex mutex;                         // of io
  asio::io_context* io;                     // null: nobody wants to know
  std::map<std::uint64_t, Done> under_way;  // for the io_context's thread alone

  void Close() {
    {
      const std::lock_guard lock(mutex);
      io = nullptr;
    }
    under_way.clear();
  }
};

Resolver::Resolver(asio::io_context& io) : io_(io), mailbox_(std::make_shared<Mailbox>(io)) {}

Resolver::~Resolver() { mailbox_->Close(); }

void Resolver::Cancel() {
  mailbox_->Close();
  mailbox_ = std::make_shared<Mailbox>(io_);
}

void Resolver::Resolve(const std::string& host, std::uint16_t port, bool passive, Done done) {
  const std::uint64_t number = ++number_;
  mailbox_->under_way.emplace(number, std::move(done));
  const auto put = [mailbox = mailbox_, number](const std::error_code& error, Addresses addresses) {
    const std::lock_guard lock(mailbox->mutex);
    if (mailbox->io == nullptr) return;
    asio::post(*mailbox->io, [mailbox, number, error, addresses = std::move(addresses)] {
      const auto call = mailbox->under_way.extract(number);
      if (!call.empty()) call.mapped()(error, addresses);
    });
  };
  // Those that nobody waits for any more count, too, until the system gives them up.
  static std::atomic<int> look_ups{0};
  const int before = look_ups++;
  const std::shared_ptr<void> counted(nullptr, [](void*) { --look_ups; });
  if (before >= kMaxLookUps) {
    put(asio::error::try_again, {});
    return;
  }
  std::thread([put, counted, host, port, passive] {
    std::error_code error;
    Addresses addresses;
    try {
      asio::io_context own;
      const auto flags = passive ? tcp::resolver::passive : tcp::resolver::flags();
      for (const auto& entry :
           tcp::resolver(own).resolve(host, std::to_string(port), flags, error)) {
        const auto endpoint = entry.endpoint();
        if (std::find(addresses.begin(), addresses.end(), endpoint) == addresses.end())
          addresses.push_back(endpoint);
      }
    } catch (const std::exception&) {  // it would end the process
      error = asio::error::no_memory;
    }
    put(error, std::move(addresses));
  }).detach();
}

}  // namespace tercet::net
