// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "base/scratch.h"
#include "files/idx.h"
#include "files/npy.h"
#include "tercet/files/images.h"

/// What numbers of files become: .npy of all types and orders, tables, labels, and their settings.
namespace tercet::files {
namespace {

using Bytes8 = std::vector<std::uint8_t>;

const mpc::Shape3 kAnyShape{};

Bytes8 Text(const std::string& text) { return {text.begin(), text.end()}; }

template <class T>
Bytes8 Raw(const std::vector<T>& numbers, bool big_endian = false) {
  Bytes8 bytes;
  for (const T number : numbers) {
    std::array<std::uint8_t, sizeof(T)> each;
    std::memcpy(each.data(), &number, sizeof(T));
    static_assert(std::endian::native == std::endian::little);
    if (big_endian) std::reverse(each.begin(), each.end());
    bytes.insert(bytes.end(), each.begin(), each.end());
  }
  return bytes;
}

Bytes8 Parsed(const Bytes8& bytes, const mpc::Shape3& shape, const DataOptions& options = {},
              const std::string& name = "f") {
  return ParseImages(bytes, name, 0, shape, options).pixels;
}

void ExpectRefused(const Bytes8& bytes, const std::string& message, const mpc::Shape3& shape = {},
                   const DataOptions& options = {}) {
  ExpectConfigError([&] { ParseImages(bytes, "f", 0, shape, options); }, "f", message);
}

TEST(NpyNumbers, OfAllTypesAreRead) {
  const mpc::Shape3 shape{1, 1, 3};
  const Bytes8 expected{0, 7, 255};
  EXPECT_EQ(Parsed(Npy("|u1", "(1, 3)", Raw<std::uint8_t>({0, 7, 255})), shape), expected);
  EXPECT_EQ(Parsed(Npy("<u2", "(1, 3)", Raw<std::uint16_t>({0, 7, 255})), shape), expected);
  EXPECT_EQ(Parsed(Npy("<i2", "(1, 1, 3)", Raw<std::int16_t>({0, 7, 255})), shape), expected);
  EXPECT_EQ(Parsed(Npy(">i4", "(1, 3)", Raw<std::int32_t>({0, 7, 255}, true)), shape), expected);
  EXPECT_EQ(Parsed(Npy("<i8", "(1, 1, 1, 3)", Raw<std::int64_t>({0, 7, 255})), shape), expected);
  EXPECT_EQ(Parsed(Npy("<f4", "(1, 3)", Raw<float>({0, 7.0F / 255, 1})), shape), expected);
  EXPECT_EQ(Parsed(Npy(">f8", "(1, 3)", Raw<double>({0, 7.0 / 255, 1}, true)), shape), expected);
  // 0.5 and 1 as binary16; 127.5 is rounded up.
  EXPECT_EQ(Parsed(Npy("<f2", "(1, 3)", Raw<std::uint16_t>({0, 0x3800, 0x3C00})), shape),
            (Bytes8{0, 128, 255}));
  EXPECT_EQ(Parsed(Npy("|i1", "(1, 3)", Raw<std::int8_t>({0, 7, 127})), shape),
            (Bytes8{0, 7, 127}));
}

TEST(NpyNumbers, OutsideOfAPixelAreRefused) {
  ExpectRefused(Npy("|i1", "(1, 3)", Raw<std::int8_t>({0, 7, -1})),
                "value 2 of image 0 (both counted from 0) is -1, expected a pixel of 0 to 255");
  ExpectRefused(Npy("<u2", "(2, 2)", Raw<std::uint16_t>({0, 0, 256, 0})),
                "value 0 of image 1 (both counted from 0) is 256, expected a pixel");
  ExpectRefused(
      Npy("<f4", "(1, 2)", Raw<float>({0, 17})),
      "value 1 of image 0 (both counted from 0) is 17, for pixel 4335 (times the scale 255 "
      "of the network's input), expected 0 to 255; say --values pixels");
  ExpectRefused(Npy("<f4", "(1, 1)", Raw<float>({-0.42F})), "--values normalised");
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity(), 1e300, -1e300})
    ExpectRefused(Npy("<f8", "(1, 1)", Raw<double>({bad})), "value 0 of image 0");
}

