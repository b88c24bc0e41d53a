// SPDX-License-Identifier: Apache-2.0
#include "train/model.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "nn/activation_type.h"
#include "tercet/base/error.h"
#include "train/norm_sign.h"

namespace tercet::train {
namespace {

using nn::LayerSpec;
using nn::LayerType;
using torch::Tensor;

// Forward: +1 where x >= 0, else -1. Backward: SignSlope.
class SignFunction : public torch::autograd::Function<SignFunction> {
 public:
  // NOLINTNEXTLINE(readability-identifier-naming): libtorch calls it by this name
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x) {
    context->save_for_backward({x});
    return x.ge(0).to(x.scalar_type()).mul_(2).sub_(1);
  }
  // NOLINTNEXTLINE(readability-identifier-naming): libtorch calls it by this name
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    const Tensor x = context->get_saved_variables()[0];
    return {SignSlope(x).mul_(gradients[0])};
  }
};

// Rounding may lengthen sums; a scale that proves too large shrinks so much at a time, so often at
// most.
constexpr double kShrink = 0.97;
constexpr int kShrinkSteps = 12;
// In training, a scale stays while it fits and is at least this part of the largest that would.
constexpr double kKeepScale = 0.85;

std::int64_t Int(std::size_t n) { return static_cast<std::int64_t>(n); }

std::vector<std::size_t> Sizes(const Tensor& t) { return {t.sizes().begin(), t.sizes().end()}; }

std::vector<std::int64_t> Both(const mpc::PerAxis& axes) { return {Int(axes.h), Int(axes.w)}; }

// In the type and the order in memory of x.
Tensor Convolve(const Tensor& x, const Tensor& weight, const Tensor& bias,
                const nn::LayerSpec& layer, std::size_t groups) {
  const torch::ScalarType type = x.scalar_type();
  const mpc::Sides& sides = layer.padding;
  const bool with_number = nn::PadsWithNumber(layer);
  const Tensor padded =
      with_number ? torch::constant_pad_nd(
                        x, {Int(sides.left), Int(sides.right), Int(sides.top), Int(sides.bottom)},
                        layer.pad_value)
                  : x;
  const auto zeros = [&](std::size_t count) { return with_number ? 0 : Int(count); };
  return torch::conv2d(
      padded,
      weight.to(type, /*non_blocking=*/false, /*copy=*/false, at::MemoryFormat::ChannelsLast),
      bias.defined() ? bias.to(type) : bias, Both(layer.stride),
      {zeros(sides.top), zeros(sides.left)}, Both(layer.dilation), Int(groups));
}

// The order to compute in. Max-pool and a monotone activation commute; with the pool first, the
// gradient reaches the largest input of a window instead of the first of many equal outputs.
std::vector<nn::LayerSpec> ComputationOrder(const nn::NetworkSpec& spec,
                                            const std::set<std::string>& referenced) {
  std::vector<nn::LayerSpec> layers = spec.layers;
  for (std::size_t i = 0; i + 1 < layers.size(); ++i) {
    const nn::ActivationType* activation = nn::FindActivation(layers[i].type);
    if (activation != nullptr && activation->Function().Monotone() &&
        layers[i + 1].type == LayerType::kMaxPool2d && layers[i].from.empty() &&
        layers[i + 1].from.empty() && !referenced.contains(layers[i].name) &&
        !referenced.contains(layers[i + 1].name)) {
      std::swap(layers[i], layers[i + 1]);
      ++i;
    }
  }
  return layers;
}

void CheckBinary(const nn::NetworkSpec& spec, const std::set<std::string>& binary) {
  for (const std::string& name : binary) {
    const bool has_weights =
        std::any_of(spec.layers.begin(), spec.layers.end(), [&name](const LayerSpec& layer) {
          return layer.name == name &&
                 (layer.type == LayerType::kConv2d || layer.type == LayerType::kLinear);
        });
    if (!has_weights) {
      throw ConfigError(
          "--binary-weights",
          fmt::format("expected conv2d or linear layers of {}, got '{}'", spec.name, name));
    }
  }
}

}  // namespace

