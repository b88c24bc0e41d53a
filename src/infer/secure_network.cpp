// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/secure_network.h"

#include <new>

#include "infer/plan_layer.h"
#include "nn/sum_windows.h"
#include "tercet/crypto/certificates.h"
#include "tercet/infer/memory.h"
#include "tercet/mpc/dealer.h"

namespace tercet::infer {
namespace {

using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::Context;
using mpc::Phase;

// Integers as ring elements, row-major.
AnyMatrix Encode(const std::vector<std::int64_t>& values, std::size_t rows, std::size_t cols,
                 unsigned bits) {
  TERCET_CHECK(values.size() == rows * cols, "{} values for {} x {}", values.size(), rows, cols);
  return ring::DispatchWord(bits, [&](auto word) {
    using W = decltype(word);
    auto m = ring::MakeMatrix<W>(rows, cols);
    for (std::size_t i = 0; i < values.size(); ++i) m.data()[i] = ring::Encode<W>(values[i], bits);
    return AnyMatrix(std::move(m), bits);
  });
}

// `secret` is empty but at the owner.
AnyShare ShareTensor(mpc::Party& party, Context& ctx, int owner, const std::string& purpose,
                     const AnyMatrix& secret, std::size_t rows, std::size_t cols, unsigned bits) {
  mpc::Sharing sharing(party, owner, purpose);
  return ring::DispatchWord(bits, [&](auto word) {
    using W = decltype(word);
    auto share =
        sharing.Share<W>(ctx, secret.Empty() ? nullptr : &secret.As<W>(), rows, cols, bits);
    return AnyShare{AnyMatrix(std::move(share.mine), bits), AnyMatrix(std::move(share.next), bits)};
  });
}

// `value` is empty but at the owner, who tells it to the others.
AnyMatrix TellTensor(Context& ctx, int owner, AnyMatrix value, std::size_t rows, std::size_t cols,
                     unsigned bits) {
  return ring::DispatchWord(bits, [&]<ring::Word W>(W) {
    if (!ctx.Is(owner)) return AnyMatrix(ctx.Receive<W>(owner, rows, cols, bits), bits);
    for (const int to : {ctx.Next(), ctx.Prev()})
      ctx.Send(to, value.As<W>(), bits);  // 1 hop, bits each
    return std::move(value);
  });
}

// Two that were told a model by a third compare what it was. 1 hop, 64 bytes each.
void CompareModels(Context& ctx, int owner, const std::string& digest) {
  if (ctx.Is(owner)) return;
  const int other = 3 - owner - ctx.Id();
  ctx.SendBytes(other, Bytes(digest.begin(), digest.end()));
  const Bytes theirs = ctx.ReceiveBytes(other, digest.size());
  if (!std::equal(theirs.begin(), theirs.end(), digest.begin(), digest.end()))
    throw ProtocolError(fmt::format(
        "party {0} says that party {1} told it another model than this party: either "
        "party {1} told them different ones, or party {0} does not say what it was told",
        other, owner));
}

std::string DigestWith(const std::string& before, const AnyMatrix& tensor) {
  return ring::DispatchWord(tensor.Bits(), [&]<ring::Word W>(W) {
    const auto& words = tensor.As<W>();
    const std::string_view bytes(reinterpret_cast<const char*>(words.data()),
                                 words.size() * sizeof(W));
    return crypto::Sha256Hex(before + crypto::Sha256Hex(bytes));
  });
}

AnyShare ZeroBias(const mpc::LinearShape& shape, unsigned bits) {
  return ring::DispatchWord(bits, [&]<ring::Word W>(W) {
    const ring::Matrix<W> zero = xt::zeros<W>({shape.BiasCount(), std::size_t{1}});
    return AnyShare{AnyMatrix(zero, bits), AnyMatrix(zero, bits)};
  });
}

bool HasShape(const AnyMatrix& m, std::size_t rows, std::size_t cols, unsigned bits) {
  return m.Bits() == bits && !m.IsZero() && m.Rows() == rows && m.Cols() == cols;
}

bool IsShare(const AnyShare& x, std::size_t rows, std::size_t cols, unsigned bits) {
  return HasShape(x.mine, rows, cols, bits) && HasShape(x.next, rows, cols, bits);
}

// Of a share whose halves need not be known yet.
bool MayBeShare(const AnyShare& x, std::size_t rows, std::size_t cols, unsigned bits) {
  const auto fits = [&](const AnyMatrix& half) {
    return half.Empty() || (half.IsZero() && half.Bits() == bits) ||
           HasShape(half, rows, cols, bits);
  };
  return fits(x.mine) && fits(x.next);
}

AnyMatrix Plus(const AnyMatrix& x, AnyMatrix z) {
  ring::DispatchWord(z.Bits(), [&]<ring::Word W>(W) { z.As<W>() += x.As<W>(); });
  return z;
}

AnyMatrix Repeated(const AnyMatrix& factor, std::size_t rows) {
  if (factor.Empty()) return {};
  return ring::DispatchWord(factor.Bits(), [&]<ring::Word W>(W) {
    auto m = ring::MakeMatrix<W>(rows, 1);
    m.fill(factor.As<W>().data()[0]);
    return AnyMatrix(std::move(m), factor.Bits());
  });
}

// The layer's sum pool, on each half that is there.
AnyShare Pooled(const PlannedLayer& planned, AnyShare x) {
  if (!planned.layer.sum_pool) return x;
  const nn::SumPool& pool = *planned.layer.sum_pool;
  const mpc::Shape3 in = planned.activation.Out();
  for (AnyMatrix* half : {&x.mine, &x.next}) {
    if (half->Empty() || half->IsZero()) continue;
    ring::DispatchWord(half->Bits(), [&]<ring::Word W>(W) {
      auto sums = ring::MakeMatrix<W>(pool.Out(in).Size(), half->Cols());
      nn::SumWindows(in, pool, half->As<W>().data(), half->Cols(), sums.data());
      *half = AnyMatrix(std::move(sums), half->Bits());
    });
  }
  return x;
}

// What leaves the input (0) and each layer (1, 2, ...), as long as it is used.
class Outputs {
 public:
  explicit Outputs(const std::vector<std::size_t>& last_use)
      : last_use_(last_use), slots_(last_use.size()) {}

