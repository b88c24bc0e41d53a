// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tercet/compile/compile.h"
#include "tercet/files/images.h"
#include "tercet/files/tensor_file.h"
#include "tercet/mpc/registry.h"
#include "tercet/nn/float_network.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/network.h"

/// The extension module `_tercet` of the Python package: arrays, settings and errors on their way
/// to and from the library. What its classes look like to users is in the package's Python files.
namespace tercet::python {

namespace py = pybind11;

/// Settings, as the options of a command are written: "--max-bits=12".
using Words = std::vector<std::string>;

/// An architecture with its weights.
struct Network {
  nn::NetworkSpec spec;
  std::string architecture;        ///< JSON
  std::string source;              ///< where the weights are from, for messages
  std::vector<std::string> notes;  ///< of the importer
  std::optional<files::TensorFile> tensors;
  std::optional<nn::FloatNetwork> floats;      ///< of them
  std::optional<std::uint64_t> seed;           ///< where the weights are random
  std::optional<nn::IntegerNetwork> compiled;  ///< in place of floats
};

/// A compiled network.
struct Plan {
  std::shared_ptr<const Network> network;
  nn::IntegerNetwork model;
  std::optional<compile::CompileReport> report;  ///< where it was compiled here
};

const mpc::Registry& Protocols();

/// Parses settings as the command `command` of `tercet` does with the options that `add` adds:
/// the same values are taken, and ConfigError says the same.
void ParseSettings(const std::string& command, const Words& words,
                   const std::function<void(CLI::App&)>& add);

/// What `numpy.save` writes of images or labels, or the name of a file or folder of them.
using Source = std::variant<py::buffer, std::string>;
/// As such files are read for a network with this input; ConfigError names the file, or "images" or
/// "labels".
files::Images TakeImages(const Source& source, const nn::InputSpec& input);
std::vector<std::uint8_t> TakeLabels(const Source& source, std::size_t images, std::size_t classes);

/// An array of images x classes.
template <class T>
py::array_t<T> LogitArray(const std::vector<T>& logits, std::size_t classes) {
  const auto columns = static_cast<py::ssize_t>(classes);
  py::array_t<T> array({static_cast<py::ssize_t>(logits.size()) / columns, columns});
  std::copy(logits.begin(), logits.end(), array.mutable_data());
  return array;
}

struct Interrupted {};

/// Python's signals while its lock is not held. Thread safe.
class Signals {
 public:
  /// Whether a handler has raised an exception, as that of Ctrl-C does. Only the main thread runs
  /// handlers.
  bool Raised() {
    if (raised_) return true;
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) raised_ = true;
    return raised_;
  }
  void Check() {
    if (Raised()) throw Interrupted();
  }
  bool HaveRaised() const { return raised_; }

 private:
  std::atomic<bool> raised_ = false;
};

/// work(signals) without Python's lock; what a signal's handler raised is thrown, once the work has
/// noticed.
template <class F>
auto WithoutLock(const F& work) {
  Signals signals;
  try {
    const py::gil_scoped_release release;
    auto result = work(signals);
    if (!signals.HaveRaised()) return result;
  } catch (...) {
    if (!signals.HaveRaised()) throw;
  }
  throw py::error_already_set();
}

void BindNetwork(py::module_& module);
void BindPlan(py::module_& module);
void BindRun(py::class_<Plan, std::shared_ptr<Plan>>& plan);
void BindClient(py::module_& module);

}  // namespace tercet::python
