// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <utility>
#include <vector>

#include "tercet/mpc/registry.h"
#include "tercet/ring/kernels.h"

// replicated:
//   z_i = (W_i + W_{i+1}) x_i + W_i x_{i+1} + b_i,   z_0 + z_1 + z_2 = W x + b        [CBNN,
//   Algorithm 2; Araki et al., Sec. 2.1]
// Two local products instead of the three of the paper: W_i + W_{i+1} is formed once, when the
// model is loaded.
//
// clear, with D the helper (party d) and M, an evaluator, the model's owner; N the other evaluator,
// x_N and x_M the halves that N and M have in common with D, W' = W_{d+2}, which D lacks:
//   z_D = (W - W') (x_N + x_M) + b_d,   z_N = W' x_N + b_N,   z_M = W x_{d+2} + W' x_M + b_M
// of which only W x_{d+2} depends on what comes online.
//
// public: the same with W' = b_N = b_M = 0. Where the result is opened, z_N is what z_M is.
namespace tercet::protocols::linear {
namespace {

using mpc::AnyMatrix;
using mpc::AnyShare;
using mpc::LinearShape;
using ring::Matrix;

// x with `padding` zero pixels around each channel, so that every window lies inside.
template <ring::Word W>
Matrix<W> Pad(const LinearShape& shape, const Matrix<W>& x, std::size_t batch) {
  const mpc::Sides& p = shape.padding;
  const std::size_t height = shape.in.height + p.Rows(), width = shape.in.width + p.Columns();
  auto padded = ring::MakeMatrix<W>(shape.in.channels * height * width, batch);
  std::fill_n(padded.data(), padded.size(), W{0});
  const std::size_t run = shape.in.width * batch;
  for (std::size_t c = 0; c < shape.in.channels; ++c)
    for (std::size_t row = 0; row < shape.in.height; ++row)
      std::copy_n(x.data() + (c * shape.in.height + row) * run, run,
                  padded.data() + ((c * height + row + p.top) * width + p.left) * batch);
  return padded;
}

// z += W x. The batch runs innermost, so a window's values for one row of outputs are contiguous
// where the stride is 1, and the kernel sees long columns.
template <ring::Word W>
void AddProduct(const LinearShape& shape, const Matrix<W>& weight, const Matrix<W>& unpadded,
                std::size_t batch, Matrix<W>& z) {
  const auto product = ring::ProductOf<W>(ring::ActiveKernels());
  const bool pads = !shape.padding.None();
  const Matrix<W> padded = pads ? Pad(shape, unpadded, batch) : Matrix<W>{};
  const W* x = pads ? padded.data() : unpadded.data();
  const std::size_t height = shape.in.height + shape.padding.Rows(),
                    width = shape.in.width + shape.padding.Columns();
  const auto out = shape.Out();
  const std::size_t depth = shape.Depth(), in_group = shape.in.channels / shape.groups;
  const std::size_t out_group = shape.out_channels / shape.groups;
  const bool whole_rows = shape.stride.w == 1;
  const std::size_t cols = whole_rows ? out.width * batch : batch;
  std::vector<const W*> rows(depth);
  std::vector<W*> outputs(out_group);
  for (std::size_t g = 0; g < shape.groups; ++g)
    for (std::size_t oy = 0; oy < out.height; ++oy)
      for (std::size_t ox = 0; ox < (whole_rows ? 1 : out.width); ++ox) {
        std::size_t k = 0;
        for (std::size_t c = g * in_group; c < (g + 1) * in_group; ++c)
          for (std::size_t ky = 0; ky < shape.kernel_h; ++ky)
            for (std::size_t kx = 0; kx < shape.kernel_w; ++kx)
              rows[k++] =
                  x + ((c * height + oy * shape.stride.h + ky) * width + ox * shape.stride.w + kx) *
                          batch;
        for (std::size_t m = 0; m < out_group; ++m)
          outputs[m] =
              z.data() + (((g * out_group + m) * out.height + oy) * out.width + ox) * batch;
        product(outputs.data(), out_group, cols, weight.data() + g * out_group * depth, rows.data(),
                depth);
      }
}

template <ring::Word W>
class LinearLayer final : public mpc::Linear {
 public:
  using Factor = std::shared_ptr<const Matrix<W>>;  // null for 0