  void Put(std::size_t index, AnyShare share) {
    slots_.at(index).own = std::move(share);
    slots_[index].share = &slots_[index].own;
  }
  // `share` must outlive its use.
  void Refer(std::size_t index, const AnyShare& share) { slots_.at(index).share = &share; }
  // In a ring of `bits` bits; valid until the next call.
  const AnyShare& In(std::size_t index, unsigned bits) {
    const AnyShare& share = *slots_.at(index).share;
    const auto fits = [bits](const AnyMatrix& m) { return m.Empty() || m.Bits() == bits; };
    if (fits(share.mine) && fits(share.next)) return share;
    narrow_ = {share.mine.ToRing(bits), share.next.ToRing(bits)};
    return narrow_;
  }
  // Frees what no layer after `layer` uses.
  void ForgetAfter(std::size_t layer) {
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (last_use_[i] == layer) slots_[i] = {};
  }

 private:
  struct Slot {
    const AnyShare* share = nullptr;
    AnyShare own;
  };
  const std::vector<std::size_t>& last_use_;
  std::vector<Slot> slots_;
  AnyShare narrow_;
};

}  // namespace

// A factor is shared once, and is the weight of every channel.
WeightShapes::WeightShapes(const nn::PublicLayer& layer)
    : weight{layer.linear.out_channels, layer.linear.Depth()}, bias{layer.linear.BiasCount(), 1} {
  if (!layer.shortcut) return;
  shortcut = {1, 1};
  if (const auto& linear = layer.shortcut->linear)
    shortcut = {linear->out_channels, linear->Depth()};
}

SecureNetwork::SecureNetwork(mpc::Party& party, const Plan& plan, const mpc::Registry& registry)
    : party_(party),
      plan_(plan),
      registry_(registry),
      linear_(registry.FindLinear(plan.linear)),
      input_(party, plan.roles.helper, plan.roles.data_owner, plan.OnlyTo(0)),
      output_(party, plan.roles.helper, plan.roles.receiver, plan.KnownResult()) {
  for (const auto& planned : plan_.layers) {
    Layer layer;
    if (planned.make) layer.activation = planned.make(party);
    last_use_.push_back(layers_.size());
    if (planned.layer.shortcut) last_use_.at(planned.layer.shortcut->from) = layers_.size();
    layers_.push_back(std::move(layer));
  }
}

void SecureNetwork::ThrowOutOfMemory(mpc::Phase phase) const {
  const auto needed = EstimateMemory(plan_, 1, 0)[static_cast<std::size_t>(party_.Id())];
  throw Error(fmt::format("out of memory in layer {} ({} phase); a query of {} images needs {}",
                          party_.LayerOf(phase), net::PhaseName(phase), plan_.batch,
                          MemoryText(needed)));
}

// A smaller batch than the plan's may take fewer messages.
const mpc::Depths& SecureNetwork::DepthsOf(Phase phase, std::size_t batch) {
  const std::lock_guard lock(mutex_);
  const std::pair key(phase, batch);
  if (const auto found = depths_.find(key); found != depths_.end()) return found->second;
  Plan plan = plan_;
  if (batch != plan_.batch) {
    nn::PublicNetwork network = plan_.network;
    for (std::size_t k = 0; k < layers_.size(); ++k)
      if (plan_.layers[k].Activates()) network.layers[k].suite = plan_.layers[k].suite.Text();
    plan = MakePlan(network, registry_, {}, plan_.roles, batch);
  }
  std::vector<const mpc::Cost*> costs;
  for (const auto& step : plan.Steps()) costs.push_back(step.cost);
  return depths_.emplace(key, mpc::DepthsAt(party_.Id(), phase, costs)).first->second;
}

// Whether this party's share of what enters the activation is known offline.
bool SecureNetwork::KnowsSum(const PlannedLayer& planned) const {
  const auto& spec = planned.activation;
  return party_.Id() == plan_.roles.helper ? spec.dealt : spec.known_at == party_.Id();
}

void SecureNetwork::MakeLinear(std::size_t k, const ModelShares::Layer& shares) {
  const auto maps = LinearMaps(plan_.layers[k]);
  const auto make = [&](const mpc::LinearSpec& map, const AnyShare& weight, const AnyShare& bias,
                        const AnyMatrix& clear) {
    return linear_.plan(map, plan_.roles).make(party_, weight, bias, clear);
  };
  layers_[k].linear = make(maps[0], shares.weight, shares.bias, shares.clear_weight);
  if (k > 0 && plan_.layers[k - 1].fused && party_.Id() == plan_.roles.helper)
    Fuse(k, mpc::FusedColumns(shares.weight));
  if (maps.size() == 1) return;
  const auto& shape = maps[1].shape;
  const bool own = plan_.layers[k].layer.shortcut->linear.has_value();
  const auto weight = [&](const AnyMatrix& of) {
    return own ? of : Repeated(of, shape.out_channels);
  };
  layers_[k].shortcut = make(maps[1], {weight(shares.shortcut.mine), weight(shares.shortcut.next)},
                             ZeroBias(shape, maps[1].ring_bits), weight(shares.clear_shortcut));
}

SecureNetwork::ModelShares SecureNetwork::ShareModel(const nn::IntegerNetwork* owned) try {
  const int owner = plan_.roles.model_owner;
  TERCET_CHECK((owned != nullptr) == (party_.Id() == owner),
               "the model's owner, and it alone, passes the weights");
  Context ctx(party_, Phase::kSetup);
  ModelShares shares;
  std::string digest;  // of what is told
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const auto& planned = plan_.layers[k];
    const unsigned bits = planned.activation.ring_bits;
    ctx.Enter(k + 1, planned.layer.name);
    const auto share = [&](const char* tensor,
                           const std::vector<std::int64_t> nn::LayerWeights::*values,
                           const WeightShapes::Shape& shape, AnyMatrix* clear) {
      AnyMatrix secret;
      if (owned != nullptr)
        secret = Encode(owned->weights[k].*values, shape.rows, shape.cols, bits);
      if (linear_.public_weights) {
        auto told = TellTensor(ctx, owner, std::move(secret), shape.rows, shape.cols, bits);
        digest = DigestWith(digest, told);
        if (clear == nullptr) return AnyShare{std::move(told), {}};
        *clear = std::move(told);
        return AnyShare{};
      }
      auto shared = ShareTensor(party_, ctx, owner, "model/" + planned.layer.name + "/" + tensor,
                                secret, shape.rows, shape.cols, bits);
      if (clear != nullptr && planned.multiplier == party_.Id()) *clear = std::move(secret);
      return shared;
    };
    const WeightShapes shapes(planned.layer);
    auto& own = shares.layers.emplace_back();
    own.weight = share("weight", &nn::LayerWeights::weight, shapes.weight, &own.clear_weight);
    own.bias = share("bias", &nn::LayerWeights::bias, shapes.bias, nullptr);
    if (planned.layer.shortcut)
      own.shortcut =
          share("shortcut", &nn::LayerWeights::shortcut, shapes.shortcut, &own.clear_shortcut);
    MakeLinear(k, own);
    if (linear_.public_weights && k + 1 == layers_.size()) CompareModels(ctx, owner, digest);
    ctx.Leave();
  }
  return shares;
} catch (const std::bad_alloc&) {
  ThrowOutOfMemory(Phase::kSetup);
}

