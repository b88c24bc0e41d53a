// SPDX-License-Identifier: Apache-2.0
#include "train/norm_sign.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/bfloat16.h"

// One function for each level of vector instructions, chosen when the program starts.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define TERCET_VECTORISED \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TERCET_VECTORISED
#endif

namespace tercet::train {
namespace {

using torch::Tensor;

// Rows (a row holds the channels of one pixel) that are summed in float before double takes over.
constexpr std::int64_t kBlock = 2048;

using Half = std::uint16_t;  // a bfloat16
inline float Read(float x) { return x; }
inline float Read(Half x) { return FromBfloat16(x); }
inline void Write(float& to, float x) { to = x; }
inline void Write(Half& to, float x) { to = ToBfloat16(x); }

// What batch_norm does to a channel: x_hat = x rstd + offset, output = weight x_hat + bias
// = x slope + shift.
struct Channels {
  explicit Channels(std::size_t count) : rstd(count), offset(count), slope(count), shift(count) {}
  std::vector<float> rstd, offset, slope, shift;
};

// Per channel the sums of two quantities over the rows of x: of v = x - origin and v^2.
template <class T>
inline void SumInput(const T* x, std::int64_t rows, std::int64_t channels, const float* origin,
                     float* first, float* second) {
  for (std::int64_t r = 0; r < rows; ++r, x += channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float v = Read(x[c]) - origin[c];
      first[c] += v;
      second[c] += v * v;
    }
  }
}

inline float PassedGradient(float gradient, float output) {
  return gradient * std::max(0.0F, 2 - 2 * std::abs(output));
}

// Of the gradient g that reaches the output of batch_norm, and of g x_hat.
template <class T>
inline void SumGradient(const T* x, const T* gradient, std::int64_t rows, std::int64_t channels,
                        const Channels& at, float* first, float* second) {
  const float* rstd = at.rstd.data();
  const float* offset = at.offset.data();
  const float* slope = at.slope.data();
  const float* shift = at.shift.data();
  for (std::int64_t r = 0; r < rows; ++r, x += channels, gradient += channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float v = Read(x[c]);
      const float g = PassedGradient(Read(gradient[c]), v * slope[c] + shift[c]);
      first[c] += g;
      second[c] += g * (v * rstd[c] + offset[c]);
    }
  }
}

template <class T>
inline void WriteSigns(const T* x, T* y, std::int64_t rows, std::int64_t channels,
                       const Channels& at) {
  const float* slope = at.slope.data();
  const float* shift = at.shift.data();
  for (std::int64_t r = 0; r < rows; ++r, x += channels, y += channels) {
    for (std::int64_t c = 0; c < channels; ++c)
      Write(y[c], Read(x[c]) * slope[c] + shift[c] >= 0 ? 1.0F : -1.0F);
  }
}

// dx = slope (g - mean(g) - x_hat mean(g x_hat))
template <class T>
inline void WriteGradient(const T* x, const T* gradient, T* dx, std::int64_t rows,
                          std::int64_t channels, const Channels& at, const float* mean_g,
                          const float* mean_gx) {
  const float* rstd = at.rstd.data();
  const float* offset = at.offset.data();
  const float* slope = at.slope.data();
  const float* shift = at.shift.data();
  for (std::int64_t r = 0; r < rows; ++r, x += channels, gradient += channels, dx += channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float v = Read(x[c]);
      const float g = PassedGradient(Read(gradient[c]), v * slope[c] + shift[c]);
      Write(dx[c], slope[c] * (g - mean_g[c] - (v * rstd[c] + offset[c]) * mean_gx[c]));
    }
  }
}

// The row in a window that is largest is kept in a byte.
static_assert(kMaxNormSignPool * kMaxNormSignPool <= 256);

// Squares of `size` x `size` rows of x, side by side.
struct Windows {
  Windows(const Tensor& x, std::int64_t pool)
      : channels(x.size(1)),
        height(x.size(2)),
        width(x.size(3)),
        size(pool),
        down(height / pool),
        across(width / pool) {}
  // Where in x row j of a window is.
  std::int64_t Place(std::int64_t window, std::int64_t j) const {
    const std::int64_t line = window / across;  // of windows, in all images
    const std::int64_t y = (line % down) * size + j / size;
    return ((line / down * height + y) * width + (window % across) * size + j % size) * channels;
  }

  std::int64_t channels, height, width, size, down, across;
};

// Each channel takes over a row's value where the output of batch_norm is larger there.
template <class T>
inline void TakeLarger(const T* __restrict x, std::int64_t channels, const float* __restrict slope,
                       std::uint8_t index, T* __restrict largest, std::uint8_t* __restrict from) {
  for (std::int64_t c = 0; c < channels; ++c) {
    const bool larger = Read(x[c]) * slope[c] > Read(largest[c]) * slope[c];
    largest[c] = larger ? x[c] : largest[c];
    from[c] = larger ? index : from[c];
  }
}

