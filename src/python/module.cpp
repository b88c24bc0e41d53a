// SPDX-License-Identifier: Apache-2.0
#include "python/module.h"

#include "tercet/base/error.h"
#include "tercet/client/service.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/nn/data_options.h"

namespace tercet::python {

const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

namespace {

std::vector<std::uint8_t> Bytes(const py::buffer& buffer) {
  const auto info = buffer.request();
  const auto* first = static_cast<const std::uint8_t*>(info.ptr);
  return {first, first + info.size * info.itemsize};
}

// The last that fits is asked first.
void BindErrors(py::module_& module) {
  const auto error = py::register_exception<Error>(module, "Error");
  const auto add = [&]<class T>(const char* name, T*, const py::object& base) {
    return py::register_exception<T>(module, name, base);
  };
  add("ConfigError", static_cast<ConfigError*>(nullptr), error);
  add("UnsupportedError", static_cast<UnsupportedError*>(nullptr), error);
  add("ProtocolError", static_cast<ProtocolError*>(nullptr), error);
  const auto network = add("NetworkError", static_cast<NetworkError*>(nullptr), error);
  add("AbortError", static_cast<AbortError*>(nullptr), network);
  add("ServiceError", static_cast<client::ServiceError*>(nullptr), error);
}

}  // namespace

files::Images TakeImages(const Source& source, const nn::InputSpec& input) {
  const auto options = nn::WithInput({}, input);
  if (const auto* file = std::get_if<std::string>(&source))
    return files::LoadImages(*file, 0, input.shape, options);
  return files::ParseImages(Bytes(std::get<py::buffer>(source)), "images", 0, input.shape, options);
}

std::vector<std::uint8_t> TakeLabels(const Source& source, std::size_t images,
                                     std::size_t classes) {
  const auto* file = std::get_if<std::string>(&source);
  const auto labels = file != nullptr ? files::LoadLabels(*file, 0, classes)
                                      : files::ParseLabels(Bytes(std::get<py::buffer>(source)),
                                                           "labels", 0, classes);
  if (labels.size() != images)
    throw ConfigError(
        file != nullptr ? *file : "labels",
        fmt::format("{} labels found, {} expected, one for each image", labels.size(), images));
  return labels;
}

}  // namespace tercet::python

PYBIND11_MODULE(_tercet, module) {
  module.doc() = "The library behind the package tercet.";
  module.attr("version") = TERCET_VERSION;
  tercet::python::BindErrors(module);
  tercet::python::BindNetwork(module);
  tercet::python::BindPlan(module);
  tercet::python::BindClient(module);
}