void SecureNetwork::UseModel(const ModelShares& shares, const std::string& place) {
  bool fits = shares.layers.size() == layers_.size();
  for (std::size_t k = 0; fits && k < layers_.size(); ++k) {
    const auto& planned = plan_.layers[k];
    const unsigned bits = planned.activation.ring_bits;
    const auto& [weight, bias, shortcut, clear_weight, clear_shortcut] = shares.layers[k];
    const WeightShapes shapes(planned.layer);
    const bool all = linear_.public_weights, has_clear = all || planned.multiplier == party_.Id();
    const auto is_share = [bits, all](const AnyShare& x, const WeightShapes::Shape& shape) {
      return all || IsShare(x, shape.rows, shape.cols, bits);
    };
    const auto is_clear = [bits, has_clear](const AnyMatrix& m, const WeightShapes::Shape& shape) {
      return !has_clear || HasShape(m, shape.rows, shape.cols, bits);
    };
    fits = is_share(weight, shapes.weight) && is_share(bias, shapes.bias) &&
           (!all || HasShape(bias.mine, shapes.bias.rows, shapes.bias.cols, bits)) &&
           is_clear(clear_weight, shapes.weight) &&
           (!planned.layer.shortcut ||
            (is_share(shortcut, shapes.shortcut) && is_clear(clear_shortcut, shapes.shortcut)));
  }
  if (!fits) throw ConfigError(place, "found shares of another model than the plan's");
  for (std::size_t k = 0; k < layers_.size(); ++k) MakeLinear(k, shares.layers[k]);
}

