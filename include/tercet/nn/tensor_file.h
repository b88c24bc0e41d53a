#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace tercet::nn {

/// Element types of a safetensors file that Tercet reads and writes.
enum class DType : std::uint8_t { kF32, kF64, kI8, kI16, kI32, kI64 };

struct TensorData {
  DType dtype = DType::kF32;
  std::vector<std::size_t> shape;
  std::vector<std::uint8_t> bytes;  ///< little endian, row-major

  std::size_t Count() const;
  /// The values converted to double / to 64-bit integers (ConfigError naming `place` when they are not integers).
  std::vector<double> AsDoubles() const;
  std::vector<std::int64_t> AsIntegers(const std::string& place) const;
  static TensorData FromFloats(std::vector<std::size_t> shape, const std::vector<float>& values);
  static TensorData FromIntegers(std::vector<std::size_t> shape, const std::vector<std::int64_t>& values, DType dtype);
};

/// A safetensors file: named tensors and string metadata.
struct TensorFile {
  std::map<std::string, TensorData> tensors;
  std::map<std::string, std::string> metadata;
};

/// Reads a safetensors file. ConfigError ("FILE tensor NAME" or "FILE header": found, expected) when it is missing, truncated,
/// has offsets that overlap or lie outside, a header that is no JSON or over 100 MB, or an unsupported dtype. F16 and BF16
/// are widened to F32.
TensorFile LoadTensors(const std::filesystem::path& file);
TensorFile ParseTensors(const std::vector<std::uint8_t>& bytes, const std::string& name);
/// Writes atomically (a temporary file beside it, then rename). ConfigError when it cannot.
void SaveTensors(const TensorFile& data, const std::filesystem::path& file);

}  // namespace tercet::nn
