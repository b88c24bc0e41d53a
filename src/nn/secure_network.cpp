#include "tercet/nn/secure_network.h"

namespace tercet::nn {
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

AnyShare ShareTensor(mpc::Party& party, Context& ctx, int owner, const std::string& purpose,
                     const std::vector<std::int64_t>* values, std::size_t rows, std::size_t cols,
                     unsigned bits) {
  mpc::Sharing sharing(party, owner, purpose);
  return ring::DispatchWord(bits, [&](auto word) {
    using W = decltype(word);
    AnyMatrix secret;
    if (values != nullptr) secret = Encode(*values, rows, cols, bits);
    auto share =
        sharing.Share<W>(ctx, values != nullptr ? &secret.As<W>() : nullptr, rows, cols, bits);
    return AnyShare{AnyMatrix(std::move(share.mine), bits), AnyMatrix(std::move(share.next), bits)};
  });
}

}  // namespace

SecureNetwork::SecureNetwork(mpc::Party& party, const Plan& plan, const mpc::Registry& registry)
    : party_(party),
      plan_(plan),
      make_linear_(registry.LinearMaker()),
      input_(party, plan.roles.helper, plan.roles.data_owner),
      output_(party, plan.roles.helper, plan.roles.receiver, plan.layers.back().activation.dealt) {
  for (const auto& planned : plan_.layers) {
    Layer layer;
    if (!planned.suite.name.empty())
      layer.activation = registry.FindSuite(planned.suite.name)
                             .Create(party, planned.activation, planned.suite, plan_.roles);
    layers_.push_back(std::move(layer));
  }
}

void SecureNetwork::ShareModel(const IntegerNetwork* owned) {
  const int owner = plan_.roles.model_owner;
  TERCET_CHECK((owned != nullptr) == (party_.Id() == owner),
               "the model's owner, and it alone, passes the weights");
  Context ctx(party_, Phase::kSetup);
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const auto& planned = plan_.layers[k];
    const auto& shape = planned.layer.linear;
    const unsigned bits = planned.activation.ring_bits;
    ctx.Enter(k + 1, planned.layer.name);
    const auto weight = ShareTensor(party_, ctx, owner, "model/" + planned.layer.name + "/weight",
                                    owned != nullptr ? &owned->weights[k].weight : nullptr,
                                    shape.out_channels, shape.Depth(), bits);
    const auto bias = ShareTensor(party_, ctx, owner, "model/" + planned.layer.name + "/bias",
                                  owned != nullptr ? &owned->weights[k].bias : nullptr,
                                  shape.BiasCount(), 1, bits);
    ctx.Leave();
    layers_[k].linear = make_linear_(shape, weight, bias);
  }
}

SecureNetwork::Query SecureNetwork::Prepare(std::size_t batch) {
  Context ctx(party_, Phase::kOffline);
  const bool helper = ctx.Is(plan_.roles.helper);
  Query query;
  query.batch = batch;
  ctx.Enter(0, "input");
  query.input = input_.Prepare(plan_.network.input.shape.Size(), batch,
                               plan_.layers.front().activation.ring_bits);
  ctx.Leave();
  query.layers.resize(layers_.size());
  const AnyShare* known = &query.input;
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    const auto& planned = plan_.layers[k];
    const auto& spec = planned.activation;
    auto& layer = query.layers[k];
    const bool last = !layers_[k].activation;
    ctx.Enter(k + 1, planned.layer.name);
    layer.known = mpc::KnownHalves(*known);
    layer.partial = layers_[k].linear->Prepare(batch, *known);
    const AnyMatrix* z = helper && spec.dealt ? &layer.partial : nullptr;
    if (!last) layer.prepared = layers_[k].activation->Prepare(ctx, batch, z);
    ctx.Leave();
    if (last) {
      ctx.Enter(k + 2, "output");
      query.output = output_.Prepare(ctx, z, spec.in.Size(), batch, spec.ring_bits);
      ctx.Leave();
    }
    // A helper whose part is dealt has nothing to do with it online.
    if (helper && spec.dealt && (last || planned.dealt_output)) layer.partial = AnyMatrix();
    known = &layer.prepared.known;
  }
  return query;
}

std::vector<std::int64_t> SecureNetwork::Run(Query query, const std::vector<std::int64_t>* input) {
  Context ctx(party_, Phase::kOnline);
  const std::size_t features = plan_.network.input.shape.Size(), batch = query.batch;
  const unsigned input_bits = plan_.layers.front().activation.ring_bits;
  ctx.Enter(0, "input");
  AnyMatrix secret;
  if (ctx.Is(plan_.roles.data_owner)) {
    TERCET_CHECK(input != nullptr, "the owner of the input, party {}, has none", ctx.Id());
    secret = Encode(*input, features, batch, input_bits);
  }
  AnyShare x = input_.Run(ctx, std::move(query.input), &secret, features, batch, input_bits);
  ctx.Leave();
  std::vector<std::int64_t> values;
  for (std::size_t k = 0; k < layers_.size(); ++k) {
    auto& layer = query.layers[k];
    ctx.Enter(k + 1, plan_.layers[k].layer.name);
    AnyMatrix z;
    if (!layer.partial.Empty())
      z = layers_[k].linear->Run(std::move(layer.partial), layer.known, x);
    if (layers_[k].activation) x = layers_[k].activation->Run(ctx, std::move(layer.prepared), z);
    ctx.Leave();
    if (!layers_[k].activation) {
      ctx.Enter(k + 2, "output");
      values = output_.Run(ctx, std::move(query.output), z);
      ctx.Leave();
    }
  }
  online_hops_ = ctx.Depth();
  // Rows are classes; hand them out image after image.
  std::vector<std::int64_t> logits(values.size());
  const std::size_t classes = plan_.network.Classes();
  for (std::size_t c = 0; c < classes && !values.empty(); ++c)
    for (std::size_t b = 0; b < batch; ++b) logits[b * classes + c] = values[c * batch + b];
  return logits;
}

}  // namespace tercet::nn
