// SPDX-License-Identifier: Apache-2.0
#include "tercet/files/images.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <optional>
#include <random>
#include <string_view>

#include "base/endian.h"
#include "base/json.h"
#include "files/byte_reader.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::files {
namespace {

constexpr FileKind kDataFile{"images or labels", kMaxDataBytes};
constexpr std::uint64_t kMaxImageBytes = std::uint64_t{1} << 31;
constexpr std::uint64_t kMaxNpyHeaderBytes = 1 << 16;
constexpr std::uint64_t kMaxChannels = 65536, kMaxSide = 4096;
constexpr std::uint32_t kImagesMagic = 0x00000803, kLabelsMagic = 0x00000801;
constexpr mpc::Shape3 kCifarShape{3, 32, 32};
constexpr std::string_view kNpyMagic = "\x93NUMPY";

struct NpyHeader {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::uint64_t> shape;

  std::string ShapeList() const {
    std::string list;
    for (const std::uint64_t size : shape)
      list += fmt::format("{}{}", list.empty() ? "" : " x ", size);
    return list;
  }
};

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

/// Reads what follows the first four bytes of a .npy file, up to its data.
NpyHeader ReadNpyHeader(ByteReader& reader) {
  const std::vector<std::uint8_t> rest = reader.ReadAll(4, "the .npy magic and version");
  if (!std::equal(rest.begin(), rest.begin() + 2, kNpyMagic.begin() + 4))
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
  NpyHeader result =
      NpyHeaderParser({reinterpret_cast<const char*>(header.data()), header.size()}, reader)
          .Parse();
  if (result.fortran_order)
    reader.Fail("found an array in Fortran order, expected C order (numpy.ascontiguousarray)");
  return result;
}

enum class Format : std::uint8_t { kIdx, kNpy, kCifar, kRaw };

/// Formats without a magic are told by the file's name; nothing for the others.
std::optional<Format> FormatByName(std::string_view name) {
  for (const std::string_view packed : {".gz", ".xz"}) {
    if (name.ends_with(packed)) {
      name.remove_suffix(packed.size());
      break;
    }
  }
  if (name.ends_with(".bin")) return Format::kCifar;
  if (name.ends_with(".u8")) return Format::kRaw;
  return std::nullopt;
}

/// Says which format the file has, having read the first four bytes unless the name says it.
/// `magic` is the one of the wanted IDX kind.
Format ReadFormat(ByteReader& reader, const ByteSource& source, std::uint32_t magic,
                  const char* wanted) {
  if (source.size == 0) reader.Fail(fmt::format("is empty and holds no {}", wanted));
  if (const std::optional<Format> format = FormatByName(source.name)) return *format;
  const std::vector<std::uint8_t> begin = reader.Read(4);
  if (begin.empty()) reader.Fail(fmt::format("is empty once unpacked and holds no {}", wanted));
  if (begin.size() < 4) {
    reader.Fail(
        fmt::format("truncated: found {} bytes, expected a magic of 4 at least", begin.size()));
  }
  if (std::equal(begin.begin(), begin.end(), kNpyMagic.begin(),
                 [](std::uint8_t a, char b) { return a == static_cast<std::uint8_t>(b); }))
    return Format::kNpy;
  const std::uint64_t found = FromBigEndian(begin);
  if (found == magic) return Format::kIdx;
  const char* kind = found == kImagesMagic ? " (images)" : found == kLabelsMagic ? " (labels)" : "";
  reader.Fail(
      fmt::format("found magic 0x{:08x}{}, expected an IDX file of {}s (0x{:08x}), a .npy file, or "
                  "a name that ends in .bin (CIFAR-10) or .u8",
                  found, kind, wanted, magic));
}

std::uint64_t Limited(std::uint64_t count, std::size_t limit) {
  return limit == 0 ? count : std::min<std::uint64_t>(count, limit);
}

void CheckShape(const ByteReader& reader, const mpc::Shape3& found, const mpc::Shape3& expected) {
  if (expected.Size() == 0 || found == expected) return;
  reader.Fail(
      fmt::format("images of the wrong size: found {}, expected {} (channels x height x width)",
                  mpc::ShapeText(found), mpc::ShapeText(expected)));
}

/// Labels of `label_bytes` little-endian bytes each, checked.
std::vector<std::uint8_t> CheckedLabels(const ByteReader& reader,
                                        const std::vector<std::uint8_t>& packed,
                                        std::size_t label_bytes, std::size_t classes) {
  const std::uint64_t bound =
      std::min<std::uint64_t>(classes, std::numeric_limits<std::uint8_t>::max() + 1);
  std::vector<std::uint8_t> labels(packed.size() / label_bytes);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    // A negative label reads as a huge one, which the bound refuses too.
    const std::uint64_t label = FromLittleEndian({packed.data() + i * label_bytes, label_bytes});
    if (label >= bound) {
      const auto found = label_bytes == 4 ? std::int64_t{static_cast<std::int32_t>(label)}
                                          : static_cast<std::int64_t>(label);
      reader.Fail(fmt::format("the label of item {} (counted from 0) is {}, expected 0 to {}", i,
                              found, bound - 1));
    }
    labels[i] = static_cast<std::uint8_t>(label);
  }
  return labels;
}

