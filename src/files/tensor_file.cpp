// SPDX-License-Identifier: Apache-2.0
#include "tercet/files/tensor_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/bfloat16.h"
#include "base/half.h"
#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"
#include "tercet/base/file_writer.h"
#include "tercet/crypto/certificates.h"

namespace tercet::files {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little,
              "tensors are kept in the file's byte order");

constexpr std::uint64_t kLengthBytes = 8;  // the header's length stands before it
constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr FileKind kTensorsFile{"a safetensors file", std::uint64_t{1} << 32};
constexpr char kSupportedDTypes[] = "F32, F64, F16, BF16, I8, I16, I32 or I64";
constexpr char kMetadataKey[] = "__metadata__";

struct DTypeInfo {
  DType dtype;
  const char* name;
  std::size_t bytes;
};
constexpr std::array<DTypeInfo, 6> kDTypes = {{{DType::kF32, "F32", 4},
                                               {DType::kF64, "F64", 8},
                                               {DType::kI8, "I8", 1},
                                               {DType::kI16, "I16", 2},
                                               {DType::kI32, "I32", 4},
                                               {DType::kI64, "I64", 8}}};

const DTypeInfo& Info(DType dtype) {
  const auto index = static_cast<std::size_t>(dtype);
  TERCET_CHECK(index < kDTypes.size(), "dtype {} does not exist", index);
  return kDTypes[index];
}

/// Product of all factors; nothing when it does not fit.
std::optional<std::size_t> Product(const std::vector<std::size_t>& factors) {
  // A zero anywhere makes the product zero, however large the rest.
  if (std::find(factors.begin(), factors.end(), 0) != factors.end()) return 0;
  std::size_t product = 1;
  for (const std::size_t factor : factors) {
    if (factor > std::numeric_limits<std::size_t>::max() / product) return std::nullopt;
    product *= factor;
  }
  return product;
}

template <class T>
T Element(const std::vector<std::uint8_t>& bytes, std::size_t index) {
  T value;
  std::memcpy(&value, bytes.data() + index * sizeof(T), sizeof(T));
  return value;
}

template <class To, class From>
std::vector<To> Convert(const std::vector<std::uint8_t>& bytes, std::size_t count) {
  std::vector<To> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    // NOLINTNEXTLINE(bugprone-signed-char-misuse): the bytes of I8 are numbers with a sign.
    values[i] = static_cast<To>(Element<From>(bytes, i));
  }
  return values;
}

template <class From>
std::vector<std::int64_t> ConvertExactly(const std::vector<std::uint8_t>& bytes, std::size_t count,
                                         const std::string& place) {
  std::vector<std::int64_t> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    const auto value = static_cast<double>(Element<From>(bytes, i));
    if (!(value >= -0x1p63 && value < 0x1p63) || value != std::trunc(value)) {
      throw ConfigError(place,
                        fmt::format("element {} is not an integer of 64 bits, expected one", i));
    }
    values[i] = static_cast<std::int64_t>(value);
  }
  return values;
}