// Of each window the x with the largest output of batch_norm (the first of equal ones), and in
// which row it is.
template <class T>
inline void FindLargest(const T* x, std::int64_t first, std::int64_t count, const Windows& windows,
                        const float* slope, T* largest, std::uint8_t* from) {
  const std::int64_t channels = windows.channels;
  for (std::int64_t i = first; i < first + count; ++i) {
    std::copy_n(x + windows.Place(i, 0), channels, largest + i * channels);
    std::fill_n(from + i * channels, channels, std::uint8_t{0});
    for (std::int64_t j = 1; j < windows.size * windows.size; ++j) {
      TakeLarger(x + windows.Place(i, j), channels, slope, static_cast<std::uint8_t>(j),
                 largest + i * channels, from + i * channels);
    }
  }
}

// WriteGradient for a row of a window, where g is 0 in the channels that are largest elsewhere.
template <class T>
inline void WriteRowGradient(const T* __restrict x, const T* __restrict largest,
                             const std::uint8_t* __restrict from, std::uint8_t index,
                             const T* __restrict gradient, std::int64_t channels,
                             const Channels& at, const float* mean_g, const float* mean_gx,
                             T* __restrict dx) {
  const float* rstd = at.rstd.data();
  const float* offset = at.offset.data();
  const float* slope = at.slope.data();
  const float* shift = at.shift.data();
  for (std::int64_t c = 0; c < channels; ++c) {
    const float passed = PassedGradient(Read(gradient[c]), Read(largest[c]) * slope[c] + shift[c]);
    const float g = from[c] == index ? passed : 0.0F;
    const float x_hat = Read(x[c]) * rstd[c] + offset[c];
    Write(dx[c], slope[c] * (g - mean_g[c] - x_hat * mean_gx[c]));
  }
}

template <class T>
inline void WritePooledGradient(const T* x, const T* largest, const std::uint8_t* from,
                                const T* gradient, T* dx, std::int64_t first, std::int64_t count,
                                const Windows& windows, const Channels& at, const float* mean_g,
                                const float* mean_gx) {
  const std::int64_t channels = windows.channels;
  for (std::int64_t i = first; i < first + count; ++i) {
    for (std::int64_t j = 0; j < windows.size * windows.size; ++j) {
      const std::int64_t place = windows.Place(i, j);
      WriteRowGradient(x + place, largest + i * channels, from + i * channels,
                       static_cast<std::uint8_t>(j), gradient + i * channels, channels, at, mean_g,
                       mean_gx, dx + place);
    }
  }
}

// clang-format off
TERCET_VECTORISED void Sum(const float* x, std::int64_t n, std::int64_t c, const float* o, float* s, float* t) { SumInput(x, n, c, o, s, t); }
TERCET_VECTORISED void Sum(const Half* x, std::int64_t n, std::int64_t c, const float* o, float* s, float* t) { SumInput(x, n, c, o, s, t); }
TERCET_VECTORISED void Sum(const float* x, const float* g, std::int64_t n, std::int64_t c, const Channels& at, float* s, float* t) { SumGradient(x, g, n, c, at, s, t); }
TERCET_VECTORISED void Sum(const Half* x, const Half* g, std::int64_t n, std::int64_t c, const Channels& at, float* s, float* t) { SumGradient(x, g, n, c, at, s, t); }
TERCET_VECTORISED void Signs(const float* x, float* y, std::int64_t n, std::int64_t c, const Channels& at) { WriteSigns(x, y, n, c, at); }
TERCET_VECTORISED void Signs(const Half* x, Half* y, std::int64_t n, std::int64_t c, const Channels& at) { WriteSigns(x, y, n, c, at); }
TERCET_VECTORISED void Gradient(const float* x, const float* g, float* dx, std::int64_t n, std::int64_t c, const Channels& at, const float* m, const float* mx) { WriteGradient(x, g, dx, n, c, at, m, mx); }
TERCET_VECTORISED void Gradient(const Half* x, const Half* g, Half* dx, std::int64_t n, std::int64_t c, const Channels& at, const float* m, const float* mx) { WriteGradient(x, g, dx, n, c, at, m, mx); }
TERCET_VECTORISED void Select(const float* x, std::int64_t i, std::int64_t n, const Windows& w, const float* s, float* l, std::uint8_t* f) { FindLargest(x, i, n, w, s, l, f); }
TERCET_VECTORISED void Select(const Half* x, std::int64_t i, std::int64_t n, const Windows& w, const float* s, Half* l, std::uint8_t* f) { FindLargest(x, i, n, w, s, l, f); }
TERCET_VECTORISED void PooledGradient(const float* x, const float* l, const std::uint8_t* f, const float* g, float* dx, std::int64_t i, std::int64_t n, const Windows& w, const Channels& at, const float* m, const float* mx) { WritePooledGradient(x, l, f, g, dx, i, n, w, at, m, mx); }
TERCET_VECTORISED void PooledGradient(const Half* x, const Half* l, const std::uint8_t* f, const Half* g, Half* dx, std::int64_t i, std::int64_t n, const Windows& w, const Channels& at, const float* m, const float* mx) { WritePooledGradient(x, l, f, g, dx, i, n, w, at, m, mx); }
// clang-format on

