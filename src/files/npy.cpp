// SPDX-License-Identifier: Apache-2.0
#include "files/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <charconv>

#include "base/endian.h"
#include "base/half.h"
#include "base/json.h"
#include "files/format.h"

namespace tercet::files {
namespace {

constexpr std::uint64_t kMaxNpyHeaderBytes = 1 << 16;
constexpr std::string_view kMagicEnd = kNpyMagic.substr(4);

/// Parses the literal of a Python dictionary that follows the magic of a .npy file, such as
/// {'descr': '|u1', 'fortran_order': False, 'shape': (3, 28, 28), }
class NpyHeaderParser {
 public:
  NpyHeaderParser(std::string_view text, const ByteReader& reader) : text_(text), reader_(reader) {}

  NpyHeader Parse() {
    Expect('{');
    while (!Take('}')) {
      const std::string key = String();
      Expect(':');
      if (key == "descr" && !descr_) {
        descr_ = String();
      } else if (key == "fortran_order" && !fortran_order_) {
        fortran_order_ = Boolean();
      } else if (key == "shape" && !shape_) {
        shape_ = Tuple();
      } else {
        Fail(fmt::format("found the key '{}', expected descr, fortran_order and shape once each",
                         Printable(key)));
      }
      if (!Take(',')) {
        Expect('}');
        break;
      }
    }
    SkipBlanks();
    if (!text_.empty()) Fail("goes on after its dictionary");
    if (!descr_ || !fortran_order_ || !shape_)
      Fail("lacks a key, expected descr, fortran_order and shape");
    return {*descr_, *fortran_order_, *shape_};
  }

 private:
  [[noreturn]] void Fail(const std::string& problem) const {
    reader_.Fail("the .npy header " + problem);
  }

  void SkipBlanks() {
    const std::size_t blanks = text_.find_first_not_of(" \n");
    text_.remove_prefix(std::min(blanks, text_.size()));
  }

  bool Take(char c) {
    SkipBlanks();
    if (!text_.starts_with(c)) return false;
    text_.remove_prefix(1);
    return true;
  }

  void Expect(char c) {
    if (!Take(c)) Fail(fmt::format("has '{}' where '{}' is expected", Rest(), c));
  }

  std::string Rest() const { return Printable(text_.substr(0, 16)); }

  std::string String() {
    SkipBlanks();
    const char quote = text_.empty() ? '\0' : text_.front();
    const std::size_t end = text_.find(quote, 1);
    if ((quote != '\'' && quote != '"') || end == std::string_view::npos)
      Fail(fmt::format("has '{}' where a string is expected", Rest()));
    std::string value(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return value;
  }

  bool Boolean() {
    SkipBlanks();
    for (const std::string_view word : {"False", "True"}) {
      if (!text_.starts_with(word)) continue;
      text_.remove_prefix(word.size());
      return word == "True";
    }
    Fail(fmt::format("has '{}' where True or False is expected", Rest()));
  }

  std::vector<std::uint64_t> Tuple() {
    std::vector<std::uint64_t> sizes;
    Expect('(');
    while (!Take(')')) {
      SkipBlanks();
      std::uint64_t size = 0;
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), size);
      if (error != std::errc{}) Fail(fmt::format("has '{}' where a size is expected", Rest()));
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      sizes.push_back(size);
      if (!Take(',')) {
        Expect(')');
        break;
      }
    }
    return sizes;
  }

  std::string_view text_;
  const ByteReader& reader_;
  std::optional<std::string> descr_;
  std::optional<bool> fortran_order_;
  std::optional<std::vector<std::uint64_t>> shape_;
};

}  // namespace

std::string NpyHeader::ShapeList() const {
  std::string list;
  for (const std::uint64_t size : shape)
    list += fmt::format("{}{}", list.empty() ? "" : " x ", size);
  return list;
}