/// What was read of a file, and how many items it has; nothing where packed data do not say it.
struct Part : LabelledImages {
  std::optional<std::uint64_t> total;
};

/// How many items a file without a header has, asked before `limit` of them are read.
std::optional<std::uint64_t> TotalWithoutHeader(const ByteReader& reader,
                                                std::uint64_t item_bytes) {
  const auto left = reader.Left();
  return left ? std::optional(*left / item_bytes) : std::nullopt;
}

/// Records of CIFAR-10: a label and an image each. The labels are left as they are.
Part ReadCifar(ByteReader& reader, std::size_t limit, const mpc::Shape3& expected) {
  CheckShape(reader, kCifarShape, expected);
  const std::size_t pixels = kCifarShape.Size();
  Part result;
  result.total = TotalWithoutHeader(reader, 1 + pixels);
  std::vector<std::uint8_t> records =
      reader.ReadItemsToEnd(limit, 1 + pixels, "records of a label and 3 x 32 x 32 pixels");
  if (records.empty()) reader.Fail("holds no image");
  result.images.shape = kCifarShape;
  result.images.count = records.size() / (1 + pixels);
  if (limit == 0) result.total = result.images.count;
  // The images move to where the labels were.
  auto end = records.begin();
  for (auto at = records.begin(); at != records.end();) {
    result.labels.push_back(*at++);
    const auto next = at + static_cast<std::ptrdiff_t>(pixels);
    end = std::copy(at, next, end);
    at = next;
  }
  records.erase(end, records.end());
  result.images.pixels = std::move(records);
  return result;
}

using Parse = std::function<Part(const ByteSource& source, std::size_t limit)>;

ByteSource SourceOf(const FileReader& file, const std::string& name) {
  return {name, file.Size(),
          [&file](std::uint64_t at, std::uint64_t count) { return file.Read(at, count); }};
}

ByteSource SourceOf(const std::vector<std::uint8_t>& bytes, const std::string& name) {
  return {name, bytes.size(), [&bytes](std::uint64_t at, std::uint64_t count) {
            const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
            return std::vector(begin, begin + static_cast<std::ptrdiff_t>(count));
          }};
}