// body(block, first row, rows) for all blocks, on libtorch's threads.
template <class Body>
void ForBlocks(std::int64_t rows, const Body& body) {
  at::parallel_for(0, (rows + kBlock - 1) / kBlock, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b)
      body(b, b * kBlock, std::min(kBlock, rows - b * kBlock));
  });
}

// The two sums of each channel over all rows, where sum(first row, rows, out1, out2) adds a
// block's.
template <class Sums>
std::pair<std::vector<double>, std::vector<double>> SumRows(std::int64_t rows,
                                                            std::int64_t channels,
                                                            const Sums& sums) {
  const std::int64_t blocks = (rows + kBlock - 1) / kBlock;
  std::vector<float> partial(static_cast<std::size_t>(2 * blocks * channels), 0.0F);
  ForBlocks(rows, [&](std::int64_t block, std::int64_t first, std::int64_t count) {
    float* out = partial.data() + 2 * block * channels;
    sums(first, count, out, out + channels);
  });
  const auto size = static_cast<std::size_t>(channels);
  std::pair<std::vector<double>, std::vector<double>> total{std::vector<double>(size),
                                                            std::vector<double>(size)};
  for (std::size_t at = 0; at < partial.size();) {
    for (std::size_t c = 0; c < size; ++c) total.first[c] += partial[at++];
    for (std::size_t c = 0; c < size; ++c) total.second[c] += partial[at++];
  }
  return total;
}

// Runs body(zero), a zero of the type that the kernels have for the tensor's elements.
template <class Body>
void WithType(const Tensor& x, const Body& body) {
  if (x.scalar_type() == torch::kBFloat16) {
    body(Half{});
  } else {
    TORCH_CHECK(x.scalar_type() == torch::kFloat32, "NormSign takes float32 or bfloat16");
    body(0.0F);
  }
}

template <class T>
T* Data(const Tensor& x) {
  return static_cast<T*>(x.data_ptr());
}

Channels ChannelsOf(const Tensor& mean, const Tensor& rstd, const Tensor& weight,
                    const Tensor& bias) {
  const auto count = static_cast<std::size_t>(mean.numel());
  Channels at(count);
  const float* m = mean.data_ptr<float>();
  const float* r = rstd.data_ptr<float>();
  const float* w = weight.data_ptr<float>();
  const float* b = bias.data_ptr<float>();
  for (std::size_t c = 0; c < count; ++c) {
    at.rstd[c] = r[c];
    at.offset[c] = -m[c] * r[c];
    at.slope[c] = w[c] * r[c];
    at.shift[c] = b[c] - m[c] * at.slope[c];
  }
  return at;
}

// x of the shape that it has behind the pool.
Tensor EmptyPooled(const Tensor& x, const Windows& windows, torch::ScalarType type) {
  return torch::empty({x.size(0), windows.channels, windows.down, windows.across},
                      x.options().dtype(type), at::MemoryFormat::ChannelsLast);
}