template <class T>
std::vector<std::uint8_t> BytesOf(const std::vector<T>& values) {
  std::vector<std::uint8_t> bytes(values.size() * sizeof(T));
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

template <class To>
std::vector<std::uint8_t> NarrowedBytes(const std::vector<std::int64_t>& values) {
  std::vector<To> narrow(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    TERCET_CHECK(std::in_range<To>(values[i]), "element {} does not fit an integer of {} bits", i,
                 8 * sizeof(To));
    narrow[i] = static_cast<To>(values[i]);
  }
  return BytesOf(narrow);
}

/// Where a tensor of the header lies in the data.
struct Extent {
  std::uint64_t begin, end;
  std::string name;
  std::string widened_from;  // "F16" or "BF16", else empty
};

/// `count` bytes of a file from byte `at` on, which it has.
using ReadAt = std::function<std::vector<std::uint8_t>(std::uint64_t at, std::uint64_t count)>;

/// Reads one file: its header first, and the data only once all of it is described.
class TensorReader {
 public:
  TensorReader(std::uint64_t size, ReadAt read, std::string name)
      : size_(size), read_(std::move(read)), name_(std::move(name)) {}

  std::map<std::string, std::string> Metadata() {
    ReadHeader();
    return std::move(file_.metadata);
  }

  TensorFile All() {
    ReadHeader();
    for (const Extent& extent : extents_) ReadData(extent, file_.tensors.at(extent.name));
    return std::move(file_);
  }

 private:
  [[noreturn]] void FailHeader(const std::string& problem) const {
    throw ConfigError(name_ + " header", problem);
  }
  [[noreturn]] void FailTensor(const std::string& tensor, const std::string& problem) const {
    throw ConfigError(name_ + " tensor " + Printable(tensor), problem);
  }

  void ReadHeader() {
    const json header = ParseHeader();
    for (const auto& [key, value] : header.items()) {
      if (key == kMetadataKey) {
        ReadMetadata(value);
      } else {
        file_.tensors.emplace(key, ReadEntry(key, value));
      }
    }
    CheckExtents();
  }

  json ParseHeader() {
    if (size_ < kLengthBytes) {
      FailHeader(
          fmt::format("truncated: the file has {} bytes, expected at least {} for the "
                      "header's length",
                      size_, kLengthBytes));
    }
    const auto length = Element<std::uint64_t>(read_(0, kLengthBytes), 0);
    if (length > kMaxHeaderBytes) {
      FailHeader(fmt::format("is {} bytes long, expected at most {} (is this a safetensors file?)",
                             length, kMaxHeaderBytes));
    }
    if (length > size_ - kLengthBytes) {
      FailHeader(fmt::format("truncated: is {} bytes long, but the file has {} after its length",
                             length, size_ - kLengthBytes));
    }
    data_begin_ = kLengthBytes + length;
    data_size_ = size_ - data_begin_;
    const std::vector<std::uint8_t> bytes = read_(kLengthBytes, length);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (!text.starts_with('{')) FailHeader("does not begin with '{', expected a JSON object");
    // Metadata may hold whole documents as strings.
    return ReadJson(text, name_ + " header",
                    {.depth = 4, .values = 4'000'000, .string_length = 16 << 20});
  }

  void ReadMetadata(const json& value) {
    if (!value.is_object())
      FailHeader(fmt::format("found {} as {}, expected an object", ValueText(value), kMetadataKey));
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) {
        FailHeader(fmt::format("found {} as {} '{}', expected a string", ValueText(text),
                               kMetadataKey, Printable(key)));
      }
      file_.metadata.emplace(key, text.get<std::string>());
    }
  }

  /// The tensor without its bytes, whose place is noted.
  TensorData ReadEntry(const std::string& tensor, const json& entry) {
    if (!entry.is_object()) {
      FailTensor(tensor, fmt::format("found {} in the header, expected an object with dtype, shape "
                                     "and data_offsets",
                                     ValueText(entry)));
    }
    for (const char* key : {"dtype", "shape", "data_offsets"})
      if (!entry.contains(key)) FailTensor(tensor, fmt::format("missing key '{}'", key));
    for (const auto& [key, unused] : entry.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        FailTensor(tensor, fmt::format("unknown key '{}'; allowed keys: dtype, shape, data_offsets",
                                       Printable(key)));
      }
    }
    const std::string dtype = ReadDType(tensor, entry.at("dtype"));
    const bool widens = dtype == "F16" || dtype == "BF16";
    const auto info = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeInfo& known) {
      return known.name == (widens ? "F32" : dtype);
    });
    const std::size_t stored_bytes = widens ? 2 : info->bytes;

    TensorData data;
    data.dtype = info->dtype;
    data.shape = ReadSizes(tensor, "shape", entry.at("shape"));
    const std::vector<std::size_t> offsets =
        ReadSizes(tensor, "data_offsets", entry.at("data_offsets"));
    if (offsets.size() != 2 || offsets[0] > offsets[1]) {
      FailTensor(tensor, fmt::format("found data_offsets {}, expected [begin, end] with begin <= "
                                     "end",
                                     ValueText(entry.at("data_offsets"))));
    }
    if (offsets[1] > data_size_) {
      FailTensor(tensor, fmt::format("lies at {} of the data, which has only {} bytes (truncated "
                                     "file?)",
                                     ValueText(entry.at("data_offsets")), data_size_));
    }
    std::vector<std::size_t> factors = data.shape;
    factors.push_back(stored_bytes);
    const std::optional<std::size_t> size = Product(factors);
    if (!size) {
      FailTensor(tensor, fmt::format("shape {} has more bytes than 64 bits can count",
                                     ValueText(entry.at("shape"))));
    }
    if (*size != offsets[1] - offsets[0]) {
      FailTensor(tensor,
                 fmt::format("found {} bytes, expected {} for shape {} of {}",
                             offsets[1] - offsets[0], *size, ValueText(entry.at("shape")), dtype));
    }
    extents_.push_back({offsets[0], offsets[1], tensor, widens ? dtype : ""});
    return data;
  }

  void ReadData(const Extent& extent, TensorData& data) const {
    data.bytes = read_(data_begin_ + extent.begin, extent.end - extent.begin);
    if (extent.widened_from.empty()) return;
    std::vector<float> values(data.bytes.size() / 2);
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto bits = Element<std::uint16_t>(data.bytes, i);
      values[i] = extent.widened_from == "F16" ? FromHalf(bits) : FromBfloat16(bits);
    }
    data.bytes = BytesOf(values);
  }

  std::string ReadDType(const std::string& tensor, const json& value) const {
    if (value.is_string()) {
      auto dtype = value.get<std::string>();
      if (dtype == "F16" || dtype == "BF16") return dtype;
      for (const DTypeInfo& known : kDTypes)
        if (dtype == known.name) return dtype;
    }
    FailTensor(tensor,
               fmt::format("found dtype {}, expected {}", ValueText(value), kSupportedDTypes));
  }

  std::vector<std::size_t> ReadSizes(const std::string& tensor, const char* key,
                                     const json& value) const {
    std::vector<std::size_t> sizes;
    bool valid = value.is_array();
    if (valid) {
      for (const json& size : value) {
        valid = valid && size.is_number_unsigned();
        if (valid) sizes.push_back(size.get<std::size_t>());
      }
    }
    if (!valid) {
      FailTensor(tensor, fmt::format("found {} {}, expected an array of integers from 0", key,
                                     ValueText(value)));
    }
    return sizes;
  }

  /// The tensors must fill the data without overlap or gap, so that no byte of the file goes
  /// unread.
  void CheckExtents() {
    std::sort(extents_.begin(), extents_.end(), [](const Extent& a, const Extent& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    std::uint64_t end = 0;
    for (const Extent& extent : extents_) {
      if (extent.begin != end) {
        FailTensor(extent.name,
                   fmt::format("begins at byte {} of the data, expected {}, the end of the tensor "
                               "before it ({})",
                               extent.begin, end, extent.begin < end ? "they overlap" : "a gap"));
      }
      end = extent.end;
    }
    if (end != data_size_) {
      FailHeader(fmt::format("describes {} bytes of data, but the file has {}", end, data_size_));
    }
  }

  std::uint64_t size_;
  ReadAt read_;
  std::string name_;
  TensorFile file_;
  std::uint64_t data_begin_ = 0, data_size_ = 0;
  std::vector<Extent> extents_;
};

TensorReader ReaderOf(const FileReader& file, const std::filesystem::path& name) {
  return {file.Size(),
          [&file](std::uint64_t at, std::uint64_t count) { return file.Read(at, count); },
          name.string()};
}

}  // namespace

