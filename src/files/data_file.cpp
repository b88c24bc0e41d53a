// SPDX-License-Identifier: Apache-2.0
#include "files/data_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/endian.h"
#include "base/json.h"
#include "files/arrangement.h"
#include "files/format.h"
#include "files/label_check.h"
#include "files/npy.h"
#include "files/picture.h"
#include "files/pixel_values.h"
#include "files/table.h"
#include "tercet/base/error.h"

namespace tercet::files {
namespace {

constexpr mpc::Shape3 kCifarShape{3, 32, 32};
// Labels of CIFAR-10; what has others is no file of it. Looked at in so many records even where
// fewer are wanted: a CIFAR-100 record read as one of CIFAR-10 shifts the pixels.
constexpr std::uint8_t kCifar10Classes = 10;
constexpr std::size_t kCifarLooks = 8;

std::uint64_t Limited(std::uint64_t count, std::size_t limit) {
  return limit == 0 ? count : std::min<std::uint64_t>(count, limit);
}

/// How many items a file without a header has, asked before `limit` of them are read.
std::optional<std::uint64_t> TotalWithoutHeader(const ByteReader& reader,
                                                std::uint64_t item_bytes) {
  const auto left = reader.Left();
  return left ? std::optional(*left / item_bytes) : std::nullopt;
}

/// Reads one file's images, format by format.
class ImageFile {
 public:
  ImageFile(ByteReader& reader, std::size_t limit, const mpc::Shape3& expected,
            const DataOptions& options, std::size_t classes)
      : reader_(reader), limit_(limit), expected_(expected), options_(options), classes_(classes) {}

  Part Read(Format format) {
    switch (format) {
      case Format::kCifar:
        return ReadCifar();
      case Format::kRaw:
        return ReadRaw();
      case Format::kIdx:
        return ReadIdx();
      case Format::kNpy:
        return ReadNpy();
      case Format::kTable:
        return ReadTable();
      case Format::kPng:
        return FromPicture(ReadPng(reader_, Untransposed()));
      case Format::kPnm:
        return FromPicture(ReadPnm(reader_, Untransposed()));
    }
    throw InternalError("unknown format");
  }

 private:
  /// Bytes that are numbers, images one after the other, become pixels in the network's order.
  void TakeBytes(std::vector<std::uint8_t> bytes, const Arrangement& arrangement, Part& part) {
    const std::size_t image_bytes = arrangement.shape.Size();
    part.images.shape = arrangement.shape;
    part.images.count = bytes.size() / image_bytes;
    PixelValues(options_, /*floating=*/false, reader_).Convert(bytes, image_bytes);
    part.images.pixels =
        arrangement.IsAsWanted()
            ? std::move(bytes)
            : Arranged(arrangement, part.images.count,
                       [&](std::size_t at, std::size_t, std::size_t) { return bytes[at]; });
  }

  /// The expected shape as it stands in a file whose rows and columns are swapped.
  mpc::Shape3 Untransposed() const {
    mpc::Shape3 shape = expected_;
    if (options_.transpose) std::swap(shape.height, shape.width);
    return shape;
  }

  Arrangement Planar(const mpc::Shape3& shape) const {
    return Arrange({shape.channels, shape.height, shape.width}, Layout::kNchw, options_.transpose);
  }

  // A record is a label or two and an image.
  Part ReadCifar() {
    const std::size_t labels = options_.cifar == CifarKind::kCifar10 ? 1 : 2;
    const std::size_t record = labels + kCifarShape.Size();
    CheckShape(reader_, kCifarShape, expected_);
    if (const auto left = reader_.Left();
        left && labels == 1 && *left % record != 0 && *left % (record + 1) == 0)
      FailAsCifar100("has the size of CIFAR-100's records, not of CIFAR-10's");
    Part part;
    part.total = TotalWithoutHeader(reader_, record);
    std::vector<std::uint8_t> bytes = reader_.ReadItemsToEnd(
        limit_ == 0 ? 0 : std::max(limit_, kCifarLooks), record,
        fmt::format("records of {} and 3 x 32 x 32 pixels", labels == 1 ? "a label" : "2 labels"));
    if (bytes.empty()) reader_.Fail("holds no image");
    std::size_t count = bytes.size() / record;
    if (limit_ == 0) part.total = count;
    for (std::size_t i = 0; i < count && labels == 1; ++i)
      if (bytes[i * record] >= kCifar10Classes)
        FailAsCifar100(fmt::format("the label of item {} (counted from 0) is {}, expected 0 to {}",
                                   i, bytes[i * record], CifarBound() - 1));
    count = Limited(count, limit_);
    TakeRecords(std::move(bytes), labels, count, part);
    return part;
  }

