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

files::Images TakeImages(const py::buffer& npy, const nn::InputSpec& input) {
  return files::ParseImages(Bytes(npy), "images", 0, input.shape, nn::WithInput({}, input));
}

std::vector<std::uint8_t> TakeLabels(const py::buffer& npy, std::size_t images,
                                     std::size_t classes) {
  auto labels = files::ParseLabels(Bytes(npy), "labels", 0, classes);
  if (labels.size() != images)
    throw ConfigError("labels", fmt::format("{} labels found, {} expected, one for each image",
                                            labels.size(), images));
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