/// Puts together what `parse` finds in the files, of which it may leave out images or labels.
Part LoadFiles(const DataFiles& data, std::size_t limit, const Parse& parse) {
  Part all;
  all.total = 0;
  std::size_t count = 0;
  for (const std::filesystem::path& file : data.files) {
    // A subset is drawn from everything, so nothing can be left unread before.
    // Of files behind the limit one item is looked at, to know how many there are in all.
    const bool enough = !data.subset && limit > 0 && count == limit;
    const std::size_t rest = limit == 0 || data.subset ? 0 : enough ? 1 : limit - count;
    const std::string name = file.string();
    const FileReader opened(file, kDataFile);
    Part part = parse(SourceOf(opened, name), rest);
    all.total = all.total && part.total ? std::optional(*all.total + *part.total) : std::nullopt;
    if (all.images.count > 0 && part.images.shape != all.images.shape) {
      throw ConfigError(
          name, fmt::format("images of the wrong size: found {}, expected {} as in {}",
                            mpc::ShapeText(part.images.shape), mpc::ShapeText(all.images.shape),
                            data.files.front().string()));
    }
    if (enough) continue;
    if (part.images.pixels.size() > kMaxDataBytes - all.images.pixels.size()) {
      throw ConfigError(name, fmt::format("more than {} bytes of images with the files before it",
                                          kMaxDataBytes));
    }
    all.images.shape = part.images.shape;
    all.images.count += part.images.count;
    if (all.images.pixels.empty()) {
      all.images.pixels = std::move(part.images.pixels);
    } else {
      all.images.pixels.insert(all.images.pixels.end(), part.images.pixels.begin(),
                               part.images.pixels.end());
    }
    all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
    count = std::max(all.images.count, all.labels.size());
  }
  // Files of formats with and without labels may come together.
  if (all.images.count > 0 && all.labels.size() < all.images.count) all.labels.clear();
  if (!data.subset) return all;

  std::vector<std::size_t> chosen = SubsetIndices(*data.subset, count);
  if (chosen.empty()) {
    throw ConfigError(data.files.front().string(),
                      fmt::format("its subset is empty: {} of {} items",
                                  data.subset->test ? "test part" : "training part", count));
  }
  chosen.resize(Limited(chosen.size(), limit));
  Part some;
  some.total = all.total;
  const std::size_t pixels = all.images.shape.Size();
  some.images.shape = all.images.shape;
  if (all.images.count > 0) some.images.count = chosen.size();
  some.images.pixels.reserve(some.images.count * pixels);
  for (const std::size_t i : chosen) {
    if (all.images.count > 0) {
      const auto begin = all.images.pixels.begin() + static_cast<std::ptrdiff_t>(i * pixels);
      some.images.pixels.insert(some.images.pixels.end(), begin,
                                begin + static_cast<std::ptrdiff_t>(pixels));
    }
    if (!all.labels.empty()) some.labels.push_back(all.labels[i]);
  }
  return some;
}

/// The same with the labels checked.
Part ReadLabelledCifar(ByteReader& reader, std::size_t limit, const mpc::Shape3& expected,
                       std::size_t classes) {
  Part part = ReadCifar(reader, limit, expected);
  part.labels = CheckedLabels(reader, part.labels, 1, classes);
  return part;
}

/// One file's images.
Part ReadImages(const ByteSource& source, std::size_t limit, const mpc::Shape3& expected) {
  ByteReader reader(source, kMaxUnpackedImageBytes);
  std::uint64_t count = 0;
  std::array<std::uint64_t, 3> sizes{};  // channels, height, width
  switch (ReadFormat(reader, source, kImagesMagic, "image")) {
    case Format::kCifar:
      return ReadCifar(reader, limit, expected);
    case Format::kRaw: {
      if (expected.Size() == 0)
        reader.Fail("holds bytes without a header, which only a network's input shape explains");
      Part part;
      part.total = TotalWithoutHeader(reader, expected.Size());
      part.images = {
          expected, 0,
          reader.ReadItemsToEnd(limit, expected.Size(), mpc::ShapeText(expected) + " images")};
      part.images.count = part.images.pixels.size() / expected.Size();
      if (part.images.count == 0) reader.Fail("holds no image");
      if (limit == 0) part.total = part.images.count;
      return part;
    }
    case Format::kIdx: {
      const std::vector<std::uint8_t> header = reader.ReadAll(12, "the IDX header");
      count = FromBigEndian(std::span(header).first(4));
      sizes = {1, FromBigEndian(std::span(header).subspan(4, 4)),
               FromBigEndian(std::span(header).subspan(8, 4))};
      break;
    }
    case Format::kNpy: {
      const NpyHeader header = ReadNpyHeader(reader);
      if (header.descr != "|u1") {
        reader.Fail(fmt::format("found .npy elements of type '{}', expected '|u1' (uint8)",
                                Printable(header.descr)));
      }
      const std::size_t rank = header.shape.size();
      if (rank != 3 && rank != 4) {
        reader.Fail(
            fmt::format("found a .npy array of {} dimensions ({}), expected 3 (images x height "
                        "x width) or 4 (images x channels x height x width)",
                        rank, header.ShapeList()));
      }
      count = header.shape[0];
      sizes = {rank == 4 ? header.shape[1] : 1, header.shape[rank - 2], header.shape[rank - 1]};
      break;
    }
  }

  if (count == 0) reader.Fail("holds no image");
  const auto [channels, height, width] = sizes;
  const bool bounded = channels <= kMaxChannels && height <= kMaxSide && width <= kMaxSide;
  const std::uint64_t image_bytes = bounded ? channels * height * width : 0;
  if (image_bytes == 0 || image_bytes >= kMaxImageBytes) {
    reader.Fail(
        fmt::format("found images of {} x {} x {}, expected 1 to {} channels, sides from 1 to "
                    "{} and less than {} bytes",
                    channels, height, width, kMaxChannels, kMaxSide, kMaxImageBytes));
  }
  Part part;
  part.total = count;
  part.images.shape = {channels, height, width};
  CheckShape(reader, part.images.shape, expected);
  part.images.count = Limited(count, limit);
  part.images.pixels = reader.ReadItems(count, part.images.count, image_bytes, "images");
  return part;
}

