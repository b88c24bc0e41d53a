// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <string>
#include <vector>

#include "base/scratch.h"
#include "files/png.h"
#include "tercet/files/images.h"

namespace tercet::files {
namespace {

using Bytes8 = std::vector<std::uint8_t>;

const mpc::Shape3 kAnyShape{};

Bytes8 Parsed(const Bytes8& bytes, const mpc::Shape3& shape, const DataOptions& options = {}) {
  const Images images = ParseImages(bytes, "f", 0, shape, options);
  EXPECT_EQ(images.count, 1U);
  return images.pixels;
}

void ExpectRefused(const Bytes8& bytes, const std::string& message,
                   const mpc::Shape3& shape = kAnyShape) {
  ExpectConfigError([&] { ParseImages(bytes, "f", 0, shape); }, "f", message);
}

Bytes8 Text(const std::string& text) { return {text.begin(), text.end()}; }

TEST(Png, ReadsGreyOfAllDepths) {
  EXPECT_EQ(Parsed(GreyPng(2, 3, {0, 1, 2, 253, 254, 255}), {1, 2, 3}),
            (Bytes8{0, 1, 2, 253, 254, 255}));
  const PngFile one{.width = 3, .height = 2, .bits = 1, .rows = {0, 0b10100000, 0, 0b01100000}};
  EXPECT_EQ(Parsed(one.Bytes(), {1, 2, 3}), (Bytes8{255, 0, 255, 0, 255, 255}));
  const PngFile two{.width = 4, .height = 1, .bits = 2, .rows = {0, 0b00011011}};
  EXPECT_EQ(Parsed(two.Bytes(), {1, 1, 4}), (Bytes8{0, 85, 170, 255}));
  const PngFile four{.width = 2, .height = 1, .bits = 4, .rows = {0, 0x1F}};
  EXPECT_EQ(Parsed(four.Bytes(), kAnyShape), (Bytes8{17, 255}));
}

TEST(Png, ReadsColourChannelAfterChannel) {
  const PngFile png{.width = 2, .height = 1, .color = 2, .rows = {0, 1, 2, 3, 4, 5, 6}};
  EXPECT_EQ(Parsed(png.Bytes(), {3, 1, 2}), (Bytes8{1, 4, 2, 5, 3, 6}));
}

TEST(Png, ReadsFilteredRows) {
  // Sub, then Up: differences from the pixel before and above.
  const PngFile png{.width = 3, .height = 2, .rows = {1, 10, 1, 1, 2, 5, 5, 250}};
  EXPECT_EQ(Parsed(png.Bytes(), {1, 2, 3}), (Bytes8{10, 11, 12, 15, 16, 6}));
}

TEST(Png, ReadsPalettes) {
  PngFile png{
      .width = 3, .height = 1, .color = 3, .palette = {9, 8, 7, 6, 5, 4}, .rows = {0, 1, 0, 1}};
  EXPECT_EQ(Parsed(png.Bytes(), {3, 1, 3}), (Bytes8{6, 9, 6, 5, 8, 5, 4, 7, 4}));
  ExpectRefused(png.Bytes(), "found a colour picture, expected a grey one", {1, 1, 3});
  png.palette = {7, 7, 7, 200, 200, 200};
  EXPECT_EQ(Parsed(png.Bytes(), {1, 1, 3}), (Bytes8{200, 7, 200}));
  png.transparency = {255, 128};
  ExpectRefused(png.Bytes(), "found a picture with transparent pixels", {1, 1, 3});
  png.rows = {0, 1, 0, 5};  // an index behind the palette's end
  png.transparency.clear();
  EXPECT_NO_THROW(ParseImages(png.Bytes(), "f", 0, {3, 1, 3}));
}

TEST(Png, ReadsInterlaced) {
  // The seven passes of Adam7: first row and column, and the steps to the next.
  constexpr std::array<std::array<std::uint32_t, 4>, 7> kPasses{{{0, 0, 8, 8},
                                                                 {0, 4, 8, 8},
                                                                 {4, 0, 8, 4},
                                                                 {0, 2, 4, 4},
                                                                 {2, 0, 4, 2},
                                                                 {0, 1, 2, 2},
                                                                 {1, 0, 2, 1}}};
  PngFile png{.width = 10, .height = 9, .interlace = 1};
  Bytes8 pixels;
  for (std::uint8_t i = 0; i < 90; ++i) pixels.push_back(i);
  for (const auto& [y0, x0, dy, dx] : kPasses) {
    for (std::uint32_t y = y0; y < png.height; y += dy) {
      png.rows.push_back(0);
      for (std::uint32_t x = x0; x < png.width; x += dx)
        png.rows.push_back(pixels[y * png.width + x]);
    }
  }
  EXPECT_EQ(Parsed(png.Bytes(), {1, 9, 10}), pixels);
}

TEST(Png, LeavesOutOnlyWhatSaysNothing) {
  const PngFile grey{.width = 2, .height = 1, .color = 4, .rows = {0, 7, 255, 8, 255}};
  EXPECT_EQ(Parsed(grey.Bytes(), {1, 1, 2}), (Bytes8{7, 8}));
  EXPECT_EQ(Parsed(grey.Bytes(), {2, 1, 2}), (Bytes8{7, 8, 255, 255}));
  ExpectRefused(grey.Bytes(), "found a grey picture of 1 channel, expected 3", {3, 1, 2});
  PngFile colour{.width = 1, .height = 1, .color = 6, .rows = {0, 1, 2, 3, 255}};
  EXPECT_EQ(Parsed(colour.Bytes(), {3, 1, 1}), (Bytes8{1, 2, 3}));
  EXPECT_EQ(Parsed(colour.Bytes(), {4, 1, 1}), (Bytes8{1, 2, 3, 255}));
  ExpectRefused(colour.Bytes(), "found a colour picture, expected a grey one", {1, 1, 1});
  colour.rows = {0, 5, 5, 5, 255};
  EXPECT_EQ(Parsed(colour.Bytes(), {1, 1, 1}), (Bytes8{5}));
  colour.rows = {0, 5, 5, 5, 254};
  for (const std::size_t channels : {1, 3})
    ExpectRefused(colour.Bytes(), "transparent pixels, 4 channels", {channels, 1, 1});
  PngFile keyed{.width = 2, .height = 1, .transparency = {0, 9}, .rows = {0, 8, 9}};
  ExpectRefused(keyed.Bytes(), "transparent pixels", {1, 1, 2});
  keyed.rows = {0, 8, 8};
  EXPECT_EQ(Parsed(keyed.Bytes(), {1, 1, 2}), (Bytes8{8, 8}));
}

TEST(Png, RefusesWhatDoesNotFit) {
  ExpectRefused(GreyPng(2, 2, Bytes8(4)), "found 1 x 2 x 2, expected 1 x 28 x 28", {1, 28, 28});
  ExpectRefused(GreyPng(1, 1, {0}), "found a grey picture of 1 channel, expected 3", {3, 1, 1});
  const PngFile deep{.bits = 16, .rows = {0, 1, 2}};
  ExpectRefused(deep.Bytes(), "found a PNG of 16 bits a channel, expected 8");
  DataOptions transposed;
  transposed.transpose = true;
  EXPECT_EQ(Parsed(GreyPng(2, 3, {1, 2, 3, 4, 5, 6}), {1, 3, 2}, transposed),
            (Bytes8{1, 4, 2, 5, 3, 6}));
}

TEST(Png, RefusesDamage) {
  const Bytes8 good = GreyPng(3, 4, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12});
  for (std::size_t size = 0; size < good.size(); ++size) {
    SCOPED_TRACE(size);
    const Bytes8 cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_THROW(ParseImages(cut, "f", 0, kAnyShape), ConfigError);
  }
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    SCOPED_TRACE(bit);
    Bytes8 flipped = good;
    flipped[bit / 8] ^= static_cast<std::uint8_t>(1U << bit % 8);
    EXPECT_THROW(ParseImages(flipped, "f", 0, kAnyShape), ConfigError);
  }
  const Bytes8 cut(good.begin(), good.end() - 20);
  ExpectRefused(cut, "damaged PNG: truncated, the data end in the middle");
  Bytes8 longer = good;
  longer.push_back(0);
  ExpectRefused(longer, "goes on after the end of the PNG");
  PngFile few{.width = 3, .height = 2, .rows = {0, 1, 2, 3}};
  ExpectRefused(few.Bytes(), "damaged PNG: Not enough image data");
}