  std::size_t CifarBound() const {
    return classes_ == 0 ? kCifar10Classes : std::min<std::size_t>(classes_, kCifar10Classes);
  }

  [[noreturn]] void FailAsCifar100(const std::string& problem) const {
    reader_.Fail(problem + "; say --cifar100 fine or coarse if it is one of CIFAR-100");
  }

  void TakeRecords(std::vector<std::uint8_t> bytes, std::size_t labels, std::size_t count,
                   Part& part) {
    const std::size_t pixels = kCifarShape.Size();
    const std::size_t which = options_.cifar == CifarKind::kCifar100Fine ? 1 : 0;
    const LabelCheck check(options_, classes_, reader_);
    // The images move to where the labels were.
    auto end = bytes.begin();
    auto at = bytes.begin();
    for (std::size_t i = 0; i < count; ++i) {
      if (classes_ > 0)
        part.labels.push_back(check.Checked(i, at[static_cast<std::ptrdiff_t>(which)]));
      at += static_cast<std::ptrdiff_t>(labels);
      const auto next = at + static_cast<std::ptrdiff_t>(pixels);
      end = std::copy(at, next, end);
      at = next;
    }
    bytes.erase(end, bytes.end());
    TakeBytes(std::move(bytes), Planar(kCifarShape), part);
  }

  Part ReadRaw() {
    if (expected_.Size() == 0)
      reader_.Fail("holds bytes without a header, which only a network's input shape explains");
    Part part;
    part.total = TotalWithoutHeader(reader_, expected_.Size());
    auto bytes =
        reader_.ReadItemsToEnd(limit_, expected_.Size(), mpc::ShapeText(expected_) + " images");
    if (bytes.empty()) reader_.Fail("holds no image");
    TakeBytes(std::move(bytes), ArrangeRows(expected_, options_.layout, options_.transpose), part);
    if (limit_ == 0) part.total = part.images.count;
    return part;
  }

  Part ReadIdx() {
    reader_.Read(4);
    const std::vector<std::uint8_t> header = reader_.ReadAll(12, "the IDX header");
    const std::uint64_t count = FromBigEndian(std::span(header).first(4));
    const std::array<std::uint64_t, 3> sizes{1, FromBigEndian(std::span(header).subspan(4, 4)),
                                             FromBigEndian(std::span(header).subspan(8, 4))};
    if (count == 0) reader_.Fail("holds no image");
    CheckSizes(sizes, reader_);
    const Arrangement arrangement = Arrange(sizes, Layout::kNchw, options_.transpose);
    CheckShape(reader_, arrangement.shape, expected_);
    Part part;
    part.total = count;
    TakeBytes(reader_.ReadItems(count, Limited(count, limit_), arrangement.shape.Size(), "images"),
              arrangement, part);
    return part;
  }

  Part ReadNpy() {
    reader_.Read(4);
    const NpyHeader header = ReadNpyHeader(reader_);
    const auto type = NpyType::Of(header.descr);
    if (!type) {
      reader_.Fail(
          fmt::format("found .npy elements of type '{}', expected whole numbers (such as "
                      "'|u1', uint8) or floating-point ones (such as '<f4', float32)",
                      Printable(header.descr)));
    }
    const std::uint64_t count = header.shape.empty() ? 0 : header.shape[0];
    if (count == 0 && !header.shape.empty()) reader_.Fail("holds no image");
    const Arrangement arrangement = ArrangeNpy(header, reader_, expected_, options_);
    CheckShape(reader_, arrangement.shape, expected_);
    Part part;
    part.total = count;
    const std::uint64_t taken = Limited(count, limit_);
    const std::uint64_t image_bytes = arrangement.shape.Size() * type->bytes;
    // Of an array in Fortran order the images lie across each other.
    std::vector<std::uint8_t> bytes =
        reader_.ReadItems(count, header.fortran_order ? count : taken, image_bytes, "images");
    if (type->bytes == 1 && type->kind == NpyType::Kind::kUnsigned && !header.fortran_order) {
      TakeBytes(std::move(bytes), arrangement, part);
      return part;
    }
    const PixelValues values(options_, !type->IsWhole(), reader_);
    part.images.shape = arrangement.shape;
    part.images.count = taken;
    part.images.pixels =
        Arranged(arrangement, taken, [&](std::size_t at, std::size_t image, std::size_t value) {
          return values.Pixel(type->Number({bytes.data() + at * type->bytes, type->bytes}), image,
                              value);
        });
    return part;
  }