void SecureNetwork::UseModelOf(const SecureNetwork& other) {
  TERCET_CHECK(linear_.local, "parts of {} are not for several queries at once", linear_.name);
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    layers_[k].linear = other.layers_.at(k).linear;
    layers_[k].shortcut = other.layers_[k].shortcut;
    if (other.layers_[k].columns) Fuse(k, other.layers_[k].columns);
  }
}

// Layer k with the activation before it.
void SecureNetwork::Fuse(std::size_t k, std::shared_ptr<const AnyMatrix> columns) {
  layers_[k].columns = std::move(columns);
  mpc::FusedOf(*layers_[k - 1].activation).Fuse(layers_[k].columns);
}

SecureNetwork::Query SecureNetwork::Prepare(std::size_t batch) try {
  Context ctx(party_, Phase::kOffline, &DepthsOf(Phase::kOffline, batch));
  const bool helper = ctx.Is(plan_.roles.helper);
  Query query;
  query.batch = batch;
  ctx.Enter(0, "input");
  query.input = input_.Prepare(plan_.network.input.shape.Size(), batch, plan_.input_bits);
  ctx.Leave();
  query.layers.resize(layers_.size());
  Outputs known(last_use_);
  known.Refer(0, query.input);
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const auto& planned = plan_.layers[k];
    const auto& spec = planned.activation;
    auto& layer = query.layers[k];
    ctx.Enter(k + 1, planned.layer.name);
    {
      const AnyShare& x = known.In(k, spec.ring_bits);
      layer.known = mpc::KnownHalves(x);
      layer.partial = layers_[k].linear->Prepare(ctx, batch, x);
    }
    if (planned.layer.shortcut) {
      const AnyShare& x = known.In(planned.layer.shortcut->from, spec.ring_bits);
      layer.shortcut = mpc::KnownHalves(x);
      layer.partial = Plus(layers_[k].shortcut->Prepare(ctx, batch, x), std::move(layer.partial));
    }
    const AnyMatrix* z = KnowsSum(planned) ? &layer.partial : nullptr;
    const AnyMatrix* result = z;
    if (planned.Activates()) {
      layer.correlation = mpc::PrepareAny(*layers_[k].activation, ctx, batch, z);
      result =
          helper && planned.dealt_output ? &mpc::KnownOf(layer.correlation.get()).mine : nullptr;
    }
    ctx.Leave();
    if (k + 1 == layers_.size()) {
      ctx.Enter(k + 2, "output");
      query.output =
          output_.Prepare(ctx, result, planned.layer.Out().Size(), batch, plan_.output_bits);
      ctx.Leave();
    } else if (planned.layer.sum_pool) {
      known.Put(k + 1, Pooled(planned, mpc::KnownOf(layer.correlation.get())));
    } else {
      known.Refer(k + 1, mpc::KnownOf(layer.correlation.get()));
    }
    known.ForgetAfter(k);
    // What is in the material has no part online: of the result, and of what is dealt the helper's.
    if (z != nullptr && (!planned.Activates() || (helper && planned.dealt_output)))
      layer.partial = AnyMatrix();
  }
  return query;
} catch (const std::bad_alloc&) {
  ThrowOutOfMemory(Phase::kOffline);
}