TEST(NpyNumbers, MeanWhatIsSaid) {
  DataOptions options{.values = Values::kPixels};
  const Bytes8 floats = Npy("<f4", "(1, 3)", Raw<float>({0, 7.4F, 255}));
  EXPECT_EQ(Parsed(floats, kAnyShape, options), (Bytes8{0, 7, 255}));
  options.values = Values::kScaled;
  EXPECT_EQ(Parsed(Npy("|u1", "(1, 2)", {0, 1}), kAnyShape, options), (Bytes8{0, 255}));
  EXPECT_EQ(Parsed(Idx({0x803, 1, 1, 2}, {1, 0}), kAnyShape, options), (Bytes8{255, 0}));
  ExpectRefused(Npy("|u1", "(1, 2)", {0, 2}), "is 2, for pixel 510", kAnyShape, options);
  // MNIST's usual normalisation: the least value and the largest.
  options = {.values = Values::kNormalised, .mean = 0.1307, .std = 0.3081};
  EXPECT_EQ(Parsed(Npy("<f4", "(1, 3)",
                       Raw<float>({-0.1307F / 0.3081F, (1 - 0.1307F) / 0.3081F,
                                   (100.0F / 255 - 0.1307F) / 0.3081F})),
                   kAnyShape, options),
            (Bytes8{0, 255, 100}));
  ExpectRefused(Npy("<f4", "(1, 1)", Raw<float>({3})), "by scale 255, mean 0.1307 and std 0.3081",
                kAnyShape, options);
  options = {.scale = 1};
  EXPECT_EQ(Parsed(floats, kAnyShape, options), (Bytes8{0, 7, 255}));
}

// Two images of 2 channels, 3 rows and 2 columns whose value is 100 n + 50 c + 10 y + x.
std::uint8_t ValueAt(std::size_t n, std::size_t c, std::size_t y, std::size_t x) {
  return static_cast<std::uint8_t>(100 * n + 50 * c + 10 * y + x);
}

TEST(Orders, AllGiveTheSameImages) {
  constexpr std::size_t kImages = 2, kChannels = 2, kHeight = 3, kWidth = 2;
  const mpc::Shape3 shape{kChannels, kHeight, kWidth};
  Bytes8 expected;
  for (std::size_t n = 0; n < kImages; ++n)
    for (std::size_t c = 0; c < kChannels; ++c)
      for (std::size_t y = 0; y < kHeight; ++y)
        for (std::size_t x = 0; x < kWidth; ++x) expected.push_back(ValueAt(n, c, y, x));
  const Bytes8 first(expected.begin(), expected.begin() + 12);
  for (const bool nhwc : {false, true}) {
    for (const bool transpose : {false, true}) {
      for (const bool fortran : {false, true}) {
        SCOPED_TRACE(testing::Message() << nhwc << transpose << fortran);
        // The sizes as the file says them, and what each of its dimensions counts.
        std::string dimensions = nhwc ? "nyxc" : "ncyx";
        if (transpose) {
          for (char& d : dimensions) d = d == 'x' ? 'y' : d == 'y' ? 'x' : d;
        }
        const auto size = [&](char d) {
          return d == 'n' ? kImages : d == 'c' ? kChannels : d == 'y' ? kHeight : kWidth;
        };
        std::string list = "(";
        std::size_t count = 1;
        for (const char d : dimensions) {
          list += std::to_string(size(d)) + ", ";
          count *= size(d);
        }
        Bytes8 data;
        for (std::size_t i = 0; i < count; ++i) {
          std::string order = dimensions;
          if (!fortran) std::reverse(order.begin(), order.end());  // the fastest one first
          std::array<std::size_t, 128> at{};
          std::size_t rest = i;
          for (const char d : order) {
            at[static_cast<std::size_t>(d)] = rest % size(d);
            rest /= size(d);
          }
          data.push_back(ValueAt(at['n'], at['c'], at['y'], at['x']));
        }
        const DataOptions options{.layout = nhwc ? Layout::kNhwc : Layout::kNchw,
                                  .transpose = transpose};
        EXPECT_EQ(Parsed(Npy("|u1", list + ")", data, fortran), shape, options), expected);
        EXPECT_EQ(ParseImages(Npy("|u1", list + ")", data, fortran), "f", 1, shape, options).pixels,
                  first);
        std::vector<std::int32_t> wide(data.begin(), data.end());
        EXPECT_EQ(Parsed(Npy("<i4", list + ")", Raw(wide), fortran), shape, options), expected);
        if (fortran) continue;
        // Without dimensions of their own: rows of features, and bytes.
        EXPECT_EQ(Parsed(Npy("|u1", "(2, 12)", data), shape, options), expected);
        EXPECT_EQ(Parsed(data, shape, options, "f.u8"), expected);
        std::string table;
        for (std::size_t i = 0; i < data.size(); ++i)
          table += std::to_string(data[i]) + (i % 12 == 11 ? "\n" : ",");
        EXPECT_EQ(Parsed(Text(table), shape, options, "f.csv"), expected);
      }
    }
  }
}