TEST(Png, TakesNoMemoryForWhatIsNotThere) {
  const PngFile huge{.width = 0x7FFFFFFF, .height = 0x7FFFFFFF, .rows = {0}};
  ExpectRefused(huge.Bytes(), "found images of 1 x 2147483647 x 2147483647");
  const PngFile large{.width = 4096, .height = 4096, .color = 6, .rows = {0}};
  ExpectRefused(large.Bytes(), "found 4 x 4096 x 4096, expected 3 x 32 x 32", {3, 32, 32});
  // A text that unpacks to 64 MiB, of which libpng is allowed far less.
  Bytes8 text{'t', 0, 0};
  const Bytes8 packed = PngFile::Deflated(Bytes8(64 << 20, 'a'));
  text.insert(text.end(), packed.begin(), packed.end());
  Bytes8 chunk;
  PngFile::Chunk("zTXt", text, chunk);
  const PngFile small{.rows = {0, 9}};
  EXPECT_EQ(Parsed(small.Bytes(chunk), {1, 1, 1}), Bytes8{9});
  // Pixels that unpack to more than the picture has.
  const PngFile longer{.width = 1, .height = 1, .rows = Bytes8(16 << 20)};
  try {
    EXPECT_EQ(Parsed(longer.Bytes(), {1, 1, 1}), Bytes8{0});
  } catch (const ConfigError&) {
  }
}