Model::Model(const nn::NetworkSpec& spec, unsigned width_bits, const std::set<std::string>& binary)
    : width_bits_(width_bits) {
  CheckBinary(spec, binary);
  std::set<std::string> referenced;
  for (const nn::LayerSpec& layer : spec.layers) {
    if (!layer.from.empty()) referenced.insert(layer.from);
  }
  for (const nn::LayerSpec& layer : ComputationOrder(spec, referenced)) {
    if (layer.padding.top != layer.padding.bottom || layer.padding.left != layer.padding.right)
      throw UnsupportedError("layer " + layer.name +
                             ": training pads two sides alike, found a "
                             "padding that differs");
    Step step;
    step.layer = layer;
    step.referenced = referenced.contains(layer.name);
    step.binary = binary.contains(layer.name);
    switch (layer.type) {
      case LayerType::kConv2d:
      case LayerType::kLinear: {
        const bool conv = layer.type == LayerType::kConv2d;
        const std::int64_t depth =
            conv ? Int(layer.in.channels / layer.groups) : Int(layer.in.Size());
        const std::int64_t height = conv ? Int(layer.kernel.h) : 1;
        const std::int64_t width = conv ? Int(layer.kernel.w) : 1;
        const double range = 1 / std::sqrt(static_cast<double>(depth * height * width));
        step.weight = torch::empty({Int(layer.out_channels), depth, height, width})
                          .uniform_(-range, range)
                          .requires_grad_();
        if (layer.bias) step.bias = torch::zeros({Int(layer.out_channels)}).requires_grad_();
        break;
      }
      case LayerType::kBatchNorm: {
        const std::int64_t channels = Int(layer.in.channels);
        step.weight = torch::ones({channels}).requires_grad_();
        step.bias = torch::zeros({channels}).requires_grad_();
        step.running_mean = torch::zeros({channels});
        step.running_var = torch::ones({channels});
        // The mean is subtracted again: a bias right before would see only rounding noise as
        // gradient.
        if (!steps_.empty() && layer.from.empty() && !steps_.back().referenced &&
            steps_.back().bias.defined() && steps_.back().layer.type != LayerType::kBatchNorm) {
          steps_.back().bias.set_requires_grad(false);
        }
        break;
      }
      default:
        break;
    }
    steps_.push_back(std::move(step));
  }
  for (std::size_t i = 0; i < steps_.size(); ++i)
    if (IsSeparable(i)) steps_[i + 1].depthwise = i;
  if (width_bits_ != 0) FindRounded(spec.input);
}

// Marks conv2d and linear layers whose inputs are on a grid and that lead through a batch_norm to a
// sign.
void Model::FindRounded(const nn::InputSpec& input) {
  const double top = std::exp2(input.bits) - 1;
  std::optional<Grid> grid =
      Grid{255 / top / input.scale / input.std, -input.mean / input.std, top};
  const auto type = [this](std::size_t i) { return steps_[i].layer.type; };
  // Of a chain that later layers enter or leave elsewhere, nothing is known.
  const auto chained = [this](std::size_t i) {
    return i < steps_.size() && steps_[i].layer.from.empty() && !steps_[i - 1].referenced;
  };
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    if (!steps_[i].layer.from.empty()) grid.reset();
    switch (type(i)) {
      case LayerType::kSign:
        grid = Grid{2, -1, 1};
        break;
      case LayerType::kMaxPool2d:
      case LayerType::kFlatten:
        break;
      case LayerType::kConv2d:
      case LayerType::kLinear: {
        if (IsSeparable(i)) ++i;
        if (!chained(i + 1) || type(i + 1) != LayerType::kBatchNorm) {
          grid.reset();
          break;
        }
        std::size_t next = i + 2;
        while (chained(next) &&
               (type(next) == LayerType::kMaxPool2d || type(next) == LayerType::kFlatten)) {
          ++next;
        }
        // Sums of -1 and +1 times integers are as narrow as they are.
        if (chained(next) && type(next) == LayerType::kSign && !steps_[i].binary) {
          steps_[i].rounded_for = grid;
          steps_[i].norm = i + 1;
        }
        grid.reset();
        break;
      }
      default:
        grid.reset();
    }
  }
}

