// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace tercet::files {

/// Element types of a safetensors file that Tercet reads and writes.
enum class DType : std::uint8_t { kF32, kF64, kI8, kI16, kI32, kI64 };

/// One tensor. The functions are thread safe as long as nobody changes the tensor meanwhile.
struct TensorData {
  DType dtype = DType::kF32;
  std::vector<std::size_t> shape;   ///< empty for a single number
  std::vector<std::uint8_t> bytes;  ///< little endian, row-major

  /// Product of the shape, 1 for an empty one. InternalError when it does not fit or disagrees with
  /// `bytes`.
  std::size_t Count() const;
  /// The values converted to double / to 64-bit integers (ConfigError naming `place` when they are
  /// not integers). NaN and infinities pass the first and fail the second; integers of more than 53
  /// bits are rounded by the first.
  std::vector<double> AsDoubles() const;
  std::vector<std::int64_t> AsIntegers(const std::string& place) const;
  /// InternalError when the shape does not hold as many values, the dtype is no integer type or a
  /// value does not fit it.
  static TensorData FromFloats(std::vector<std::size_t> shape, const std::vector<float>& values);
  static TensorData FromIntegers(std::vector<std::size_t> shape,
                                 const std::vector<std::int64_t>& values, DType dtype);
  bool operator==(const TensorData&) const = default;
};

/// A safetensors file: named tensors and string metadata.
struct TensorFile {
  std::map<std::string, TensorData> tensors;
  std::map<std::string, std::string> metadata;
  bool operator==(const TensorFile&) const = default;
};

/// Reads a safetensors file. ConfigError ("FILE tensor NAME" or "FILE header": found, expected;
/// FILE alone when it cannot be read) when it is missing, over 4 GiB, truncated, has offsets that
/// overlap, leave gaps or lie outside, a header that is no JSON or over 100 MB, or an unsupported
/// dtype. F16 and BF16 are widened to F32. NaN and infinities are read as they are.
TensorFile LoadTensors(const std::filesystem::path& file);
/// Its string metadata alone; the data stay unread. ConfigError as above.
std::map<std::string, std::string> LoadTensorMetadata(const std::filesystem::path& file);
/// The same from memory; `name` stands for the file in messages.
TensorFile ParseTensors(const std::vector<std::uint8_t>& bytes, const std::string& name);
/// SHA-256 in hex of all that a file holds but its metadata `left_out` (where the digest itself may
/// stand): that of "<length> <key> <length> <text>\n" for each piece of metadata, in the order of
/// keys, followed by "<length> <name> <dtype> [<size>, ...] <SHA-256 of the bytes in hex>\n" for
/// each tensor, in the order of names; lengths in bytes.
std::string ContentDigest(const TensorFile& data, const std::string& left_out);
/// The bytes of the safetensors file, the same for equal contents. InternalError when a tensor's
/// bytes do not fit its shape or it is named "__metadata__".
std::vector<std::uint8_t> SerializeTensors(const TensorFile& data);
/// Writes with WriteFile (tercet/base/file_writer.h): whole or not at all, and for its owner alone,
/// since weights are a secret.
void SaveTensors(const TensorFile& data, const std::filesystem::path& file);

/// The tensor's name in messages: "FILE tensor NAME".
inline std::string TensorPlace(const std::string& file, const std::string& tensor) {
  return file + " tensor " + tensor;
}

}  // namespace tercet::files