std::size_t TensorData::Count() const {
  const std::optional<std::size_t> count = Product(shape);
  const std::size_t size = Info(dtype).bytes;
  TERCET_CHECK(count && bytes.size() % size == 0 && *count == bytes.size() / size,
               "{} bytes of {} do not fit the tensor's shape", bytes.size(), Info(dtype).name);
  return *count;
}

std::vector<double> TensorData::AsDoubles() const {
  const std::size_t count = Count();
  switch (dtype) {
    case DType::kF32:
      return Convert<double, float>(bytes, count);
    case DType::kF64:
      return Convert<double, double>(bytes, count);
    case DType::kI8:
      return Convert<double, std::int8_t>(bytes, count);
    case DType::kI16:
      return Convert<double, std::int16_t>(bytes, count);
    case DType::kI32:
      return Convert<double, std::int32_t>(bytes, count);
    case DType::kI64:
      return Convert<double, std::int64_t>(bytes, count);
  }
  throw InternalError("dtype does not exist");
}

std::vector<std::int64_t> TensorData::AsIntegers(const std::string& place) const {
  const std::size_t count = Count();
  switch (dtype) {
    case DType::kF32:
      return ConvertExactly<float>(bytes, count, place);
    case DType::kF64:
      return ConvertExactly<double>(bytes, count, place);
    case DType::kI8:
      return Convert<std::int64_t, std::int8_t>(bytes, count);
    case DType::kI16:
      return Convert<std::int64_t, std::int16_t>(bytes, count);
    case DType::kI32:
      return Convert<std::int64_t, std::int32_t>(bytes, count);
    case DType::kI64:
      return Convert<std::int64_t, std::int64_t>(bytes, count);
  }
  throw InternalError("dtype does not exist");
}