/// One file's labels.
Part ReadLabels(const ByteSource& source, std::size_t limit, std::size_t classes) {
  TERCET_CHECK(classes > 0, "labels need at least one class");
  ByteReader reader(source, FormatByName(source.name) == Format::kCifar ? kMaxUnpackedImageBytes
                                                                        : kMaxUnpackedLabelBytes);
  std::uint64_t count = 0;
  std::size_t label_bytes = 1;
  switch (ReadFormat(reader, source, kLabelsMagic, "label")) {
    case Format::kCifar:
      return ReadLabelledCifar(reader, limit, {}, classes);
    case Format::kRaw: {
      Part part;
      part.total = TotalWithoutHeader(reader, 1);
      part.labels = CheckedLabels(reader, reader.ReadItemsToEnd(limit, 1, "labels"), 1, classes);
      if (part.labels.empty()) reader.Fail("holds no label");
      if (limit == 0) part.total = part.labels.size();
      return part;
    }
    case Format::kIdx:
      count = FromBigEndian(reader.ReadAll(4, "the IDX header"));
      break;
    case Format::kNpy: {
      const NpyHeader header = ReadNpyHeader(reader);
      if (header.descr == "<i4") {
        label_bytes = 4;
      } else if (header.descr == "<i8") {
        label_bytes = 8;
      } else if (header.descr != "|u1") {
        reader.Fail(
            fmt::format("found .npy elements of type '{}', expected '|u1' (uint8), '<i4' "
                        "(int32) or '<i8' (int64)",
                        Printable(header.descr)));
      }
      if (header.shape.size() != 1) {
        reader.Fail(fmt::format("found a .npy array of {} dimensions ({}), expected 1 for labels",
                                header.shape.size(), header.ShapeList()));
      }
      count = header.shape[0];
      break;
    }
  }
  if (count == 0) reader.Fail("holds no label");
  const std::uint64_t take = Limited(count, limit);
  Part part;
  part.total = count;
  part.labels = CheckedLabels(reader, reader.ReadItems(count, take, label_bytes, "labels"),
                              label_bytes, classes);
  return part;
}

Part LoadImagesOf(const DataFiles& data, std::size_t limit, const mpc::Shape3& expected) {
  return LoadFiles(data, limit, [&](const ByteSource& source, std::size_t rest) {
    return ReadImages(source, rest, expected);
  });
}

Part LoadLabelsOf(const DataFiles& data, std::size_t limit, std::size_t classes) {
  return LoadFiles(data, limit, [&](const ByteSource& source, std::size_t rest) {
    return ReadLabels(source, rest, classes);
  });
}

std::string JoinNames(const DataFiles& data) {
  std::string names;
  for (const std::filesystem::path& file : data.files) {
    if (!names.empty()) names += ',';
    names += file.string();
  }
  return names;
}

}  // namespace