TEST(Pnm, ReadsBytesAndTexts) {
  EXPECT_EQ(Parsed(Text("P5\n# by hand\n3 2 255\nabcdef"), {1, 2, 3}), Text("abcdef"));
  EXPECT_EQ(Parsed(Text("P6 2 1 255\nabcdef"), {3, 1, 2}), Text("adbecf"));
  EXPECT_EQ(Parsed(Text("P2\n2 2\n255\n0 1 # two\n254 255\n"), {1, 2, 2}),
            (Bytes8{0, 1, 254, 255}));
  EXPECT_EQ(Parsed(Text("P3 1 1 255 10 20 30"), {3, 1, 1}), (Bytes8{10, 20, 30}));
  EXPECT_EQ(Parsed(Text("P6 1 1 255\n\5\5\5"), {1, 1, 1}), Bytes8{5});
}

TEST(Pnm, RefusesWhatIsDamagedOrDoesNotFit) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"P4 8 1\n.", "found a picture of the kind P4, expected P5 (PGM), P6 (PPM)"},
      {"P7\nWIDTH 1\n", "found a picture of the kind P7"},
      {"P5", "is a text without"},
      {"P5 ", "truncated where its width is expected"},
      {"P5 x", "has no number where its width is expected"},
      {"P5 1 99999999999 255\n", "has no number where its height is expected"},
      {"P5 -1 1 255\n", "has no number where its width is expected"},
      {"P5 1 1 15\n1", "found a largest value of 15, expected 255"},
      {"P5 1 1 65535\n12", "found a largest value of 65535, expected 255"},
      {"P5 0 1 255\n", "found images of 1 x 1 x 0"},
      {"P5 4294967295 4294967295 255\n", "found images of 1 x 4294967295 x 4294967295"},
      {"P5 2 2 255\nabc", "truncated: found 3 bytes of pixels, expected 4"},
      {"P5 2 2 255\nabcde", "goes on after its 4 bytes of pixels"},
      {"P5 2 2 255", "truncated, or no blank after the largest value"},
      {"P2 2 1 255 1 256", "value 1 (counted from 0) is 256, expected 0 to 255"},
      {"P2 2 1 255 1", "truncated where its value is expected"},
      {"P2 2 1 255 1 2 3", "goes on after its 2 values"},
      {"P3 1 1 255 1 2 3", "found a colour picture, expected a grey one"}};
  for (const auto& [text, message] : cases) {
    SCOPED_TRACE(text);
    const bool grey = text.starts_with("P3");
    if (text == "P5") {
      EXPECT_THROW(ParseImages(Text(text), "f", 0, kAnyShape), ConfigError);
    } else {
      ExpectRefused(Text(text), message, grey ? mpc::Shape3{1, 1, 1} : kAnyShape);
    }
  }
  EXPECT_NO_THROW(ParseImages(Text("P2 1 1 255 1"), "f", 0, {1, 1, 1}));
  ExpectConfigError([] { ParseLabels(Text("P2 1 1 255 1"), "f", 0, 10); }, "f",
                    "is a picture, expected labels");
}

class Folders : public testing::Test {
 protected:
  std::string Path(const std::string& name = "") const {
    return name.empty() ? scratch_.Path().string() : (scratch_.Path() / name).string();
  }
  void Put(const std::string& name, std::uint8_t pixel) const {
    std::filesystem::create_directories((scratch_.Path() / name).parent_path());
    scratch_.Write(name, GreyPng(1, 2, {pixel, 9}));
  }

  static constexpr mpc::Shape3 kShape{1, 1, 2};
  ScratchDirectory scratch_;
};