class NormSignFunction : public torch::autograd::Function<NormSignFunction> {
 public:
  // NOLINTNEXTLINE(readability-identifier-naming): libtorch calls it by this name
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& input,
                        const Tensor& weight, const Tensor& bias, Tensor running_mean,
                        Tensor running_var, double momentum, double eps, std::int64_t pool) {
    const Tensor x = input.contiguous(at::MemoryFormat::ChannelsLast);
    const Windows windows(x, pool);
    const std::int64_t channels = windows.channels;
    const std::int64_t rows = x.numel() / channels;
    Tensor mean = torch::empty({channels});
    Tensor rstd = torch::empty({channels});
    Tensor y = EmptyPooled(x, windows, x.scalar_type());
    Tensor largest = x;
    Tensor from;
    WithType(x, [&]<class T>(T) {
      const T* data = Data<T>(x);
      const float* origin = running_mean.data_ptr<float>();  // near the mean: little cancels
      const auto [first, second] =
          SumRows(rows, channels, [&](std::int64_t row, std::int64_t count, float* s, float* t) {
            Sum(data + row * channels, count, channels, origin, s, t);
          });
      for (std::int64_t c = 0; c < channels; ++c) {
        const auto n = static_cast<double>(rows);
        const double offset = first[static_cast<std::size_t>(c)] / n;
        const double variance =
            std::max(0.0, second[static_cast<std::size_t>(c)] / n - offset * offset);
        const double centre = origin[c] + offset;
        mean.data_ptr<float>()[c] = static_cast<float>(centre);
        rstd.data_ptr<float>()[c] = static_cast<float>(1 / std::sqrt(variance + eps));
        float& old_mean = running_mean.data_ptr<float>()[c];
        float& old_var = running_var.data_ptr<float>()[c];
        old_mean += static_cast<float>(momentum * (centre - old_mean));
        old_var += static_cast<float>(momentum * (variance * n / std::max(1.0, n - 1) - old_var));
      }
      const Channels at = ChannelsOf(mean, rstd, weight, bias);
      if (pool > 1) {
        largest = torch::empty_like(y);
        from = EmptyPooled(x, windows, torch::kUInt8);
      }
      ForBlocks(y.numel() / channels, [&](std::int64_t, std::int64_t row, std::int64_t count) {
        if (pool > 1) {
          Select(data, row, count, windows, at.slope.data(), Data<T>(largest),
                 from.data_ptr<std::uint8_t>());
        }
        Signs(Data<T>(largest) + row * channels, Data<T>(y) + row * channels, count, channels, at);
      });
    });
    context->save_for_backward({x, weight, bias, mean, rstd, largest, from});
    context->saved_data["pool"] = pool;
    return y;
  }

  // NOLINTNEXTLINE(readability-identifier-naming): libtorch calls it by this name
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    const auto saved = context->get_saved_variables();
    const Tensor& x = saved[0];
    const Tensor& largest = saved[5];
    const Tensor gradient =
        gradients[0].to(x.scalar_type()).contiguous(at::MemoryFormat::ChannelsLast);
    const Windows windows(x, context->saved_data["pool"].toInt());
    const std::int64_t channels = windows.channels;
    const auto rows = static_cast<double>(x.numel() / channels);
    const std::int64_t outputs = gradient.numel() / channels;
    const Channels at = ChannelsOf(saved[3], saved[4], saved[1], saved[2]);
    Tensor dx = torch::empty_like(x);
    Tensor dweight = torch::empty({channels});
    Tensor dbias = torch::empty({channels});
    WithType(x, [&]<class T>(T) {
      const T* data = Data<T>(largest);
      const T* g = Data<T>(gradient);
      const auto [sum_g, sum_gx] =
          SumRows(outputs, channels, [&](std::int64_t row, std::int64_t count, float* s, float* t) {
            Sum(data + row * channels, g + row * channels, count, channels, at, s, t);
          });
      std::vector<float> mean_g(sum_g.size());
      std::vector<float> mean_gx(sum_g.size());
      for (std::size_t c = 0; c < sum_g.size(); ++c) {
        dbias.data_ptr<float>()[c] = static_cast<float>(sum_g[c]);
        dweight.data_ptr<float>()[c] = static_cast<float>(sum_gx[c]);
        mean_g[c] = static_cast<float>(sum_g[c] / rows);
        mean_gx[c] = static_cast<float>(sum_gx[c] / rows);
      }
      ForBlocks(outputs, [&](std::int64_t, std::int64_t row, std::int64_t count) {
        if (windows.size > 1) {
          PooledGradient(Data<T>(x), data, saved[6].data_ptr<std::uint8_t>(), g, Data<T>(dx), row,
                         count, windows, at, mean_g.data(), mean_gx.data());
        } else {
          Gradient(data + row * channels, g + row * channels, Data<T>(dx) + row * channels, count,
                   channels, at, mean_g.data(), mean_gx.data());
        }
      });
    });
    return {dx, dweight, dbias, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor SignSlope(const Tensor& x) { return x.abs().neg_().add_(1).clamp_min_(0).mul_(2); }

Tensor NormSign(const Tensor& x, const Tensor& weight, const Tensor& bias,
                const Tensor& running_mean, const Tensor& running_var, double momentum, double eps,
                std::int64_t pool) {
  TORCH_CHECK(
      pool >= 1 && pool <= kMaxNormSignPool && x.size(2) % pool == 0 && x.size(3) % pool == 0,
      "NormSign pools whole windows of limited size");
  return NormSignFunction::apply(x, weight, bias, running_mean, running_var, momentum, eps, pool);
}

}  // namespace tercet::train
