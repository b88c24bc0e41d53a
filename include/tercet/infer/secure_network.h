// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "tercet/infer/plan.h"
#include "tercet/mpc/sharing.h"

namespace tercet::infer {

/// Rows and columns of what is shared of a layer: weights, bias, and the shortcut's map or factor
/// (0 x 0 where there is none).
struct WeightShapes {
  struct Shape {
    std::size_t rows = 0, cols = 0;
    std::size_t Size() const { return rows * cols; }
  };
  explicit WeightShapes(const nn::PublicLayer& layer);
  Shape weight, bias, shortcut;
};

/// One party's part of secure inference: shares the model once, then prepares (offline) and runs
/// (online) queries. All three parties make the same calls with the same batch sizes in the same
/// order; Prepare and Run may run in different threads, one of each at a time. Where memory runs
/// out they throw Error, with the layer and about how much the query needs.
///
///     SecureNetwork net(party, plan, registry);
///     net.ShareModel(owned);                       // owned: only at the model's owner, else null
///     auto query = net.Prepare(images);            // offline
///     auto logits = net.Run(std::move(query), x);  // online; logits at the receiver only
class SecureNetwork {
 public:
  /// The registry must outlive this.
  SecureNetwork(mpc::Party& party, const Plan& plan, const mpc::Registry& registry);

  /// One party's shares of the weights. They tell nothing about the weights to who has them alone.
  /// With a multiplier (PlannedLayer) that one, their owner, keeps weights themselves besides. Of
  /// public weights all have these, and the bias as one half of `bias`, and no shares.
  struct ModelShares {
    struct Layer {
      mpc::AnyShare weight, bias, shortcut;         // no shortcut: empty
      mpc::AnyMatrix clear_weight, clear_shortcut;  // at a multiplier or public, else empty
      void Visit(mpc::Archive& archive) {
        archive(weight)(bias)(shortcut)(clear_weight)(clear_shortcut);
      }
    };
    std::vector<Layer> layers;
    void Visit(mpc::Archive& archive) { archive(layers); }
  };
  /// Setup. The model's owner passes the weights, the others null. 1 hop, 2 * ring bits per weight
  /// and bias. Public weights are told in as many bytes; the others compare their digests (1 hop
  /// more, 128 bytes), and ProtocolError says if they were told different ones. Returns this
  /// party's shares, for UseModel in a later session.
  ModelShares ShareModel(const nn::IntegerNetwork* owned);
  /// Instead of ShareModel: shares of an earlier session. No message. Throws ConfigError (`place`)
  /// when they do not fit the plan.
  void UseModel(const ModelShares& shares, const std::string& place);
  /// Instead of ShareModel: those of `other`, of the same party and plan, which may run queries at
  /// the same time. No message, and no memory. InternalError unless the linear layers are local.
  void UseModelOf(const SecureNetwork& other);

  /// Correlated material of one query, used once.
  struct Query {
    struct Layer {
      mpc::KnownHalves known{mpc::AnyShare{}};     // of what enters the linear map
      mpc::KnownHalves shortcut{mpc::AnyShare{}};  // of what enters the shortcut
      mpc::AnyMatrix partial;
      std::unique_ptr<mpc::Correlation> correlation;
    };
    std::size_t batch = 0;
    mpc::AnyShare input;
    std::vector<Layer> layers;
    std::unique_ptr<mpc::OutputReveal::Material> output;
  };
  Query Prepare(std::size_t batch);
  /// Writes a query's material to the archive, or fills `query` from it. The shares of the model
  /// belong to it: it can be run by whoever uses those with which it was prepared. Filling throws
  /// ConfigError (the archive's place) when it does not fit the plan.
  void Visit(mpc::Archive& archive, Query& query) const;

  /// `input`: at the data owner the quantised input, features x batch row-major (see
  /// QuantiseInput); else null. Returns the logits at the receiver, image after image; empty
  /// elsewhere.
  std::vector<std::int64_t> Run(Query query, const std::vector<std::int64_t>* input);

  /// The same with roles for clients (mpc::Roles::ForClients). `share`: at an evaluator its
  /// additive share of the quantised inputs, features x batch, in the ring of plan.input_bits;
  /// nothing at the helper. Returns an evaluator's additive share of the output, classes x batch,
  /// in the ring of plan.output_bits, masked by fresh randomness: both together tell the output and
  /// nothing else. Empty at the helper, which calls this only where Plan::HelperActsOnline. Of
  /// compared classes 0 is left of the winner, 1 of the others.
  mpc::AnyMatrix RunForClients(Query query, mpc::AnyMatrix share);

  /// Hops of the last query that Run finished, as this party saw it.
  std::uint32_t OnlineHops() const { return online_hops_; }

 private:
  struct Layer {
    std::shared_ptr<mpc::Linear> linear;
    std::shared_ptr<mpc::Linear> shortcut;        // null without a shortcut
    std::unique_ptr<mpc::Activation> activation;  // null for logits
    // Of the weights, at the helper where the layer before is fused with this one; else null.
    std::shared_ptr<const mpc::AnyMatrix> columns;
  };
  [[noreturn]] void ThrowOutOfMemory(mpc::Phase phase) const;
  const mpc::Depths& DepthsOf(mpc::Phase phase, std::size_t batch);
  bool KnowsSum(const PlannedLayer& planned) const;
  void MakeLinear(std::size_t k, const ModelShares::Layer& shares);
  void Fuse(std::size_t k, std::shared_ptr<const mpc::AnyMatrix> columns);
  mpc::AnyMatrix RunLayers(mpc::Context& ctx, Query& query, const mpc::AnyMatrix& secret);

  mpc::Party& party_;
  Plan plan_;
  const mpc::Registry& registry_;
  mpc::LinearProtocol linear_;
  std::vector<Layer> layers_;
  std::vector<std::size_t> last_use_;  // of the input and each layer's output: by which layer
  mpc::InputSharing input_;
  mpc::OutputReveal output_;
  std::uint32_t online_hops_ = 0;
  std::mutex mutex_;
  std::map<std::pair<mpc::Phase, std::size_t>, mpc::Depths> depths_;  // by phase and batch
};

}  // namespace tercet::infer
