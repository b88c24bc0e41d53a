// SPDX-License-Identifier: Apache-2.0
#include "programs/check_layers.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "programs/failure.h"
#include "programs/output.h"
#include "tercet/base/error.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

/// One layer's values in the reference, images x features.
struct Reference {
  std::vector<double> values;
  double largest = 0;
};

Reference ReadReference(const files::TensorData& tensor, const std::string& place,
                        std::size_t images, std::size_t features) {
  if (tensor.shape.empty() || tensor.shape[0] != images || tensor.Count() != images * features) {
    throw ConfigError(place, fmt::format("found shape [{}], expected {} images (see --limit) of {} "
                                         "values",
                                         fmt::join(tensor.shape, ", "), images, features));
  }
  Reference reference{tensor.AsDoubles(), 0};
  for (const double v : reference.values) {
    if (!std::isfinite(v)) throw ConfigError(place, "found NaN or infinity, expected numbers");
    reference.largest = std::max(reference.largest, std::abs(v));
  }
  return reference;
}

}  // namespace

std::vector<LayerDifference> CompareLayers(const nn::FloatNetwork& network,
                                           const files::Images& images,
                                           const files::TensorFile& reference,
                                           const std::string& file, double tolerance) {
  const auto& layers = network.Spec().layers;
  std::vector<LayerDifference> differences;
  std::map<std::size_t, Reference> references;
  for (std::size_t l = 0; l < layers.size(); ++l) {
    differences.push_back({.layer = layers[l].name, .type = nn::LayerTypeName(layers[l].type)});
    auto found = reference.tensors.find(layers[l].name);
    if (found == reference.tensors.end() && l + 1 == layers.size())
      found = reference.tensors.find("output");
    if (found == reference.tensors.end()) continue;
    references[l] = ReadReference(found->second, fmt::format("{} tensor {}", file, found->first),
                                  images.count, layers[l].out.Size());
    differences[l].compared = true;
  }
  if (references.empty()) {
    throw ConfigError(file, fmt::format("none of the {} tensors has the name of a layer of {}",
                                        reference.tensors.size(), network.Spec().name));
  }

  std::vector<std::size_t> done(layers.size());  // images that each layer has seen
  network.Run(images, 0, images.count, [&](std::size_t l, const std::vector<float>& output) {
    const std::size_t features = layers[l].out.Size();
    const std::size_t batch = output.size() / features;
    const std::size_t first = std::exchange(done[l], done[l] + batch);
    const auto wanted = references.find(l);
    if (wanted == references.end()) return;
    const auto& [values, largest] = wanted->second;
    LayerDifference& difference = differences[l];
    for (std::size_t e = 0; e < features; ++e) {
      for (std::size_t b = 0; b < batch; ++b) {
        const double distance =
            std::abs(output[e * batch + b] - values[(first + b) * features + e]);
        // Written so that NaN, which a network of finite weights can compute, is beyond.
        if (!(distance <= tolerance * largest)) ++difference.beyond;
        if (!(distance <= difference.largest)) difference.largest = distance;
      }
    }
    difference.values += output.size();
    difference.relative = largest > 0 ? difference.largest / largest : difference.largest;
  });
  return differences;
}

int CheckLayers(const nn::FloatNetwork& network, const files::Images& images,
                const std::string& file, double tolerance) {
  const auto reference = files::LoadTensors(file);
  const auto differences = CompareLayers(network, images, reference, file, tolerance);
  using report::Align;
  report::Table table({{"layer"},
                       {"type"},
                       {"largest difference", Align::kRight},
                       {"relative", Align::kRight},
                       {"values", Align::kRight},
                       {"beyond", Align::kRight}});
  const LayerDifference* first = nullptr;
  for (const auto& d : differences) {
    if (!d.compared) {
      table.AddRow({d.layer, d.type, "not in the reference", "", "", ""});
      continue;
    }
    table.AddRow({d.layer, d.type, fmt::format("{:.3g}", d.largest),
                  fmt::format("{:.3g}", d.relative), report::FormatCount(d.values),
                  report::FormatCount(d.beyond)});
    if (d.beyond > 0 && first == nullptr) first = &d;
  }
  Print("{}", table.Render(report::Utf8Locale()));
  std::vector<std::string> unknown;
  for (const auto& entry : reference.tensors) {
    const auto& name = entry.first;
    if (name != "output" && std::none_of(differences.begin(), differences.end(),
                                         [&](const auto& d) { return d.layer == name; }))
      unknown.push_back(name);
  }
  if (!unknown.empty())
    Print("In the reference, but no layers of the network: {}\n", fmt::join(unknown, ", "));
  if (first == nullptr) {
    Print("Every layer agrees within {:g} of its largest value.\n", tolerance);
    return kExitOk;
  }
  Print("First layer beyond {:g} of its largest value: {} (difference {:.3g}, relative {:.3g})\n",
        tolerance, first->layer, first->largest, first->relative);
  return kExitFailed;
}

}  // namespace tercet::programs
