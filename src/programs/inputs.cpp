// SPDX-License-Identifier: Apache-2.0
#include "programs/inputs.h"

#include <algorithm>
#include <charconv>
#include <exception>
#include <mutex>
#include <random>
#include <thread>

#include "mpc/activation_function.h"
#include "tercet/base/error.h"
#include "tercet/compile/architecture.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/compile/random_weights.h"
#include "tercet/files/tensor_file.h"
#include "tercet/nn/data_options.h"

namespace tercet::programs {
namespace {

constexpr std::size_t kPlainBatch = 128;
constexpr std::string_view kRandom = "random", kRandomWith = "random:";

void Widen(std::vector<nn::ValueRange>& ranges, const std::vector<nn::ValueRange>& more,
           bool start) {
  if (start) ranges = more;
  for (std::size_t l = 0; l < ranges.size(); ++l) {
    ranges[l].low = std::min(ranges[l].low, more[l].low);
    ranges[l].high = std::max(ranges[l].high, more[l].high);
  }
}

}  // namespace

std::optional<std::uint64_t> RandomSeed(const std::filesystem::path& model) {
  const std::string text = model.string();
  if (text == kRandom) return 0;
  if (!text.starts_with(kRandomWith)) return std::nullopt;
  std::uint64_t seed = 0;
  const char* const end = text.data() + text.size();
  const auto [read, error] = std::from_chars(text.data() + kRandomWith.size(), end, seed);
  if (error != std::errc() || read != end)
    throw ConfigError("--model", fmt::format("found {}, expected {}SEED with a whole number, or "
                                             "./{} for a file of that name",
                                             text, kRandomWith, text));
  return seed;
}

void CheckLabels(const std::filesystem::path& model, const std::filesystem::path& labels) {
  if (RandomSeed(model) && !labels.empty())
    throw ConfigError("--labels",
                      "random weights have no accuracy that means anything; leave the "
                      "labels out");
}

nn::FloatNetwork LoadFloats(const nn::NetworkSpec& spec, const std::filesystem::path& model) {
  const auto seed = RandomSeed(model);
  return {spec, seed ? compile::RandomWeights(spec, *seed) : files::LoadTensors(model),
          model.string()};
}

nn::IntegerNetwork CompileModel(const nn::NetworkSpec& spec, const std::filesystem::path& model,
                                const mpc::Registry& registry, compile::CompileOptions options) {
  return CompileModel(LoadFloats(spec, model), RandomSeed(model), registry, std::move(options),
                      nullptr);
}

nn::IntegerNetwork CompileModel(const nn::FloatNetwork& network, std::optional<std::uint64_t> seed,
                                const mpc::Registry& registry, compile::CompileOptions options,
                                compile::CompileReport* report) {
  options.accept_loss |= seed.has_value();
  auto compiled = compile::Compile(network, registry.PlainOracle(), options, report);
  if (seed)
    compiled.warnings = {fmt::format(
        "the weights are RANDOM (seed {}): costs are those of this architecture with the widths "
        "that such weights need, predictions and accuracies mean nothing",
        *seed)};
  return compiled;
}

void RefuseCompiled(const std::filesystem::path& model) {
  throw ConfigError("--model",
                    fmt::format("{} is compiled already; float weights expected", model.string()));
}

nn::IntegerNetwork LoadModel(const nn::NetworkSpec& spec, const ModelSource& source,
                             const mpc::Registry& registry,
                             const std::function<void(const std::string&)>& say) {
  if (!RandomSeed(source.file) && compile::IsCompiled(source.file)) {
    if (!source.calibration_images.empty())
      throw ConfigError("--calibrate-images",
                        fmt::format("{} is compiled already; give float weights to compile",
                                    source.file.string()));
    return compile::LoadCompiled(source.file, spec);
  }
  compile::CompileOptions options;
  options.accept_loss = source.accept_loss;
  options.progress = [&](const std::string& line) {
    if (!line.starts_with(compile::kWarningLine)) say(line);
  };
  LabelledImages calibration;
  if (!source.calibration_images.empty()) {
    calibration = LoadLabelledImages(source.calibration_images, source.calibration_labels, 0, spec,
                                     source.data);
    if (const auto warning = files::RangeWarning(calibration.images))
      say(fmt::format("WARNING: {}: {}", source.calibration_images.string(), *warning));
    options.calibration = &calibration.images;
    if (!calibration.labels.empty()) options.labels = &calibration.labels;
  }
  return CompileModel(spec, source.file, registry, std::move(options));
}

LabelledImages LoadLabelledImages(const std::filesystem::path& images,
                                  const std::filesystem::path& labels, std::size_t limit,
                                  const nn::NetworkSpec& spec, const files::DataOptions& options) {
  return files::LoadLabelledImages(images, labels, limit, spec.input.shape, spec.Classes(),
                                   nn::WithInput(options, spec.input));
}

nn::PublicNetwork PlaceholderNetwork(const nn::NetworkSpec& spec, unsigned bits) {
  nn::PublicNetwork network = compile::Architecture(spec, spec.output == "class");
  const unsigned most = compile::CompileOptions{}.activation_bits;  // see there
  for (auto& layer : network.layers) {
    layer.value_bits = bits;
    const mpc::ActivationFunction& function = mpc::FunctionOf(layer.activation);
    if (function.Shift() == mpc::ShiftRule::kDivides)
      layer.shift = bits - 1 - std::min(function.KeptBits(most), bits - 1);
    if (function.Shift() == mpc::ShiftRule::kIndexes) {
      const unsigned index = layer.Activation(1).TableBits();
      layer.value_bits = std::max(bits, index);
      layer.shift = layer.value_bits - index;
    }
  }
  return network;
}

files::Images RandomImages(const mpc::Shape3& shape, std::size_t count) {
  files::Images images{shape, count, std::vector<std::uint8_t>(shape.Size() * count)};
  std::mt19937 generator(7);
  for (auto& pixel : images.pixels) pixel = static_cast<std::uint8_t>(generator() >> 24);
  return images;
}

std::string NpyHeader(const files::Images& images) {
  std::string header =
      fmt::format("{{'descr': '|u1', 'fortran_order': False, 'shape': ({}, {}, {}, {}), }}",
                  images.count, images.shape.channels, images.shape.height, images.shape.width);
  // Magic, version and length take 10 bytes; all of the header is a multiple of 64 and ends with a
  // newline.
  header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
  header += '\n';
  std::string file("\x93NUMPY\x01\x00", 8);
  file += static_cast<char>(header.size() & 0xff);
  file += static_cast<char>(header.size() >> 8);
  return file + header;
}

std::vector<std::int64_t> PlainLogits(
    const nn::IntegerNetwork& network, const mpc::Oracle& oracle, const files::Images& images,
    std::vector<nn::ValueRange>* ranges,
    const std::function<void(std::size_t done, std::size_t total)>& on_progress) {
  const std::size_t classes = network.net.Classes();
  std::vector<std::int64_t> logits(images.count * classes);
  std::mutex mutex;  // of all below
  std::size_t next = 0;
  std::size_t done = 0;
  std::exception_ptr failure;
  const auto work = [&] {
    while (true) {
      std::unique_lock lock(mutex);
      if (next >= images.count || failure) return;
      const std::size_t first = next;
      const std::size_t count = std::min(kPlainBatch, images.count - first);
      next += count;
      lock.unlock();
      try {
        std::vector<nn::ValueRange> seen;
        const auto part = nn::RunPlain(network, oracle, images, first, count, &seen);
        lock.lock();
        std::copy(part.begin(), part.end(),
                  logits.begin() + static_cast<std::ptrdiff_t>(first * classes));
        if (ranges != nullptr) Widen(*ranges, seen, /*start=*/done == 0);
        done += count;
        if (on_progress) on_progress(done, images.count);
      } catch (...) {
        if (!lock.owns_lock()) lock.lock();
        if (!failure) failure = std::current_exception();
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    const std::size_t pieces = (images.count + kPlainBatch - 1) / kPlainBatch;
    const std::size_t threads =
        std::min<std::size_t>(pieces, std::max(1U, std::thread::hardware_concurrency()));
    for (std::size_t t = 1; t < threads; ++t) helpers.emplace_back(work);
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return logits;
}

std::size_t CountCorrect(const std::vector<std::uint8_t>& predictions,
                         const std::vector<std::uint8_t>& labels) {
  TERCET_CHECK(predictions.size() == labels.size(), "{} predictions, {} labels", predictions.size(),
               labels.size());
  std::size_t correct = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) correct += predictions[i] == labels[i];
  return correct;
}

}  // namespace tercet::programs