Tensor Model::RoundingScale(const Step& step, double extra_bits) const {
  if (!step.rounded_for) return {};
  const Grid& grid = *step.rounded_for;
  const Tensor weight = WholeWeight(step).detach();
  const Step& norm = steps_[step.norm];
  const Tensor deviation = torch::sqrt(norm.running_var + norm.layer.eps);
  Tensor threshold = norm.running_mean - norm.bias.detach() * deviation / norm.weight.detach();
  if (step.bias.defined()) threshold -= step.bias.detach();
  // Channel by channel, the sign is that of w q + bias over integers 0 <= q <= top, in any unit of
  // w;
  // +-1 is such a grid too. The largest |w q + bias|, with a bias that outweighs every input cut to
  // the least that does:
  const auto largest = [&grid](const Tensor& w, const Tensor& at) {
    const Tensor low = w.clamp_max(0).sum({1, 2, 3}) * grid.top;
    const Tensor high = w.clamp_min(0).sum({1, 2, 3}) * grid.top;
    const Tensor exact = (w.sum({1, 2, 3}) * grid.low - at) / grid.unit;
    const Tensor bias = torch::minimum(torch::maximum(exact, -high), -low);
    return torch::maximum(high + bias, -(low + bias)).clamp_min(1e-20);
  };
  const double room = std::exp2(width_bits_ + extra_bits - 1) - 1;
  const auto too_large = [&](const Tensor& scale) {
    return largest(weight.mul(scale.view({-1, 1, 1, 1})).round_(), threshold * scale).gt(room);
  };
  Tensor scale = room / largest(weight, threshold);
  if (step.scale.defined()) {
    // Each change of scale rounds all weights of a channel anew, which disturbs the layers above.
    const Tensor keep = (step.scale >= scale * kKeepScale) & ~too_large(step.scale);
    scale = torch::where(keep, step.scale, scale);
  }
  for (int i = 0; i < kShrinkSteps; ++i) {
    const Tensor excess = too_large(scale);
    if (!excess.any().item<bool>()) break;
    scale = torch::where(excess, scale * kShrink, scale);
  }
  return scale;
}

Tensor Model::OwnWeight(const Step& step) {
  if (!step.binary) return step.weight;
  // The gradient passes where the weight is within -1 and +1 (Courbariaux et al., "Binarized neural
  // networks", 2016), so that none grows until it cannot turn any more.
  const Tensor clipped = step.weight.clamp(-1, 1);
  return clipped + (step.weight.detach().ge(0).to(torch::kFloat32) * 2 - 1 - clipped.detach());
}

Tensor Model::WholeWeight(const Step& step) const {
  return step.depthwise ? OwnWeight(step) * OwnWeight(steps_[*step.depthwise]).transpose(0, 1)
                        : OwnWeight(step);
}

Tensor Model::UsedWeight(const Step& step, const Tensor& scale) const {
  const Tensor whole = WholeWeight(step);
  if (!step.rounded_for) return whole;
  const Tensor weight = whole.detach();
  const Tensor factors = scale.view({-1, 1, 1, 1});
  // The gradient passes the rounding unchanged.
  return whole + (weight.mul(factors).round_().div_(factors) - weight);
}

Tensor Model::WeightFor(Step& step, bool training) const {
  const Tensor scale = RoundingScale(step, training ? extra_training_bits_ : 0);
  if (training) step.scale = scale;
  return UsedWeight(step, scale);
}

Tensor Model::Apply(Step& step, const Tensor& input, bool training,
                    const std::map<std::string, Tensor>& outputs) const {
  const nn::LayerSpec& layer = step.layer;
  const bool elsewhere = !layer.from.empty() && layer.type != LayerType::kAdd;
  const Tensor& x = elsewhere ? outputs.at(layer.from) : input;
  switch (layer.type) {
    case LayerType::kConv2d:
      return Convolve(x, step.depthwise ? OwnWeight(step) : WeightFor(step, training), step.bias,
                      layer, layer.groups);
    case LayerType::kLinear:
      // As a 1 x 1 convolution it runs on oneDNN, which does not depend on how fast the system's
      // BLAS is. In float32: it is little work, and the last one's outputs are the logits.
      return torch::conv2d(x.to(torch::kFloat32).reshape({x.size(0), Int(layer.in.Size()), 1, 1}),
                           WeightFor(step, training), step.bias);
    case LayerType::kBatchNorm:
      return torch::batch_norm(x, step.weight, step.bias, step.running_mean, step.running_var,
                               training, momentum_, layer.eps, /*cudnn_enabled=*/false);
    case LayerType::kSign:
      return SignFunction::apply(x);
    case LayerType::kRelu:
      return torch::relu(x);
    case LayerType::kSquare:
      return torch::square(x);
    case LayerType::kTable:
      throw UnsupportedError("layer " + layer.name + ": a table has no gradient to train with; " +
                             "train with the function that it stands for");
    case LayerType::kClip:
      return torch::clamp(x, layer.low, layer.high);
    case LayerType::kMaxPool2d:
      return torch::max_pool2d(x, Both(layer.kernel), Both(layer.stride),
                               {Int(layer.padding.top), Int(layer.padding.left)});
    case LayerType::kAvgPool2d:
      return torch::avg_pool2d(x, Both(layer.kernel), Both(layer.stride),
                               {Int(layer.padding.top), Int(layer.padding.left)},
                               /*ceil_mode=*/false, layer.count_include_pad);
    case LayerType::kFlatten:
      return x.reshape({x.size(0), Int(layer.out.Size()), 1, 1});
    case LayerType::kAdd:
      return input + outputs.at(layer.from);
  }
  throw InternalError("layer '" + layer.name + "' has an unknown type");
}