void SecureNetwork::Visit(mpc::Archive& archive, Query& query) const {
  if (archive.Reading()) {
    query = {};
    query.layers.resize(layers_.size());
    query.output = std::make_unique<mpc::OutputReveal::Material>();
  }
  const auto flags = [&](mpc::KnownHalves& known) {
    std::uint8_t mine = known.mine ? 1 : 0, next = known.next ? 1 : 0;
    archive(mine)(next);
    known.mine = mine != 0;
    known.next = next != 0;
  };
  archive(query.batch)(query.input);
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    auto& layer = query.layers[k];
    flags(layer.known);
    flags(layer.shortcut);
    archive(layer.partial);
    if (!layers_[k].activation) continue;
    std::uint8_t present = layer.correlation ? 1 : 0;
    archive(present);
    if (present == 0) continue;
    if (archive.Reading()) layer.correlation = layers_[k].activation->NewCorrelation();
    if (!layer.correlation)
      archive.Refuse("material of another kind for layer " + plan_.layers[k].layer.name);
    archive(*layer.correlation);
  }
  archive(*query.output);
  if (!archive.Reading()) return;
  archive.Finish();
  const std::size_t batch = query.batch;
  if (batch == 0 || batch > plan_.batch)
    archive.Refuse(fmt::format("material for {} images, expected 1 to {},", batch, plan_.batch));
  bool fits = MayBeShare(query.input, plan_.network.input.shape.Size(), batch, plan_.input_bits) &&
              MayBeShare({query.output->mask, query.output->dealt}, plan_.network.Classes(), batch,
                         plan_.output_bits);
  for (std::size_t k = 0; fits && k < layers_.size(); ++k) {
    const auto& planned = plan_.layers[k];
    const auto& layer = query.layers[k];
    fits = MayBeShare({layer.partial, {}}, planned.layer.linear.Out().Size(), batch,
                      planned.activation.ring_bits) &&
           MayBeShare(mpc::KnownOf(layer.correlation.get()), planned.activation.Out().Size(), batch,
                      planned.activation.out_bits);
  }
  if (!fits) archive.Refuse("material of another shape than the plan's");
}