DataFiles ParseDataFiles(const std::string& text) {
  DataFiles data;
  std::error_code ignored;
  if (std::filesystem::exists(text, ignored)) return {{text}, std::nullopt};
  std::string_view names = text;
  const std::size_t at = names.rfind('@');
  const std::string_view suffix = at == std::string_view::npos ? "" : names.substr(at + 1);
  const bool test = suffix.starts_with("test:");
  if (test || suffix.starts_with("train:")) {
    const std::string_view numbers = suffix.substr(suffix.find(':') + 1);
    const std::size_t colon = std::min(numbers.find(':'), numbers.size());
    const std::string_view part = numbers.substr(0, colon);
    const std::string_view seed = numbers.substr(std::min(colon + 1, numbers.size()));
    Subset subset{.test = test};
    const auto parsed_part =
        std::from_chars(part.data(), part.data() + part.size(), subset.test_part);
    const auto parsed_seed = std::from_chars(seed.data(), seed.data() + seed.size(), subset.seed);
    if (parsed_part.ec != std::errc{} || parsed_part.ptr != part.data() + part.size() ||
        parsed_seed.ec != std::errc{} || parsed_seed.ptr != seed.data() + seed.size() ||
        !(subset.test_part > 0 && subset.test_part < 1)) {
      throw ConfigError(text, fmt::format("found the subset '{}', expected train:PART:SEED or "
                                          "test:PART:SEED with 0 < PART < 1 and a whole SEED",
                                          Printable(suffix)));
    }
    data.subset = subset;
    names = names.substr(0, at);
  }
  while (true) {
    const std::size_t comma = std::min(names.find(','), names.size());
    if (comma == 0) throw ConfigError(text, "found an empty file name, expected FILE[,FILE...]");
    data.files.emplace_back(names.substr(0, comma));
    if (comma == names.size()) return data;
    names.remove_prefix(comma + 1);
  }
}

std::vector<std::size_t> SubsetIndices(const Subset& subset, std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  // The generator and its use are spelt out, as std::shuffle differs between libraries.
  std::mt19937_64 generator(subset.seed);
  for (std::size_t i = count; i-- > 1;) {
    __extension__ using Wide = unsigned __int128;
    const auto j = static_cast<std::size_t>(static_cast<Wide>(generator()) * (i + 1) >> 64);
    std::swap(order[i], order[j]);
  }
  const auto middle = order.begin() + std::llround(subset.test_part * static_cast<double>(count));
  return subset.test ? std::vector(order.begin(), middle) : std::vector(middle, order.end());
}

Images LoadImages(const std::filesystem::path& file, std::size_t limit,
                  const mpc::Shape3& expected) {
  return LoadImagesOf(ParseDataFiles(file.string()), limit, expected).images;
}

Images ParseImages(const std::vector<std::uint8_t>& bytes, const std::string& name,
                   std::size_t limit, const mpc::Shape3& expected) {
  return ReadImages(SourceOf(bytes, name), limit, expected).images;
}

std::vector<std::uint8_t> LoadLabels(const std::filesystem::path& file, std::size_t limit,
                                     std::size_t classes) {
  return LoadLabelsOf(ParseDataFiles(file.string()), limit, classes).labels;
}

std::vector<std::uint8_t> ParseLabels(const std::vector<std::uint8_t>& bytes,
                                      const std::string& name, std::size_t limit,
                                      std::size_t classes) {
  return ReadLabels(SourceOf(bytes, name), limit, classes).labels;
}

LabelledImages LoadLabelledImages(const std::filesystem::path& images,
                                  const std::filesystem::path& labels, std::size_t limit,
                                  const mpc::Shape3& expected, std::size_t classes) {
  const DataFiles image_files = ParseDataFiles(images.string());
  if (labels.empty()) {
    return LoadFiles(image_files, limit, [&](const ByteSource& source, std::size_t rest) {
      if (FormatByName(source.name) != Format::kCifar) return ReadImages(source, rest, expected);
      ByteReader reader(source, kMaxUnpackedImageBytes);
      return ReadLabelledCifar(reader, rest, expected, classes);
    });
  }
  DataFiles label_files = ParseDataFiles(labels.string());
  if (label_files.subset && label_files.subset != image_files.subset) {
    throw ConfigError(labels.string(),
                      fmt::format("its subset is not that of the images {}", images.string()));
  }
  label_files.subset = image_files.subset;
  Part result = LoadImagesOf(image_files, limit, expected);
  // One more than there may be shows that there are too many; a subset is drawn from all of them.
  const bool open_end = limit == 0 && !label_files.subset;
  Part found = LoadLabelsOf(label_files, open_end ? result.images.count + 1 : limit, classes);
  const auto check = [&](std::uint64_t label_count, std::uint64_t image_count) {
    if (label_count == image_count) return;
    throw ConfigError(JoinNames(label_files),
                      fmt::format("{}{} labels found, {} expected, one for each image of {}",
                                  open_end && !found.total ? "at least " : "", label_count,
                                  image_count, JoinNames(image_files)));
  };
  // A limit must not hide that these are the labels of something else.
  if (found.total && result.total) check(*found.total, *result.total);
  check(found.labels.size(), result.images.count);
  result.labels = std::move(found.labels);
  return result;
}

}  // namespace tercet::files
