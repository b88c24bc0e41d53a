// SPDX-License-Identifier: Apache-2.0
#include "net/resolver.h"

#include <algorithm>
#include <asio/post.hpp>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

namespace tercet::net {

using asio::ip::tcp;

/// Where look-ups leave what they found, as long as somebody wants to know.
struct Resolver::Mailbox {
  explicit Mailbox(asio::io_context& context) : io(&context) {}
  std::mutex mutex;                         // of io
  asio::io_context* io;                     // null: nobody wants to know
  std::map<std::uint64_t, Done> under_way;  // for the io_context's thread alone
};

Resolver::Resolver(asio::io_context& io) : io_(io), mailbox_(std::make_shared<Mailbox>(io)) {}

Resolver::~Resolver() { Cancel(); }

void Resolver::Cancel() {
  const auto closed = std::exchange(mailbox_, std::make_shared<Mailbox>(io_));
  {
    const std::lock_guard lock(closed->mutex);
    closed->io = nullptr;
  }
  closed->under_way.clear();
}

void Resolver::Resolve(const std::string& host, std::uint16_t port, bool passive, Done done) {
  const std::uint64_t number = ++number_;
  mailbox_->under_way.emplace(number, std::move(done));
  std::thread([mailbox = mailbox_, number, host, port, passive] {
    asio::io_context own;
    std::error_code error;
    const auto flags = passive ? tcp::resolver::passive : tcp::resolver::flags();
    const auto found = tcp::resolver(own).resolve(host, std::to_string(port), flags, error);
    Addresses addresses;
    for (const auto& entry : found) {
      const auto endpoint = entry.endpoint();
      if (std::find(addresses.begin(), addresses.end(), endpoint) == addresses.end())
        addresses.push_back(endpoint);
    }
    const std::lock_guard lock(mailbox->mutex);
    if (mailbox->io == nullptr) return;
    asio::post(*mailbox->io, [mailbox, number, error, addresses = std::move(addresses)] {
      const auto call = mailbox->under_way.extract(number);
      if (!call.empty()) call.mapped()(error, addresses);
    });
  }).detach();
}

}  // namespace tercet::net