Tensor Model::Forward(const Tensor& input, bool training, torch::ScalarType type) {
  std::map<std::string, Tensor> outputs;
  // oneDNN computes in this order, and would otherwise convert before and after each convolution.
  Tensor x = input.contiguous(at::MemoryFormat::ChannelsLast).to(type);
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    Step& step = steps_[i];
    if (const std::size_t fused = NormSignSteps(i); fused > 0 && training && x.is_cpu()) {
      x = NormSign(x, step.weight, step.bias, step.running_mean, step.running_var, momentum_,
                   step.layer.eps, fused == 3 ? Int(steps_[i + 1].layer.kernel.h) : 1);
      i += fused - 1;
    } else if (IsSeparable(i) && (type == torch::kBFloat16 || width_bits_ != 0)) {
      // As one convolution, which is what gets rounded, and on matrix units the faster way.
      Step& pointwise = steps_[++i];
      const Tensor& entering = step.layer.from.empty() ? x : outputs.at(step.layer.from);
      x = Convolve(entering, WeightFor(pointwise, training), pointwise.bias, step.layer, 1);
    } else {
      x = Apply(step, x, training, outputs);
    }
    if (steps_[i].referenced) outputs[steps_[i].layer.name] = x;
  }
  return x.reshape({x.size(0), -1}).to(torch::kFloat32);
}

bool Model::IsSeparable(std::size_t i) const {
  if (i + 1 >= steps_.size()) return false;
  const Step& first = steps_[i];
  const Step& second = steps_[i + 1];
  return first.layer.type == LayerType::kConv2d && second.layer.type == LayerType::kConv2d &&
         first.layer.groups == first.layer.in.channels &&
         first.layer.out_channels == first.layer.in.channels && !first.bias.defined() &&
         !first.referenced && second.layer.kernel == 1 && second.layer.stride == 1 &&
         second.layer.padding.None() && second.layer.groups == 1 && second.layer.from.empty();
}

std::size_t Model::NormSignSteps(std::size_t i) const {
  if (steps_[i].layer.type != LayerType::kBatchNorm || !steps_[i].layer.from.empty()) return 0;
  std::size_t last = i + 1;
  const auto follows = [&](LayerType type) {
    return last < steps_.size() && steps_[last].layer.type == type &&
           steps_[last].layer.from.empty() && !steps_[last - 1].referenced;
  };
  if (follows(LayerType::kMaxPool2d)) {
    const nn::LayerSpec& pool = steps_[last].layer;
    const std::size_t side = pool.kernel.h;
    if (pool.kernel != side || Int(side) > kMaxNormSignPool || pool.stride != pool.kernel ||
        !pool.padding.None() || pool.in.height % side != 0 || pool.in.width % side != 0) {
      return 0;
    }
    ++last;
  }
  return follows(LayerType::kSign) ? last - i + 1 : 0;
}

void Model::MoveTowards(const Model& other, double part) {
  torch::NoGradGuard guard;
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    const Step& to = other.steps_[i];
    if (steps_[i].weight.defined()) steps_[i].weight.lerp_(to.weight, part);
    if (steps_[i].bias.defined()) steps_[i].bias.lerp_(to.bias, part);
    if (to.scale.defined()) steps_[i].scale = to.scale.clone();
  }
}

std::vector<Tensor> Model::Weights() const {
  std::vector<Tensor> found;
  for (const Step& step : steps_) {
    if (step.layer.type != LayerType::kBatchNorm && step.weight.defined()) {
      found.push_back(step.weight);
    }
  }
  return found;
}

std::vector<Tensor> Model::OtherParameters() const {
  std::vector<Tensor> found;
  for (const Step& step : steps_) {
    if (step.layer.type == LayerType::kBatchNorm) found.push_back(step.weight);
    if (step.bias.defined() && step.bias.requires_grad()) found.push_back(step.bias);
  }
  return found;
}