  LinearLayer(const LinearShape& shape, Factor of_mine, Factor of_next, const AnyShare& bias)
      : shape_(shape),
        bits_(bias.mine.Bits()),
        of_mine_(std::move(of_mine)),
        of_next_(std::move(of_next)),
        bias_(bias.mine.As<W>()) {
    for (const Factor& factor : {of_mine_, of_next_})
      TERCET_CHECK(!factor || factor->size() == shape.WeightCount(), "{} weights for a shape of {}",
                   factor->size(), shape.WeightCount());
    TERCET_CHECK(bias_.size() == shape.BiasCount(), "{} biases for a shape of {}", bias_.size(),
                 shape.BiasCount());
  }

  AnyMatrix Prepare(mpc::Context& /*ctx*/, std::size_t batch, const AnyShare& known) override {
    auto z = ring::MakeMatrix<W>(shape_.Out().Size(), batch);
    const std::size_t run =
        shape_.bias_per_element ? batch : shape_.Out().height * shape_.Out().width * batch;
    for (std::size_t j = 0; j < bias_.size(); ++j)
      std::fill_n(z.data() + j * run, run, bias_.data()[j]);
    Add(known, !known.mine.Empty(), !known.next.Empty(), batch, z);
    return {std::move(z), bits_};
  }

  AnyMatrix Run(mpc::Context& /*ctx*/, AnyMatrix partial, mpc::KnownHalves known,
                const AnyShare& x) override {
    Add(x, !known.mine, !known.next, partial.Cols(), partial.As<W>());
    return partial;
  }

 private:
  // z += the products of those halves of x; one where both have one factor.
  void Add(const AnyShare& x, bool mine, bool next, std::size_t batch, Matrix<W>& z) const {
    if (mine && next && of_mine_ && of_mine_ == of_next_ && !x.mine.IsZero() && !x.next.IsZero()) {
      const Matrix<W> sum = x.mine.As<W>() + x.next.As<W>();
      return AddHalf(of_mine_, AnyMatrix(sum, x.mine.Bits()), batch, z);
    }
    if (mine) AddHalf(of_mine_, x.mine, batch, z);
    if (next) AddHalf(of_next_, x.next, batch, z);
  }
  void AddHalf(const Factor& factor, const AnyMatrix& x, std::size_t batch, Matrix<W>& z) const {
    if (!factor || x.IsZero()) return;
    const auto& values = x.As<W>();
    TERCET_CHECK(x.Rows() == shape_.in.Size() && x.Cols() == batch,
                 "activations of {} x {} for an input of {} x {}", x.Rows(), x.Cols(),
                 shape_.in.Size(), batch);
    AddProduct(shape_, *factor, values, batch, z);
  }