TEST_F(Folders, GiveTheirPicturesByName) {
  Put("b.png", 2);
  Put("a.png", 1);
  scratch_.Write("c.pgm", Text("P5 2 1 255\n\3\t"));
  scratch_.Write(".hidden", Text("x"));
  scratch_.Write("labels.csv", Text("file,label\na.png,7\nc.pgm,5\nb.png,6\nother.png,1\n"));
  EXPECT_EQ(LoadImages(Path(), 0, kShape).pixels, (Bytes8{1, 9, 2, 9, 3, 9}));
  EXPECT_EQ(LoadImages(Path(), 2, kShape).pixels, (Bytes8{1, 9, 2, 9}));
  EXPECT_TRUE(LoadLabelledImages(Path(), "", 0, kShape, 10).labels.empty());
  EXPECT_EQ(LoadLabelledImages(Path(), Path("labels.csv"), 0, kShape, 10).labels,
            (Bytes8{7, 6, 5}));
  EXPECT_EQ(LoadLabelledImages(Path(), Path("labels.csv"), 1, kShape, 10).labels, Bytes8{7});
  EXPECT_EQ(LoadLabelledImages(Path("b.png"), Path("labels.csv"), 0, kShape, 10).labels, Bytes8{6});
  const auto some = LoadLabelledImages(Path() + "@test:0.67:3", Path("labels.csv"), 0, kShape, 10);
  ASSERT_EQ(some.labels.size(), 2U);
  for (std::size_t i = 0; i < 2; ++i) EXPECT_EQ(some.labels[i], 8 - some.images.pixels[2 * i]);
  // In the order of names too.
  const std::string plain = scratch_.Write("plain.csv", Text("1\n2\n3\n")).string();
  EXPECT_EQ(LoadLabelledImages(Path(), plain, 2, kShape, 10).labels, (Bytes8{1, 2}));
}

TEST_F(Folders, AreClassesWhereTheyHoldFolders) {
  Put("dog/1.png", 5);
  Put("cat/2.png", 4);
  Put("cat/1.png", 3);
  const LabelledImages all = LoadLabelledImages(Path(), "", 0, kShape, 2);
  EXPECT_EQ(all.images.pixels, (Bytes8{3, 9, 4, 9, 5, 9}));
  EXPECT_EQ(all.labels, (Bytes8{0, 0, 1}));
  EXPECT_EQ(LoadLabels(Path(), 0, 2), all.labels);
  EXPECT_EQ(LoadLabelledImages(Path(), Path(), 2, kShape, 2).labels, (Bytes8{0, 0}));
  ExpectConfigError([&] { LoadLabelledImages(Path(), "", 0, kShape, 3); }, Path(),
                    "has 2 folders (cat to dog), expected 3, one for each class");
  EXPECT_EQ(LoadImages(Path(), 0, kShape).count, 3U);
  const std::string table =
      scratch_.Write("l.csv", Text("cat/1.png,1\ncat/2.png,0\ndog/1.png,1\n")).string();
  EXPECT_EQ(LoadLabelledImages(Path(), table, 0, kShape, 2).labels, (Bytes8{1, 0, 1}));
}

TEST_F(Folders, RefuseWhatIsAmbiguous) {
  ExpectConfigError([&] { LoadImages(Path(), 0, kShape); }, Path(),
                    "is a folder without a file, expected pictures");
  Put("a.png", 1);
  ExpectConfigError([&] { LoadLabels(Path(), 0, 2); }, Path(), "has no folder for each class");
  scratch_.Write("photo.jpg", Text("\xFF\xD8\xFF\xE0 and so on"));
  ExpectConfigError([&] { LoadImages(Path(), 0, kShape); }, Path("photo.jpg"),
                    "is a JPEG picture; convert it to PNG");
  scratch_.Write("photo.jpg", Text("1,2\n"));
  ExpectConfigError([&] { LoadImages(Path(), 0, kShape); }, Path("photo.jpg"), "is no picture");
  std::filesystem::remove(Path("photo.jpg"));
  scratch_.Write("b.png", GreyPng(2, 1, {1, 2}));
  ExpectConfigError([&] { LoadImages(Path(), 0, kAnyShape); }, Path("b.png"),
                    "found 1 x 2 x 1, expected 1 x 1 x 2 as in");
  const std::string few = scratch_.Write("l.csv", Text("a.png,1\n")).string();
  Put("b.png", 2);
  ExpectConfigError([&] { LoadLabelledImages(Path(), few, 0, kShape, 2); }, few,
                    "has no row for the picture b.png (its first row is for a.png)");
  const std::string twice = scratch_.Write("t.csv", Text("a.png,1\nb.png,1\na.png,0\n")).string();
  ExpectConfigError([&] { LoadLabelledImages(Path(), twice, 0, kShape, 2); }, twice,
                    "has two rows for a.png");
  ExpectConfigError([&] { LoadLabels(few, 0, 2); }, few, "names pictures");
  const std::string other = scratch_.Write("i.csv", Text("1,2\n")).string();
  ExpectConfigError([&] { LoadLabelledImages(other, few, 0, kShape, 2); }, few, "names files");
  Put("c/1.png", 2);
  ExpectConfigError([&] { LoadImages(Path(), 0, kShape); }, Path(), "has both files and folders");
  const std::string nested = Path("c");
  std::filesystem::create_directories(nested + "/d");
  Put("c/d/e/1.png", 2);
  std::filesystem::remove(nested + "/1.png");
  ExpectConfigError([&] { LoadImages(nested, 0, kShape); }, nested + "/d", "has folders in it");
}

}  // namespace
}  // namespace tercet::files