TEST(Orders, OfFortranFeaturesAndGreyImages) {
  EXPECT_EQ(Parsed(Npy("|u1", "(2, 3)", {1, 4, 2, 5, 3, 6}, true), {1, 1, 3}),
            (Bytes8{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(Parsed(Npy("|u1", "(2, 1, 3)", {1, 4, 2, 5, 3, 6}, true), {1, 1, 3}),
            (Bytes8{1, 2, 3, 4, 5, 6}));
  ExpectRefused(
      Npy("|u1", "(1, 2, 2, 3)", Bytes8(12)),
      "found 2 x 2 x 3, expected 3 x 2 x 2 (channels x height x width); say --layout nhwc",
      {3, 2, 2});
  // EMNIST's files.
  EXPECT_EQ(Parsed(Idx({0x803, 1, 3, 2}, {1, 2, 3, 4, 5, 6}), {1, 2, 3}, {.transpose = true}),
            (Bytes8{1, 3, 5, 2, 4, 6}));
}

TEST(Labels, AreReadFromAnyWholeType) {
  EXPECT_EQ(ParseLabels(Npy("|i1", "(2,)", {1, 0}), "f", 0, 2), (Bytes8{1, 0}));
  EXPECT_EQ(ParseLabels(Npy(">i4", "(2,)", Raw<std::int32_t>({3, 2}, true)), "f", 0, 4),
            (Bytes8{3, 2}));
  EXPECT_EQ(ParseLabels(Npy("<u8", "(1,)", Raw<std::uint64_t>({3})), "f", 0, 4), Bytes8{3});
  const auto huge = [] { ParseLabels(Npy("<u8", "(1,)", Raw<std::uint64_t>({~0ULL})), "f", 0, 4); };
  ExpectConfigError(huge, "f", "the label of item 0 (counted from 0) is 18446744073709551615");
  const auto one_hot = [] { ParseLabels(Npy("|u1", "(1, 10)", Bytes8(10)), "f", 0, 4); };
  ExpectConfigError(one_hot, "f", "2 dimensions (1 x 10), expected 1 for labels (of one-hot ones");
}

TEST(Labels, MayCountFromOne) {
  const DataOptions from_1{.first_label = 1};
  EXPECT_EQ(ParseLabels(Idx({0x801, 3}, {1, 26, 2}), "f", 0, 26, from_1), (Bytes8{0, 25, 1}));
  const auto zero = [&] { ParseLabels(Idx({0x801, 2}, {1, 0}), "f", 0, 26, from_1); };
  ExpectConfigError(zero, "f", "the label of item 1 (counted from 0) is 0, expected 1 to 26");
  const auto over = [&] { ParseLabels(Idx({0x801, 1}, {27}), "f", 0, 26, from_1); };
  ExpectConfigError(over, "f", "is 27, expected 1 to 26");
  const auto unsaid = [] { ParseLabels(Idx({0x801, 2}, {1, 10}), "f", 0, 10); };
  ExpectConfigError(unsaid, "f", "is 10, expected 0 to 9; say --first-label 1");
}

TEST(Cifar100, HasTwoLabelsARecord) {
  Bytes8 bytes;
  for (const std::uint8_t i : {3, 4}) {
    bytes.push_back(i);                                  // coarse
    bytes.push_back(static_cast<std::uint8_t>(90 + i));  // fine
    bytes.insert(bytes.end(), 3072, i);
  }
  DataOptions options{.cifar = CifarKind::kCifar100Fine};
  EXPECT_EQ(ParseLabels(bytes, "train.bin", 0, 100, options), (Bytes8{93, 94}));
  const Images images = ParseImages(bytes, "train.bin", 1, {3, 32, 32}, options);
  EXPECT_EQ(images.pixels, Bytes8(3072, 3));
  options.cifar = CifarKind::kCifar100Coarse;
  EXPECT_EQ(ParseLabels(bytes, "train.bin", 0, 20, options), (Bytes8{3, 4}));
  // Not read as CIFAR-10's: by the size, or by what would be labels.
  ExpectConfigError([&] { ParseImages(bytes, "train.bin", 1, kAnyShape); }, "train.bin",
                    "has the size of CIFAR-100's records, not of CIFAR-10's; say --cifar100");
  Bytes8 shifted(2 * 3073);
  shifted[3073] = 77;
  ExpectConfigError([&] { ParseImages(shifted, "train.bin", 1, kAnyShape); }, "train.bin",
                    "the label of item 1 (counted from 0) is 77, expected 0 to 9; say --cifar100");
}

TEST(Tables, AreImagesAndLabels) {
  const mpc::Shape3 shape{1, 1, 3};
  const auto load = [&](const std::string& text, const DataOptions& options = {}) {
    const ScratchDirectory scratch;
    return LoadLabelledImages(scratch.Write("t.csv", Text(text)), "", 0, shape, 10, options);
  };
  EXPECT_EQ(load("1,2,3\n4, 5 ,255").images.pixels, (Bytes8{1, 2, 3, 4, 5, 255}));
  EXPECT_TRUE(load("1,2,3\n").labels.empty());
  const auto named = load("\xEF\xBB\xBFlabel,\"a, b\",x,y\r\n7,1,2,3\r\n9,4,5,6\r\n\r\n");
  EXPECT_EQ(named.images.pixels, (Bytes8{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(named.labels, (Bytes8{7, 9}));
  for (const auto& [column, label] :
       std::vector<std::pair<std::string, std::uint8_t>>{{"first", 1}, {"last", 4}, {"c", 3}}) {
    const auto data = load("a,b,c,d\n1,2,3,4\n", {.label_column = column});
    EXPECT_EQ(data.labels, Bytes8{label});
    EXPECT_EQ(data.images.pixels.size(), 3U);
  }
  EXPECT_EQ(load("1,2,3,4\n", {.label_column = "last"}).labels, Bytes8{4});
  EXPECT_EQ(load("1,0.5,0\n").images.pixels, (Bytes8{255, 128, 0}));
  EXPECT_EQ(load("1.0,17.2,+2e1\n", {.values = Values::kPixels}).images.pixels,
            (Bytes8{1, 17, 20}));
  EXPECT_EQ(load("0,1,2\n3,4,5\n", {.header = false}).images.count, 2U);
  EXPECT_EQ(ParseLabels(Text("3\n1\n"), "labels.txt", 0, 10), (Bytes8{3, 1}));
  EXPECT_EQ(ParseLabels(Text("class\n3\n1\n"), "l.csv", 1, 10), Bytes8{3});
  EXPECT_EQ(ParseLabels(Text("x,label\n8,3\n9,1\n"), "l.csv", 0, 10), (Bytes8{3, 1}));
}

TEST(Tables, AreRefusedWhereTheyAreAmbiguousOrDamaged) {
  const mpc::Shape3 shape{1, 1, 3};
  struct Case {
    std::string text, message;
    DataOptions options = {};
  };
  const std::vector<Case> cases = {
      {" \n\n", "is a text without a row"},
      {"a,b,c\n", "has a header and no row"},
      {"1,2,3\n1,2\n", "row 2 has 2 cells, expected 3 as in the first row"},
      {"1,2,3\n\n1,2,3\n", "row 2 has 1 cells, expected 3"},
      {"a,b,c\n1,2,3\n1,,3\n", "row 3, column 2 (b) is empty, expected a number"},
      {"1,2,3\n1,2,x\n", "row 2, column 3 is 'x', expected a number"},
      {"1,2,3\n1,2,\"3\n", "row 2 has a quote without its end"},
      {"1,2,3\n1,\"2\"2,3\n", "row 2 goes on after a quote, expected a comma"},
      {"1,2,300\n", "value 2 of image 0 (both counted from 0) is 300, expected a pixel"},
      {"1,2,-3\n", "is -3, expected a pixel of 0 to 255"},
      {"1,2,3\n1,2,nan\n", "row 2, column 3 is 'nan', expected a number"},
      {"1,2,3,4\n", "found 4 columns, expected 3 (1 x 1 x 3), and one more with --label-column"},
      {"1;2;3\n4;5;6\n", "column"},
      {"label,b\n1,2\n", "found 2 columns with that of the labels, expected 4 (1 x 1 x 3)"},
      {"0,1,2,3\n5,6,7,8\n", "its first row is 0, 1, ..., 3: say whether that is a header"},
      {",0,1,2\n0,5,6,7\n", "begins with '' and has both numbers and texts: say whether"},
      {"0,1,0\n1,1,1\n", "has no number but 0 and 1: say --values pixels or --values scaled"},
      {"a,b,c\n1,2,3\n",
       "has no column \"d\", expected first, last, none or a name of its header, "
       "a, b, c",
       {.label_column = "d"}},
      {"label,b,label,c\n1,2,3,4\n", "has two columns \"label\""},
      {"label,b,c,d\ncat,2,3,4\n", "row 2, column 1 (label) is 'cat', expected a label"},
      {"label,b,c,d\n10,2,3,4\n", "the label of item 0 (counted from 0) is 10, expected 0 to 9"}};
  const ScratchDirectory scratch;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.text);
    const std::string file = scratch.Write("t.csv", Text(c.text)).string();
    ExpectConfigError([&] { LoadLabelledImages(file, "", 0, shape, 10, c.options); }, file,
                      c.message);
  }
  // What a limit leaves out is looked at.
  ExpectConfigError([&] { ParseImages(Text("9,2,3\n1,2\n"), "f", 1, shape); }, "f", "row 2 has 2");
  ExpectConfigError([&] { ParseLabels(Text("1,2,3\n"), "l.csv", 0, 10); }, "l.csv",
                    "has 3 columns, expected one of labels");
  ExpectConfigError([&] { ParseLabels(Text("1\n10\n"), "l.csv", 0, 10); }, "l.csv",
                    "row 2, column 1 is '10', expected a label of 0 to 9");
  ExpectConfigError([&] { ParseLabels(Text("1\n2.5\n"), "l.csv", 0, 10); }, "l.csv",
                    "row 2, column 1 is '2.5', expected a label, a whole number");
  const std::string whole = scratch.Write("w.csv", Text("1,0,3\n")).string();
  const std::string parts = scratch.Write("p.csv", Text("1,0,0.5\n")).string();
  const auto both = [&] { LoadImages(whole + "," + parts, 0, shape); };
  ExpectConfigError(both, parts, "one of the tables has whole numbers only");
  // Where the user says what numbers are, there is nothing to ask.
  const Images scaled =
      LoadImages(whole + "," + parts, 0, shape, {.values = Values::kScaled, .scale = 50});
  EXPECT_EQ(scaled.pixels, (Bytes8{50, 0, 150, 50, 0, 25}));
}

TEST(WhatIsFound, IsNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a Git LFS pointer"},
      {"\n<!DOCTYPE html><html>", "is an HTML page"},
      {"<HTML>", "is an HTML page"},
      {std::string("PK\x03\x04 and so on"), "is a zip archive (or .npz)"},
      {"\xFF\xD8\xFF\xE0", "is a JPEG picture; convert it to PNG"},
      {"\x80\x04\x95", "is a Python pickle"},
      {"BZh91AY", "is bzip2 data"},
      {"\x28\xB5\x2F\xFD", "is zstd data"},
      {std::string(257, '\0') + "ustar  ", "is a tar archive"},
      {"{\"a\": 1}", "is a JSON text"},
      {std::string("\0\0\x0D\x03", 4), "found magic 0x00000d03"}};
  for (const auto& [text, message] : cases) {
    ExpectRefused(Text(text), message);
    ExpectConfigError([&, &t = text] { ParseLabels(Text(t), "f", 0, 10); }, "f", message);
  }
  for (const char* name : {"i.bin", "i.u8", "i.csv"}) {
    ExpectConfigError(
        [&] {
          ParseImages(Text(cases[0].first), name, 0, {1, 1, 1});
        },
        name, "is a Git LFS pointer");
  }
}

TEST(StandardInput, GivesImages) {
  const int kept = ::dup(STDIN_FILENO);
  const auto from = [](const Bytes8& bytes) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    ASSERT_EQ(::write(ends[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
    ::close(ends[1]);
    ::dup2(ends[0], STDIN_FILENO);
    ::close(ends[0]);
  };
  from(Idx({0x803, 2, 1, 2}, {1, 2, 3, 4}));
  EXPECT_EQ(LoadImages("-", 1, {1, 1, 2}).pixels, (Bytes8{1, 2}));
  from({});
  ExpectConfigError([] { LoadImages("-", 0, kAnyShape); }, "standard input",
                    "is empty and holds no image");
  ExpectConfigError([] { LoadLabels("-", 0, 2); }, "standard input", "expected labels in a file");
  ::dup2(kept, STDIN_FILENO);
  ::close(kept);
}

TEST(RangeWarning, TellsOfImagesThatAreDark) {
  const auto warning = RangeWarning({{1, 1, 2}, 1, {0, 1}});
  ASSERT_TRUE(warning);
  EXPECT_THAT(*warning,
              testing::HasSubstr("the largest pixel of all 1 images is 1, where 0 to 255"));
  EXPECT_FALSE(RangeWarning({{1, 1, 2}, 1, {0, 200}}));
}

}  // namespace
}  // namespace tercet::files
