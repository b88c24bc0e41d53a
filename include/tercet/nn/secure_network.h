#pragma once

#include <memory>
#include <vector>

#include "tercet/mpc/sharing.h"
#include "tercet/nn/plan.h"

namespace tercet::nn {

/// One party's part of secure inference: shares the model once, then prepares (offline) and runs
/// (online) queries. All three parties make the same calls with the same batch sizes in the same
/// order; Prepare and Run may run in different threads, one of each at a time.
///
///     nn::SecureNetwork net(party, plan, registry);
///     net.ShareModel(owned);                       // owned: only at the model's owner, else null
///     auto query = net.Prepare(images);            // offline
///     auto logits = net.Run(std::move(query), x);  // online; logits at the receiver only
class SecureNetwork {
 public:
  SecureNetwork(mpc::Party& party, const Plan& plan, const mpc::Registry& registry);

  /// Setup. The model's owner passes the weights, the others null. 1 hop, 2 * ring bits per weight
  /// and bias.
  void ShareModel(const IntegerNetwork* owned);

  /// Correlated material of one query, used once.
  struct Query {
    struct Layer {
      mpc::KnownHalves known{mpc::AnyShare{}};     // of what enters the linear map
      mpc::KnownHalves shortcut{mpc::AnyShare{}};  // of what enters the shortcut
      mpc::AnyMatrix partial;
      mpc::Prepared prepared;
    };
    std::size_t batch = 0;
    mpc::AnyShare input;
    std::vector<Layer> layers;
    std::unique_ptr<mpc::OutputReveal::Material> output;
  };
  Query Prepare(std::size_t batch);

  /// `input`: at the data owner the quantised input, features x batch row-major (see
  /// QuantiseInput); else null. Returns the logits at the receiver, image after image; empty
  /// elsewhere.
  std::vector<std::int64_t> Run(Query query, const std::vector<std::int64_t>* input);

  /// Hops of the last query that Run finished, as this party saw it.
  std::uint32_t OnlineHops() const { return online_hops_; }

 private:
  struct Layer {
    std::unique_ptr<mpc::Linear> linear;
    std::unique_ptr<mpc::Linear> shortcut;        // null without a linear map in the shortcut
    std::unique_ptr<mpc::Activation> activation;  // null for logits
  };
  mpc::AnyMatrix PrepareShortcut(std::size_t k, const mpc::AnyShare& from, mpc::AnyMatrix z) const;
  mpc::AnyMatrix RunShortcut(std::size_t k, mpc::KnownHalves known, const mpc::AnyShare& from,
                             mpc::AnyMatrix z) const;

  mpc::Party& party_;
  Plan plan_;
  mpc::LinearFactory make_linear_;
  std::vector<Layer> layers_;
  std::vector<std::size_t> last_use_;  // of the input and each layer's output: by which layer
  mpc::InputSharing input_;
  mpc::OutputReveal output_;
  std::uint32_t online_hops_ = 0;
};

}  // namespace tercet::nn