TensorData TensorData::FromFloats(std::vector<std::size_t> shape,
                                  const std::vector<float>& values) {
  TensorData data{DType::kF32, std::move(shape), BytesOf(values)};
  data.Count();
  return data;
}

TensorData TensorData::FromIntegers(std::vector<std::size_t> shape,
                                    const std::vector<std::int64_t>& values, DType dtype) {
  TensorData data{dtype, std::move(shape), {}};
  switch (dtype) {
    case DType::kI8:
      data.bytes = NarrowedBytes<std::int8_t>(values);
      break;
    case DType::kI16:
      data.bytes = NarrowedBytes<std::int16_t>(values);
      break;
    case DType::kI32:
      data.bytes = NarrowedBytes<std::int32_t>(values);
      break;
    case DType::kI64:
      data.bytes = BytesOf(values);
      break;
    default:
      throw InternalError(fmt::format("{} is no integer type", Info(dtype).name));
  }
  data.Count();
  return data;
}

TensorFile LoadTensors(const std::filesystem::path& file) {
  const FileReader reader(file, kTensorsFile);
  return ReaderOf(reader, file).All();
}

std::map<std::string, std::string> LoadTensorMetadata(const std::filesystem::path& file) {
  const FileReader reader(file, kTensorsFile);
  return ReaderOf(reader, file).Metadata();
}

TensorFile ParseTensors(const std::vector<std::uint8_t>& bytes, const std::string& name) {
  const auto read = [&bytes](std::uint64_t at, std::uint64_t count) {
    const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    return std::vector<std::uint8_t>(begin, begin + static_cast<std::ptrdiff_t>(count));
  };
  return TensorReader(bytes.size(), read, name).All();
}

std::string ContentDigest(const TensorFile& data, const std::string& left_out) {
  std::string text;
  for (const auto& [key, value] : data.metadata)
    if (key != left_out) text += fmt::format("{} {} {} {}\n", key.size(), key, value.size(), value);
  for (const auto& [name, tensor] : data.tensors) {
    const std::string_view bytes(reinterpret_cast<const char*>(tensor.bytes.data()),
                                 tensor.bytes.size());
    text += fmt::format("{} {} {} [{}] {}\n", name.size(), name, Info(tensor.dtype).name,
                        fmt::join(tensor.shape, ", "), crypto::Sha256Hex(bytes));
  }
  return crypto::Sha256Hex(text);
}

std::vector<std::uint8_t> SerializeTensors(const TensorFile& data) {
  // Wide elements first, so that each tensor is aligned to its elements' size.
  std::vector<std::pair<std::string, const TensorData*>> order;
  for (const auto& [name, tensor] : data.tensors) {
    TERCET_CHECK(name != kMetadataKey, "a tensor must not be named {}", name);
    tensor.Count();  // checks the bytes against the shape
    order.emplace_back(name, &tensor);
  }
  std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return Info(a.second->dtype).bytes > Info(b.second->dtype).bytes;
  });

  json header = json::object();
  if (!data.metadata.empty()) header[kMetadataKey] = data.metadata;
  std::size_t end = 0;
  for (const auto& [name, tensor] : order) {
    const std::size_t begin = end;
    end += tensor->bytes.size();
    header[name] = {{"dtype", Info(tensor->dtype).name},
                    {"shape", tensor->shape},
                    {"data_offsets", {begin, end}}};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::type_error&) {
    throw InternalError("a tensor's name or the metadata is not valid UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');

  std::vector<std::uint8_t> bytes = BytesOf(std::vector<std::uint64_t>{text.size()});
  bytes.reserve(bytes.size() + text.size() + end);
  bytes.insert(bytes.end(), text.begin(), text.end());
  for (const auto& [name, tensor] : order)
    bytes.insert(bytes.end(), tensor->bytes.begin(), tensor->bytes.end());
  return bytes;
}

void SaveTensors(const TensorFile& data, const std::filesystem::path& file) {
  const std::vector<std::uint8_t> bytes = SerializeTensors(data);
  WriteFile(file, {reinterpret_cast<const char*>(bytes.data()), bytes.size()}, FileRights::kOwner);
}

}  // namespace tercet::files
