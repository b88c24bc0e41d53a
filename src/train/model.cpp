#include "train/model.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "tercet/base/error.h"

namespace tercet::train {
namespace {

using nn::LayerType;
using torch::Tensor;

// Forward: +1 where x >= 0, else -1. Backward: as if it were the piecewise quadratic function that
// runs from -1 to 1 over |x| <= 1, whose slope 2 - 2|x| follows the step more closely than that of
// a clipped identity. [Liu et al., Bi-Real Net, ECCV 2018, Sec. 3.3]
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
    return {x.abs().neg_().add_(1).clamp_min_(0).mul_(2).mul_(gradients[0])};
  }
};

constexpr double kEvaluationFill = 0.75;

std::int64_t Int(std::size_t n) { return static_cast<std::int64_t>(n); }

std::vector<std::size_t> Sizes(const Tensor& t) { return {t.sizes().begin(), t.sizes().end()}; }

// The order to compute in. Max-pool and a monotone activation commute; with the pool first, the
// gradient reaches the largest input of a window instead of the first of many equal outputs.
std::vector<nn::LayerSpec> ComputationOrder(const nn::NetworkSpec& spec,
                                            const std::set<std::string>& referenced) {
  std::vector<nn::LayerSpec> layers = spec.layers;
  for (std::size_t i = 0; i + 1 < layers.size(); ++i) {
    const bool monotone = layers[i].type == LayerType::kSign || layers[i].type == LayerType::kRelu;
    if (monotone && layers[i + 1].type == LayerType::kMaxPool2d &&
        !referenced.contains(layers[i].name) && !referenced.contains(layers[i + 1].name)) {
      std::swap(layers[i], layers[i + 1]);
      ++i;
    }
  }
  return layers;
}

}  // namespace

Model::Model(const nn::NetworkSpec& spec, unsigned width_bits) : width_bits_(width_bits) {
  std::set<std::string> referenced;
  for (const nn::LayerSpec& layer : spec.layers) {
    if (layer.type == LayerType::kAdd) referenced.insert(layer.from);
  }
  std::optional<double> bound = std::exp2(spec.input.bits) - 1;
  for (const nn::LayerSpec& layer : ComputationOrder(spec, referenced)) {
    Step step;
    step.layer = layer;
    step.input_bound = bound;
    step.referenced = referenced.contains(layer.name);
    switch (layer.type) {
      case LayerType::kConv2d:
      case LayerType::kLinear: {
        const bool conv = layer.type == LayerType::kConv2d;
        const std::int64_t depth =
            conv ? Int(layer.in.channels / layer.groups) : Int(layer.in.Size());
        const std::int64_t kernel = conv ? Int(layer.kernel) : 1;
        const double range = 1 / std::sqrt(static_cast<double>(depth * kernel * kernel));
        step.weight = torch::empty({Int(layer.out_channels), depth, kernel, kernel})
                          .uniform_(-range, range)
                          .requires_grad_();
        if (layer.bias) step.bias = torch::zeros({Int(layer.out_channels)}).requires_grad_();
        bound.reset();
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
        if (!steps_.empty() && steps_.back().bias.defined() &&
            steps_.back().layer.type != LayerType::kBatchNorm) {
          steps_.back().bias.set_requires_grad(false);
        }
        bound.reset();
        break;
      }
      case LayerType::kSign:
        bound = 1;
        break;
      case LayerType::kRelu:
      case LayerType::kSquare:
      case LayerType::kAvgPool2d:
      case LayerType::kAdd:
        bound.reset();
        break;
      case LayerType::kMaxPool2d:
      case LayerType::kFlatten:
        break;
    }
    steps_.push_back(std::move(step));
  }
}

// Which scale turns the weights into integers is settled only when a model is compiled, by the bias
// of the channel among others. So the part of the width that sum|w| * max|x| fills is random in
// training and in between otherwise; the gradient passes the rounding unchanged.
Tensor Model::RoundedWeight(const Step& step, bool training) const {
  if (width_bits_ == 0 || !step.input_bound) return step.weight;
  const Tensor weight = step.weight.detach();
  const double bits = width_bits_ + (training ? extra_training_bits_ : 0);
  const double room = (std::exp2(bits - 1) - 1) / *step.input_bound;
  const Tensor norm = weight.abs().sum({1, 2, 3}, /*keepdim=*/true).clamp_min_(1e-20);
  const Tensor filled =
      training ? torch::rand_like(norm).div_(2).add_(0.5) : torch::full_like(norm, kEvaluationFill);
  const Tensor scale = filled.div_(norm).mul_(room);
  const Tensor error = weight.mul(scale).round_().div_(scale).sub_(weight);
  return step.weight + error;
}

Tensor Model::Apply(Step& step, const Tensor& x, bool training,
                    const std::map<std::string, Tensor>& outputs) const {
  const nn::LayerSpec& layer = step.layer;
  const std::int64_t kernel = Int(layer.kernel);
  const std::int64_t stride = Int(layer.stride);
  const std::int64_t padding = Int(layer.padding);
  switch (layer.type) {
    case LayerType::kConv2d:
      return torch::conv2d(x, RoundedWeight(step, training), step.bias, stride, padding, 1,
                           Int(layer.groups));
    case LayerType::kLinear:
      // As a 1 x 1 convolution it runs on oneDNN, which does not depend on how fast the system's
      // BLAS is.
      return torch::conv2d(x.reshape({x.size(0), Int(layer.in.Size()), 1, 1}),
                           RoundedWeight(step, training), step.bias);
    case LayerType::kBatchNorm:
      return torch::batch_norm(x, step.weight, step.bias, step.running_mean, step.running_var,
                               training, /*momentum=*/0.1, layer.eps, /*cudnn_enabled=*/false);
    case LayerType::kSign:
      return SignFunction::apply(x);
    case LayerType::kRelu:
      return torch::relu(x);
    case LayerType::kSquare:
      return torch::square(x);
    case LayerType::kMaxPool2d:
      return torch::max_pool2d(x, kernel, stride, padding);
    case LayerType::kAvgPool2d:
      return torch::avg_pool2d(x, kernel, stride, padding);
    case LayerType::kFlatten:
      return x.reshape({x.size(0), Int(layer.out.Size()), 1, 1});
    case LayerType::kAdd:
      return x + outputs.at(layer.from);
  }
  throw InternalError("layer '" + layer.name + "' has an unknown type");
}

Tensor Model::Forward(const Tensor& input, bool training) {
  std::map<std::string, Tensor> outputs;
  Tensor x = input;
  for (Step& step : steps_) {
    x = Apply(step, x, training, outputs);
    if (step.referenced) outputs[step.layer.name] = x;
  }
  return x.reshape({x.size(0), -1});
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

void Model::Load(const nn::TensorFile& file, const std::string& name) {
  torch::NoGradGuard guard;
  for (auto& [tensor_name, target] : NamedTensors()) {
    const std::string place = name + " tensor " + tensor_name;
    const auto found = file.tensors.find(tensor_name);
    if (found == file.tensors.end()) {
      throw ConfigError(place, "missing; the network needs it with shape " +
                                   fmt::format("[{}]", fmt::join(Sizes(target), ", ")));
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

nn::TensorFile Model::Save() const {
  nn::TensorFile file;
  for (const auto& [name, tensor] : NamedTensors()) {
    const Tensor flat = tensor.to(torch::kFloat32).contiguous();
    const float* data = flat.data_ptr<float>();
    file.tensors[name] =
        nn::TensorData::FromFloats(Sizes(tensor), std::vector<float>(data, data + flat.numel()));
  }
  return file;
}

}  // namespace tercet::train