std::map<std::string, Tensor> Model::NamedTensors() const {
  std::map<std::string, Tensor> named;
  for (const Step& step : steps_) {
    const std::string& name = step.layer.name;
    if (step.weight.defined()) {
      named[name + ".weight"] = step.layer.type == LayerType::kLinear
                                    ? step.weight.detach().view({step.weight.size(0), -1})
                                    : step.weight.detach();
    }
    if (step.bias.defined()) named[name + ".bias"] = step.bias.detach();
    if (step.running_mean.defined()) {
      named[name + ".running_mean"] = step.running_mean;
      named[name + ".running_var"] = step.running_var;
    }
  }
  return named;
}

bool Model::IsFinite() const {
  const std::map<std::string, Tensor> named = NamedTensors();
  return std::all_of(named.begin(), named.end(), [](const auto& entry) {
    return entry.second.isfinite().all().template item<bool>();
  });
}

void Model::To(const torch::Device& device) {
  for (Step& step : steps_) {
    for (Tensor* tensor : {&step.weight, &step.bias, &step.running_mean, &step.running_var}) {
      if (!tensor->defined()) continue;
      const bool trained = tensor->requires_grad();
      *tensor = tensor->detach().to(device).set_requires_grad(trained);
    }
  }
}

void Model::Load(const files::TensorFile& file, const std::string& name) {
  torch::NoGradGuard guard;
  for (auto& [tensor_name, target] : NamedTensors()) {
    const std::string place = name + " tensor " + tensor_name;
    const auto found = file.tensors.find(tensor_name);
    if (found == file.tensors.end()) {
      throw ConfigError(place, fmt::format("missing; the network needs it with shape [{}]",
                                           fmt::join(Sizes(target), ", ")));
    }
    if (found->second.shape != Sizes(target)) {
      throw ConfigError(
          place, fmt::format("has shape [{}], the network needs [{}]",
                             fmt::join(found->second.shape, ", "), fmt::join(Sizes(target), ", ")));
    }
    std::vector<double> values = found->second.AsDoubles();
    target.copy_(torch::from_blob(values.data(), target.sizes(), torch::kFloat64));
  }
}

std::map<std::string, Tensor> Model::State() const {
  std::map<std::string, Tensor> state = NamedTensors();
  for (const Step& step : steps_)
    if (step.scale.defined()) state[step.layer.name + ".scale"] = step.scale;
  return state;
}

void Model::SetState(const std::map<std::string, Tensor>& state, const std::string& name) {
  torch::NoGradGuard guard;
  for (auto& [tensor_name, target] : NamedTensors()) {
    const auto found = state.find(tensor_name);
    if (found == state.end() || found->second.sizes() != target.sizes()) {
      throw ConfigError(name, fmt::format("tensor {} is missing or has another shape than [{}]",
                                          tensor_name, fmt::join(Sizes(target), ", ")));
    }
    target.copy_(found->second);
  }
  for (Step& step : steps_) {
    const auto found = state.find(step.layer.name + ".scale");
    if (found == state.end()) continue;
    if (!step.rounded_for || found->second.sizes() != step.weight.sizes().slice(0, 1))
      throw ConfigError(name, fmt::format("tensor {} does not fit the network", found->first));
    step.scale = found->second.to(step.weight.device());
  }
}

files::TensorFile Model::Save() const {
  torch::NoGradGuard guard;
  std::map<std::string, Tensor> named = NamedTensors();
  files::TensorFile file;
  for (const Step& step : steps_) {
    const std::string name = step.layer.name + ".weight";
    if (step.binary) {
      const Tensor signs = OwnWeight(step).to(torch::kCPU, torch::kInt64).contiguous();
      const std::int64_t* data = signs.data_ptr<std::int64_t>();
      file.tensors[name] = files::TensorData::FromIntegers(
          Sizes(named.at(name)), std::vector<std::int64_t>(data, data + signs.numel()),
          files::DType::kI8);
      named.erase(name);
    } else if (step.rounded_for && !step.depthwise) {
      Tensor& weight = named.at(name);
      weight = UsedWeight(step, RoundingScale(step, /*extra_bits=*/0)).view(weight.sizes());
    }
  }
  for (const auto& [name, tensor] : named) {
    const Tensor flat = tensor.to(torch::kCPU, torch::kFloat32).contiguous();
    const float* data = flat.data_ptr<float>();
    file.tensors[name] =
        files::TensorData::FromFloats(Sizes(tensor), std::vector<float>(data, data + flat.numel()));
  }
  return file;
}

}  // namespace tercet::train
