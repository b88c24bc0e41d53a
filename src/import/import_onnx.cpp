// SPDX-License-Identifier: Apache-2.0
#include "import/import_onnx.h"

#include <onnx/onnx_pb.h>

#include <limits>

#include "import/importer.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::importer {
namespace {

/// protobuf counts the bytes of a message in an int.
constexpr FileKind kOnnxFile{"an ONNX model", std::numeric_limits<int>::max()};

}  // namespace

ImportedNetwork ImportOnnx(const std::filesystem::path& file, const ImportOptions& options) {
  return ParseOnnx(ReadFile(file, kOnnxFile), file, options);
}

ImportedNetwork ParseOnnx(const std::vector<std::uint8_t>& bytes, const std::filesystem::path& file,
                          const ImportOptions& options) {
  onnx::ModelProto model;
  if (bytes.size() > kOnnxFile.max_bytes ||
      !model.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    throw ConfigError(file.string(), "cannot be read as an ONNX model (truncated?)");
  }
  return Importer(model, file, options).Run();
}

}  // namespace tercet::importer