// The input, and all layers: this party's part of what the last one gives. `secret` as
// InputSharing::Run takes it.
AnyMatrix SecureNetwork::RunLayers(Context& ctx, Query& query, const AnyMatrix& secret) {
  const std::size_t features = plan_.network.input.shape.Size(), batch = query.batch;
  ctx.Enter(0, "input");
  Outputs outputs(last_use_);
  outputs.Put(0,
              input_.Run(ctx, std::move(query.input), &secret, features, batch, plan_.input_bits));
  ctx.Leave();
  AnyMatrix result;
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const auto& planned = plan_.layers[k];
    auto& layer = query.layers[k];
    ctx.Enter(k + 1, planned.layer.name);
    AnyMatrix z;
    if (!layer.partial.Empty()) {
      const unsigned bits = planned.activation.ring_bits;
      z = layers_[k].linear->Run(ctx, std::move(layer.partial), layer.known, outputs.In(k, bits));
      if (planned.layer.shortcut)
        z = layers_[k].shortcut->Run(ctx, std::move(z), layer.shortcut,
                                     outputs.In(planned.layer.shortcut->from, bits));
    }
    if (planned.Activates()) {
      auto& activation = *layers_[k].activation;
      AnyShare x = planned.fused ? mpc::FusedOf(activation)
                                       .RunFused(ctx, std::move(layer.correlation), z,
                                                 query.layers[k + 1].partial)
                                 : activation.Run(ctx, std::move(layer.correlation), z);
      if (k + 1 == layers_.size()) {
        result = std::move(x.mine);
      } else {
        outputs.Put(k + 1, Pooled(planned, std::move(x)));
      }
    } else {
      result = std::move(z);
    }
    outputs.ForgetAfter(k);
    layer = {};
    ctx.Leave();
  }
  return result;
}

AnyMatrix SecureNetwork::RunForClients(Query query, AnyMatrix share) try {
  Context ctx(party_, Phase::kOnline, &DepthsOf(Phase::kOnline, query.batch));
  const AnyMatrix input = std::move(share);
  const AnyMatrix result = RunLayers(ctx, query, input);
  ctx.Enter(layers_.size() + 1, "output");
  auto output = output_.RunForClients(ctx, std::move(query.output), result);
  ctx.Leave();
  online_hops_ = ctx.Depth();
  return output;
} catch (const std::bad_alloc&) {
  ThrowOutOfMemory(Phase::kOnline);
}

std::vector<std::int64_t> SecureNetwork::Run(Query query,
                                             const std::vector<std::int64_t>* input) try {
  Context ctx(party_, Phase::kOnline, &DepthsOf(Phase::kOnline, query.batch));
  const std::size_t batch = query.batch;
  AnyMatrix secret;
  if (ctx.Is(plan_.roles.data_owner)) {
    TERCET_CHECK(input != nullptr, "the owner of the input, party {}, has none", ctx.Id());
    secret = Encode(*input, plan_.network.input.shape.Size(), batch, plan_.input_bits);
  }
  const AnyMatrix result = RunLayers(ctx, query, secret);
  ctx.Enter(layers_.size() + 1, "output");
  const auto values = output_.Run(ctx, std::move(query.output), result);
  ctx.Leave();
  online_hops_ = ctx.Depth();
  // Rows are classes; hand them out image after image. Of compared classes the winner has 0.
  const bool only_class = plan_.network.OnlyClass();
  std::vector<std::int64_t> logits(values.size());
  const std::size_t classes = plan_.network.Classes();
  for (std::size_t c = 0; c < classes && !values.empty(); ++c)
    for (std::size_t b = 0; b < batch; ++b) {
      const std::int64_t value = values[c * batch + b];
      logits[b * classes + c] = only_class ? 1 - value : value;
    }
  return logits;
} catch (const std::bad_alloc&) {
  ThrowOutOfMemory(Phase::kOnline);
}

}  // namespace tercet::infer