  Part ReadTable() {
    const Table table(reader_, options_);
    const auto label_column = table.LabelColumn();
    const std::size_t features = table.Columns() - (label_column ? 1 : 0);
    const mpc::Shape3 shape = expected_.Size() > 0 ? expected_ : mpc::Shape3{features};
    if (features == 0) reader_.Fail("has no column but the labels, expected images");
    if (features != shape.Size()) FailColumns(table, label_column);
    Part part;
    part.total = table.Rows();
    const bool whole = AreWhole(table, label_column);
    // Where the user has said what numbers are, tables of both kinds may come together.
    if (options_.values == Values::kAuto) part.whole_numbers = whole;
    const PixelValues values(options_, !whole, reader_);
    const LabelCheck check(options_, classes_, reader_);
    const std::uint64_t taken = Limited(table.Rows(), limit_);
    std::vector<std::uint8_t> pixels;
    pixels.reserve(taken * features);
    table.EachRow(limit_, [&](std::size_t row, Table::Cells cells) {
      std::size_t value = 0;
      for (std::size_t c = 0; c < cells.size(); ++c)
        if (c != label_column) pixels.push_back(values.Pixel(*CellNumber(cells[c]), row, value++));
      if (!label_column || classes_ == 0) return;
      const auto label = CellWhole(cells[*label_column]);
      if (!label) table.FailAt(row, *label_column, cells[*label_column], "a label, a whole number");
      part.labels.push_back(check.Checked(row, *label));
    });
    const Arrangement rows = ArrangeRows(shape, options_.layout, options_.transpose);
    part.images.shape = rows.shape;
    part.images.count = taken;
    part.images.pixels = rows.IsAsWanted()
                             ? std::move(pixels)
                             : Arranged(rows, taken, [&](std::size_t at, std::size_t, std::size_t) {
                                 return pixels[at];
                               });
    return part;
  }

  [[noreturn]] void FailColumns(const Table& table,
                                const std::optional<std::size_t>& label_column) const {
    reader_.Fail(fmt::format(
        "found {} columns{}, expected {} ({}){}", table.Columns(),
        label_column ? " with that of the labels" : "", expected_.Size() + (label_column ? 1 : 0),
        mpc::ShapeText(expected_),
        label_column ? ""
                     : ", and one more with --label-column first, last or a name of the header"));
  }

  /// Whether all numbers of all rows are whole. Fails for what is no number, and where whole ones
  /// could as well be pixels as fractions of them.
  bool AreWhole(const Table& table, const std::optional<std::size_t>& label_column) const {
    bool whole = true;
    bool small = true;
    table.EachRow(0, [&](std::size_t row, Table::Cells cells) {
      for (std::size_t c = 0; c < cells.size(); ++c) {
        if (c == label_column) continue;
        const auto number = CellNumber(cells[c]);
        if (!number) table.FailAt(row, c, cells[c], "a number");
        whole = whole && CellWhole(cells[c]);
        small = small && *number >= 0 && *number <= 1;
      }
    });
    if (whole && small && options_.values == Values::kAuto && options_.scale > 1)
      reader_.Fail("has no number but 0 and 1: say --values pixels or --values scaled");
    return whole;
  }

  Part FromPicture(Picture picture) {
    const Arrangement arrangement = Planar(picture.shape);
    CheckShape(reader_, arrangement.shape, expected_);
    Part part;
    part.total = 1;
    part.is_picture = true;
    TakeBytes(std::move(picture.pixels), arrangement, part);
    return part;
  }

