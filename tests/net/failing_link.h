// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "tercet/base/error.h"
#include "tercet/net/link.h"

namespace tercet::net {

/// A link that fails instead of sending once `left` messages have been sent, over all links that
/// share the count.
class FailingLink final : public Link {
 public:
  FailingLink(std::unique_ptr<Link> inner, std::atomic<int>& left)
      : inner_(std::move(inner)), left_(left) {}
  void Send(Message message) override {
    if (left_-- <= 0) throw NetworkError("this link was made to fail");
    inner_->Send(std::move(message));
  }
  Message Receive(Phase phase) override { return inner_->Receive(phase); }
  void Flush() override { inner_->Flush(); }
  void Abort(const std::string& reason) noexcept override { inner_->Abort(reason); }
  void Close() noexcept override { inner_->Close(); }
  int Peer() const override { return inner_->Peer(); }

 private:
  std::unique_ptr<Link> inner_;
  std::atomic<int>& left_;
};

}  // namespace tercet::net