NpyHeader ReadNpyHeader(ByteReader& reader) {
  const std::vector<std::uint8_t> rest = reader.ReadAll(4, "the .npy magic and version");
  if (!std::equal(rest.begin(), rest.begin() + 2, kMagicEnd.begin()))
    reader.Fail("begins like a .npy file, but has another magic");
  const unsigned major = rest[2];
  const unsigned minor = rest[3];
  if ((major != 1 && major != 2) || minor != 0)
    reader.Fail(fmt::format("found .npy version {}.{}, expected 1.0 or 2.0", major, minor));
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  const std::uint64_t length =
      FromLittleEndian(reader.ReadAll(length_bytes, "the .npy header's length"));
  if (length > kMaxNpyHeaderBytes) {
    reader.Fail(fmt::format("the .npy header is {} bytes long, expected at most {}", length,
                            kMaxNpyHeaderBytes));
  }
  const std::vector<std::uint8_t> header = reader.ReadAll(length, "the .npy header");
  return NpyHeaderParser({reinterpret_cast<const char*>(header.data()), header.size()}, reader)
      .Parse();
}

std::optional<NpyType> NpyType::Of(const std::string& descr) {
  if (descr.size() != 3) return std::nullopt;
  NpyType type;
  type.big_endian = descr[0] == '>';
  if (descr[2] < '1' || descr[2] > '8') return std::nullopt;
  type.bytes = static_cast<std::size_t>(descr[2] - '0');
  if (descr[0] != '<' && descr[0] != '>' && (descr[0] != '|' || type.bytes > 1))
    return std::nullopt;
  switch (descr[1]) {
    case 'u':
      break;
    case 'i':
      type.kind = Kind::kSigned;
      break;
    case 'f':
      type.kind = Kind::kFloat;
      break;
    default:
      return std::nullopt;
  }
  if (!std::has_single_bit(type.bytes) || (!type.IsWhole() && type.bytes == 1)) return std::nullopt;
  return type;
}

std::uint64_t NpyType::Bits(std::span<const std::uint8_t> number) const {
  std::uint64_t bits = big_endian ? FromBigEndian(number) : FromLittleEndian(number);
  const std::size_t above = 64 - 8 * bytes;
  if (kind == Kind::kSigned)
    bits = static_cast<std::uint64_t>(static_cast<std::int64_t>(bits << above) >> above);
  return bits;
}

double NpyType::Number(std::span<const std::uint8_t> number) const {
  const std::uint64_t bits = Bits(number);
  if (kind == Kind::kUnsigned) return static_cast<double>(bits);
  if (kind == Kind::kSigned) return static_cast<double>(static_cast<std::int64_t>(bits));
  if (bytes == 2) return FromHalf(static_cast<std::uint16_t>(bits));
  if (bytes == 4) return std::bit_cast<float>(static_cast<std::uint32_t>(bits));
  return std::bit_cast<double>(bits);
}

Arrangement ArrangeNpy(const NpyHeader& header, const ByteReader& reader,
                       const mpc::Shape3& expected, const DataOptions& options) {
  const std::size_t rank = header.shape.size();
  if (rank < 2 || rank > 4) {
    reader.Fail(
        fmt::format("found a .npy array of {} dimensions ({}), expected 2 (images x "
                    "features), 3 (images x height x width) or 4 (images x channels x "
                    "height x width, or --layout nhwc)",
                    rank, header.ShapeList()));
  }
  std::array<std::uint64_t, 3> sizes{1, 1, 1};
  std::copy(header.shape.begin() + 1, header.shape.end(), sizes.begin() + (rank == 3 ? 1 : 0));
  if (rank > 2 || expected.Size() == 0) CheckSizes(sizes, reader);
  const std::uint64_t count = header.shape[0];
  const Layout layout = rank == 3 ? Layout::kNchw : options.layout;
  if (rank == 2) {
    if (expected.Size() > 0 && sizes[0] != expected.Size()) {
      reader.Fail(fmt::format("images of the wrong size: found {} features, expected {} ({})",
                              sizes[0], expected.Size(), mpc::ShapeText(expected)));
    }
    const Arrangement rows = ArrangeRows(expected.Size() > 0 ? expected : mpc::Shape3{sizes[0]},
                                         layout, options.transpose);
    if (!header.fortran_order) return rows;
    // The images are the fastest dimension, then the features.
    return {rows.shape, 1, rows.channel * count, rows.row * count, rows.column * count};
  }
  if (!header.fortran_order) return Arrange(sizes, layout, options.transpose);
  const std::uint64_t first = rank == 3 ? 0 : count;
  const std::uint64_t second = rank == 3 ? count : first * sizes[0];
  return Arrange(sizes, 1, {first, second, second * sizes[1]}, layout, options.transpose);
}

}  // namespace tercet::files