  ByteReader& reader_;
  std::size_t limit_;
  const mpc::Shape3& expected_;
  const DataOptions& options_;
  std::size_t classes_;
};

/// Labels that are bytes, one after the other.
std::vector<std::uint8_t> CheckedBytes(const std::vector<std::uint8_t>& bytes,
                                       const LabelCheck& check) {
  std::vector<std::uint8_t> labels(bytes.size());
  for (std::size_t i = 0; i < bytes.size(); ++i) labels[i] = check.Checked(i, bytes[i]);
  return labels;
}

Part ReadNpyLabels(ByteReader& reader, std::size_t limit, const LabelCheck& check) {
  const NpyHeader header = ReadNpyHeader(reader);
  const auto type = NpyType::Of(header.descr);
  if (!type || !type->IsWhole()) {
    reader.Fail(
        fmt::format("found .npy elements of type '{}', expected whole numbers, such as "
                    "'|u1' (uint8) or '<i8' (int64)",
                    Printable(header.descr)));
  }
  if (header.shape.size() != 1) {
    reader.Fail(fmt::format("found a .npy array of {} dimensions ({}), expected 1 for labels{}",
                            header.shape.size(), header.ShapeList(),
                            header.shape.size() == 2 ? " (of one-hot ones numpy.argmax)" : ""));
  }
  Part part;
  part.total = header.shape[0];
  if (*part.total == 0) reader.Fail("holds no label");
  const auto bytes =
      reader.ReadItems(*part.total, Limited(*part.total, limit), type->bytes, "labels");
  for (std::size_t i = 0; i * type->bytes < bytes.size(); ++i) {
    const std::uint64_t bits = type->Bits({bytes.data() + i * type->bytes, type->bytes});
    part.labels.push_back(type->kind == NpyType::Kind::kSigned
                              ? check.Checked(i, static_cast<std::int64_t>(bits))
                              : check.Checked(i, bits));
  }
  return part;
}

Part ReadTableLabels(ByteReader& reader, std::size_t limit, const LabelCheck& check,
                     const DataOptions& options) {
  const Table table(reader, options);
  auto column = table.LabelColumn();
  const bool has_names = table.BeginsWithNames(column);
  if (!column && table.Columns() == 1) column = 0;
  if (!column && table.Columns() == 2 && has_names) column = 1;
  if (!column) {
    reader.Fail(
        fmt::format("has {} columns, expected one of labels, two of files and labels, or "
                    "--label-column first, last or a name of the header",
                    table.Columns()));
  }
  Part part;
  part.total = table.Rows();
  table.EachRow(limit, [&](std::size_t row, Table::Cells cells) {
    const auto label = CellWhole(cells[*column]);
    if (!label) table.FailAt(row, *column, cells[*column], "a label, a whole number");
    if (!check.Allows(static_cast<std::uint64_t>(*label)))
      table.FailAt(row, *column, cells[*column], "a label of " + check.Expected());
    part.labels.push_back(check.Class(static_cast<std::uint64_t>(*label)));
    if (has_names) part.names.emplace_back(cells.front());
  });
  return part;
}

}  // namespace

Part ReadImages(const ByteSource& source, std::size_t limit, const mpc::Shape3& expected,
                const DataOptions& options, std::size_t classes) {
  ByteReader reader(source, kMaxUnpackedImageBytes);
  const Format format = FindFormat(reader, source, Wanted::kImages);
  return ImageFile(reader, limit, expected, options, classes).Read(format);
}

Part ReadLabels(const ByteSource& source, std::size_t limit, std::size_t classes,
                const DataOptions& options) {
  TERCET_CHECK(classes > 0, "labels need at least one class");
  const auto named = FormatByName(source.name);
  const bool has_images = named == Format::kCifar || named == Format::kTable;
  ByteReader reader(source, has_images ? kMaxUnpackedImageBytes : kMaxUnpackedLabelBytes);
  const LabelCheck check(options, classes, reader);
  switch (FindFormat(reader, source, Wanted::kLabels)) {
    case Format::kCifar: {
      Part part = ImageFile(reader, limit, {}, options, classes).Read(Format::kCifar);
      part.images = {};
      return part;
    }
    case Format::kRaw: {
      Part part;
      part.total = TotalWithoutHeader(reader, 1);
      part.labels = CheckedBytes(reader.ReadItemsToEnd(limit, 1, "labels"), check);
      if (part.labels.empty()) reader.Fail("holds no label");
      if (limit == 0) part.total = part.labels.size();
      return part;
    }
    case Format::kNpy:
      reader.Read(4);
      return ReadNpyLabels(reader, limit, check);
    case Format::kTable:
      return ReadTableLabels(reader, limit, check, options);
    default: {
      reader.Read(4);
      Part part;
      part.total = FromBigEndian(reader.ReadAll(4, "the IDX header"));
      if (*part.total == 0) reader.Fail("holds no label");
      part.labels = CheckedBytes(
          reader.ReadItems(*part.total, Limited(*part.total, limit), 1, "labels"), check);
      return part;
    }
  }
}

}  // namespace tercet::files
