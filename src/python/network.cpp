// SPDX-License-Identifier: Apache-2.0
#include <filesystem>

#include "programs/compile_settings.h"
#include "programs/inputs.h"
#include "python/module.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/compile/compiled_file.h"
#include "tercet/compile/random_weights.h"
#ifdef TERCET_HAS_IMPORT
#include "import/import_command.h"
#endif

namespace tercet::python {
namespace {

constexpr std::size_t kFloatBatch = 128;
constexpr FileKind kArchitecture{"a network", 64 << 20};

std::shared_ptr<Network> Load(const std::filesystem::path& architecture,
                              const std::filesystem::path& weights) {
  auto network = std::make_shared<Network>();
  network->spec = nn::LoadNetwork(architecture);
  network->architecture = ReadTextFile(architecture, kArchitecture);
  network->source = weights.string();
  network->seed = programs::RandomSeed(weights);
  if (!network->seed && compile::IsCompiled(weights)) {
    network->compiled = compile::LoadCompiled(weights, network->spec);
    return network;
  }
  network->tensors = network->seed ? compile::RandomWeights(network->spec, *network->seed)
                                   : files::LoadTensors(weights);
  network->floats.emplace(network->spec, *network->tensors, network->source);
  return network;
}

#ifdef TERCET_HAS_IMPORT
std::shared_ptr<Network> Imported(importer::ImportedNetwork imported, const std::string& name) {
  auto network = std::make_shared<Network>();
  network->spec = nn::ParseNetwork(imported.architecture, name);
  network->architecture = std::move(imported.architecture);
  network->source = name;
  network->notes = std::move(imported.notes);
  network->tensors = std::move(imported.weights);
  network->floats.emplace(network->spec, *network->tensors, name);
  return network;
}

importer::ImportOptions ImportOptionsOf(const Words& words) {
  importer::ImportSettings settings;
  ParseSettings("import", words,
                [&](CLI::App& app) { importer::AddImportSettings(app, settings); });
  return settings.Options();
}

std::shared_ptr<Network> FromOnnx(const std::filesystem::path& file, const Words& words) {
  const auto options = ImportOptionsOf(words);
  const py::gil_scoped_release release;
  return Imported(importer::ImportOnnx(file, options), file.string());
}

std::shared_ptr<Network> ParseOnnx(const std::string& model, const std::string& name,
                                   const Words& words) {
  const auto options = ImportOptionsOf(words);
  const py::gil_scoped_release release;
  return Imported(importer::ParseOnnx({model.begin(), model.end()}, name, options), name);
}
#else
[[noreturn]] void RefuseOnnx() {
  throw UnsupportedError(
      "this build cannot read ONNX models: install ONNX and protobuf (Debian: libonnx-dev, "
      "libprotobuf-dev), configure with -DTERCET_BUILD_IMPORT=ON and build again");
}
std::shared_ptr<Network> FromOnnx(const std::filesystem::path&, const Words&) { RefuseOnnx(); }
std::shared_ptr<Network> ParseOnnx(const std::string&, const std::string&, const Words&) {
  RefuseOnnx();
}
#endif

py::array_t<float> FloatLogits(const Network& network, const Source& source) {
  if (!network.floats) programs::RefuseCompiled(network.source);
  const auto images = TakeImages(source, network.spec.input);
  const auto logits = WithoutLock([&](Signals& signals) {
    std::vector<float> all;
    for (std::size_t first = 0; first < images.count; first += kFloatBatch) {
      signals.Check();
      const auto part =
          network.floats->Run(images, first, std::min(kFloatBatch, images.count - first));
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  });
  return LogitArray(logits, network.spec.Classes());
}

// Without images, labels and settings a network that is compiled already is its own plan.
std::shared_ptr<Plan> Compile(const std::shared_ptr<const Network>& network,
                              const std::optional<Source>& images,
                              const std::optional<Source>& labels, const Words& words) {
  programs::CompileSettings settings;
  ParseSettings("compile", words,
                [&](CLI::App& app) { programs::AddCompileSettings(app, settings); });
  auto plan = std::make_shared<Plan>();
  plan->network = network;
  if (network->compiled) {
    if (images || labels || !words.empty()) programs::RefuseCompiled(network->source);
    plan->model = *network->compiled;
    return plan;
  }
  auto options = settings.Options();
  programs::LabelledImages calibration;
  if (labels && !images) throw ConfigError("labels", "found, but no images");
  if (network->seed && labels) programs::CheckLabels(network->source, "labels");
  if (images) {
    calibration.images = TakeImages(*images, network->spec.input);
    options.calibration = &calibration.images;
  }
  if (labels) {
    calibration.labels = TakeLabels(*labels, calibration.images.count, network->spec.Classes());
    options.labels = &calibration.labels;
  }
  plan->report.emplace();
  plan->model = WithoutLock([&](Signals& signals) {
    options.progress = [&](const std::string&) { signals.Check(); };
    return programs::CompileModel(*network->floats, network->seed, Protocols(), options,
                                  &*plan->report);
  });
  return plan;
}

void Save(const Network& network, const std::filesystem::path& architecture,
          const std::filesystem::path& weights) {
  if (!network.tensors) programs::RefuseCompiled(network.source);
  const auto bytes = files::SerializeTensors(*network.tensors);
  const std::array outputs{
      Output{
          weights, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, FileRights::kOwner},
      Output{architecture, network.architecture}};
  WriteFiles(outputs);
}

}  // namespace

void BindNetwork(py::module_& module) {
  py::class_<Network, std::shared_ptr<Network>>(module, "Network")
      .def_property_readonly("name", [](const Network& n) { return n.spec.name; })
      .def_property_readonly("input_shape",
                             [](const Network& n) {
                               const auto& shape = n.spec.input.shape;
                               return py::make_tuple(shape.channels, shape.height, shape.width);
                             })
      .def_property_readonly("classes", [](const Network& n) { return n.spec.Classes(); })
      .def_property_readonly("compiled", [](const Network& n) { return n.compiled.has_value(); })
      .def_readonly("architecture", &Network::architecture)
      .def_readonly("notes", &Network::notes)
      .def_property_readonly("remarks", [](const Network& n) { return nn::Remarks(n.spec); })
      .def("float_logits", &FloatLogits)
      .def("compile", &Compile)
      .def("save", &Save);
  module.def("load", &Load);
  module.def("from_onnx", &FromOnnx);
  module.def("parse_onnx", &ParseOnnx);
}

}  // namespace tercet::python