  LinearShape shape_;
  unsigned bits_;
  Factor of_mine_, of_next_;  // what x_i and x_{i+1} are multiplied by
  Matrix<W> bias_;            // b_i
};

template <ring::Word W>
auto Shared(Matrix<W> factor) {
  return std::make_shared<const Matrix<W>>(std::move(factor));
}

mpc::LinearPlan PlanReplicated(const mpc::LinearSpec& spec, const mpc::Roles& /*roles*/) {
  return {{},
          [shape = spec.shape](mpc::Party&, const AnyShare& weight, const AnyShare& bias,
                               const AnyMatrix& /*clear*/) {
            return ring::DispatchWord(
                weight.mine.Bits(), [&]<ring::Word W>(W) -> std::unique_ptr<mpc::Linear> {
                  const auto &mine = weight.mine.As<W>(), &next = weight.next.As<W>();
                  return std::make_unique<LinearLayer<W>>(shape, Shared<W>(mine + next),
                                                          Shared<W>(mine), bias);
                });
          }};
}

// Where the helper, who knows both halves of x that it has offline, multiplies both by `known`, and
// an evaluator what it has in common with the helper by `known` and what the helper lacks by
// `third`.
template <ring::Word W>
std::unique_ptr<mpc::Linear> MakeDealt(const LinearShape& shape, PartyId party,
                                       const mpc::Roles& roles,
                                       typename LinearLayer<W>::Factor known,
                                       typename LinearLayer<W>::Factor third,
                                       const AnyShare& bias) {
  if (party == roles.helper) return std::make_unique<LinearLayer<W>>(shape, known, known, bias);
  if (party == roles.Evaluator1())  // x_{d+1}, x_{d+2}
    return std::make_unique<LinearLayer<W>>(shape, std::move(known), std::move(third), bias);
  return std::make_unique<LinearLayer<W>>(shape, std::move(third), std::move(known), bias);
}

mpc::LinearPlan PlanClear(const mpc::LinearSpec& spec, const mpc::Roles& roles) {
  const auto owner = roles.ModelEvaluator();
  if (!owner)
    throw UnsupportedError(fmt::format(
        "layer {}: linear layers {} need a model whose owner is an evaluator, who multiplies its "
        "weights in the clear; {}",
        spec.layer, mpc::kClearLinear,
        roles.AreForClients() ? "here the model comes from outside, as shares"
                              : fmt::format("party {}, its owner, is the helper", roles.helper)));
  return {{},
          [=, shape = spec.shape](mpc::Party& party, const AnyShare& weight, const AnyShare& bias,
                                  const AnyMatrix& clear) {
            return ring::DispatchWord(weight.mine.Bits(), [&]<ring::Word W>(W) {
              const auto &mine = weight.mine.As<W>(), &next = weight.next.As<W>();
              const PartyId id = party.Id();
              // At an evaluator W_{d+2}, which the helper lacks.
              const auto known = id == roles.helper         ? Shared<W>(mine + next)
                                 : id == roles.Evaluator1() ? Shared<W>(next)
                                                            : Shared<W>(mine);
              return MakeDealt<W>(shape, id, roles, known,
                                  id == *owner ? Shared<W>(clear.As<W>()) : nullptr, bias);
            });
          },
          owner};
}

mpc::LinearPlan PlanPublic(const mpc::LinearSpec& spec, const mpc::Roles& roles) {
  if (roles.AreForClients())
    throw UnsupportedError(
        fmt::format("layer {}: public weights need a model that one of the parties owns; here it "
                    "comes from outside, as shares",
                    spec.layer));
  // What is not opened is multiplied by the receiver, to whom the result then goes offline.
  const PartyId alone =
      roles.receiver == roles.helper ? roles.Evaluator1() : PartyId{roles.receiver};
  mpc::LinearPlan plan;
  plan.make = [=, shape = spec.shape, opened = spec.opened](
                  mpc::Party& party, const AnyShare& /*weight*/, const AnyShare& bias,
                  const AnyMatrix& clear) {
    return ring::DispatchWord(clear.Bits(), [&]<ring::Word W>(W) {
      const PartyId id = party.Id();
      if (id == roles.helper)
        return MakeDealt<W>(shape, id, roles, Shared<W>(clear.As<W>()), nullptr, bias);
      const Matrix<W> zero = xt::zeros<W>({shape.BiasCount(), std::size_t{1}});
      return MakeDealt<W>(shape, id, roles, nullptr,
                          opened || id == alone ? Shared<W>(clear.As<W>()) : nullptr,
                          {AnyMatrix(zero, clear.Bits()), {}});
    });
  };
  if (!spec.opened) plan.multiplier = alone;
  return plan;
}

}  // namespace

void Register(mpc::Registry& registry) {
  registry.AddLinear({.name = mpc::kReplicatedLinear,
                      .summary = "local products of replicated shares (Araki et al., CCS 2016)",
                      .plan = PlanReplicated});
  registry.AddLinear({.name = mpc::kClearLinear,
                      .summary = "the model's owner, an evaluator, multiplies in the clear",
                      .plan = PlanClear});
  registry.AddLinear({.name = mpc::kPublicLinear,
                      .summary = "all parties know the weights and multiply by themselves",
                      .public_weights = true,
                      .plan = PlanPublic});
}

}  // namespace tercet::protocols::linear
