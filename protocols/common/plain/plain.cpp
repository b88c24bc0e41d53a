// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include "tercet/mpc/registry.h"

namespace tercet::protocols::plain {

namespace {

using mpc::ActivationSpec;
using mpc::LinearShape;
using mpc::Shape3;

using Values = std::vector<std::int64_t>;

/// y[0..n) += w * x[0..n). Unsigned, so that sums wrap as the ring's do instead of being undefined.
void AddScaled(std::uint64_t* y, std::uint64_t w, const std::int64_t* x, std::size_t n) {
  for (std::size_t b = 0; b < n; ++b) y[b] += w * static_cast<std::uint64_t>(x[b]);
}

/// One output row (a channel at one position) for the whole batch.
class OutputRow {
 public:
  OutputRow(const LinearShape& shape, const Values& weight, const Values& x, std::size_t batch)
      : shape_(shape), weight_(weight), x_(x), batch_(batch) {}

  void Add(std::size_t channel, std::size_t row, std::size_t col, std::uint64_t* y) const {
    const std::size_t group_in = shape_.in.channels / shape_.groups;
    const std::size_t group_out = shape_.out_channels / shape_.groups;
    const std::size_t first_in = channel / group_out * group_in;
    const std::int64_t* w = weight_.data() + channel * shape_.Depth();
    for (std::size_t c = 0; c < group_in; ++c) {
      for (std::size_t ky = 0; ky < shape_.kernel_h; ++ky) {
        for (std::size_t kx = 0; kx < shape_.kernel_w; ++kx, ++w) {
          const std::size_t in_row = row * shape_.stride.h + ky;  // counted with the padding
          const std::size_t in_col = col * shape_.stride.w + kx;
          const std::size_t top = shape_.padding.top, left = shape_.padding.left;
          if (!Inside(in_row, top, shape_.in.height) || !Inside(in_col, left, shape_.in.width))
            continue;
          const std::size_t feature =
              ((first_in + c) * shape_.in.height + in_row - top) * shape_.in.width + in_col - left;
          AddScaled(y, static_cast<std::uint64_t>(*w), x_.data() + feature * batch_, batch_);
        }
      }
    }
  }

 private:
  static bool Inside(std::size_t padded, std::size_t before, std::size_t size) {
    return padded >= before && padded < before + size;
  }

  const LinearShape& shape_;
  const Values& weight_;
  const Values& x_;
  std::size_t batch_;
};

Values MaxPool(const ActivationSpec& spec, const Values& x) {
  const Shape3 in = spec.in;
  const Shape3 out = spec.Out();
  const mpc::PoolShape& pool = *spec.pool;
  Values values(out.Size() * spec.batch);
  std::int64_t* to = values.data();
  for (std::size_t c = 0; c < out.channels; ++c) {
    for (std::size_t row = 0; row < out.height; ++row) {
      for (std::size_t col = 0; col < out.width; ++col, to += spec.batch) {
        std::fill_n(to, spec.batch, std::numeric_limits<std::int64_t>::min());
        for (std::size_t ky = 0; ky < pool.kernel.h; ++ky) {
          for (std::size_t kx = 0; kx < pool.kernel.w; ++kx) {
            const std::size_t y = row * pool.stride.h + ky - pool.padding.top;
            const std::size_t z = col * pool.stride.w + kx - pool.padding.left;
            if (y >= in.height || z >= in.width) continue;  // also what is negative, which wraps
            std::transform(to, to + spec.batch,
                           x.data() + ((c * in.height + y) * in.width + z) * spec.batch, to,
                           [](std::int64_t p, std::int64_t q) { return std::max(p, q); });
          }
        }
      }
    }
  }
  return values;
}

class PlainOracle final : public mpc::Oracle {
 public:
  Values Linear(const LinearShape& shape, const Values& weight, const Values& bias, const Values& x,
                std::size_t batch) const override {
    TERCET_CHECK(shape.groups > 0 && shape.in.channels % shape.groups == 0 &&
                     shape.out_channels % shape.groups == 0,
                 "{} groups do not divide {} input and {} output channels", shape.groups,
                 shape.in.channels, shape.out_channels);
    TERCET_CHECK(weight.size() == shape.WeightCount(), "got {} weights, expected {}", weight.size(),
                 shape.WeightCount());
    TERCET_CHECK(bias.size() == shape.BiasCount(), "got {} biases, expected {}", bias.size(),
                 shape.BiasCount());
    TERCET_CHECK(x.size() == shape.in.Size() * batch, "got {} inputs, expected {} x {}", x.size(),
                 shape.in.Size(), batch);
    const Shape3 out = shape.Out();
    const OutputRow row_of(shape, weight, x, batch);
    Values z(out.Size() * batch);
    std::vector<std::uint64_t> y(batch);
    std::size_t feature = 0;
    for (std::size_t c = 0; c < out.channels; ++c) {
      for (std::size_t row = 0; row < out.height; ++row) {
        for (std::size_t col = 0; col < out.width; ++col, ++feature) {
          std::fill(y.begin(), y.end(),
                    static_cast<std::uint64_t>(bias[shape.bias_per_element ? feature : c]));
          row_of.Add(c, row, col, y.data());
          std::transform(y.begin(), y.end(),
                         z.begin() + static_cast<std::ptrdiff_t>(feature * batch),
                         [](std::uint64_t v) { return static_cast<std::int64_t>(v); });
        }
      }
    }
    return z;
  }

  Values Activate(const ActivationSpec& spec, const Values& z) const override {
    TERCET_CHECK(z.size() == spec.Elements(), "layer {}: got {} values, expected {}", spec.layer,
                 z.size(), spec.Elements());
    Values s = z;
    spec.Apply(s);
    return spec.pool ? MaxPool(spec, s) : s;
  }
};

}  // namespace

void Register(mpc::Registry& registry);
void Register(mpc::Registry& registry) { registry.SetOracle(std::make_unique<PlainOracle>()); }

}  // namespace tercet::protocols::plain
