// SPDX-License-Identifier: Apache-2.0
#include "tercet/files/images.h"

#include <lzma.h>
#include <sys/resource.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>
#include <set>

#include "base/sanitizers.h"
#include "base/scratch.h"
#include "files/byte_reader.h"
#include "files/idx.h"
#include "files/npy.h"

namespace tercet::files {
namespace {

using Bytes8 = std::vector<std::uint8_t>;

Bytes8 Gzip(const Bytes8& bytes) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  Bytes8 packed(deflateBound(&stream, bytes.size()));
  stream.next_in = const_cast<std::uint8_t*>(bytes.data());
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = packed.data();
  stream.avail_out = static_cast<uInt>(packed.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  packed.resize(stream.total_out);
  deflateEnd(&stream);
  return packed;
}

Bytes8 Xz(const Bytes8& bytes) {
  Bytes8 packed(lzma_stream_buffer_bound(bytes.size()));
  std::size_t size = 0;
  EXPECT_EQ(lzma_easy_buffer_encode(6, LZMA_CHECK_CRC64, nullptr, bytes.data(), bytes.size(),
                                    packed.data(), &size, packed.size()),
            LZMA_OK);
  packed.resize(size);
  return packed;
}

Bytes8 Counting(std::size_t size) {
  Bytes8 bytes(size);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
  return bytes;
}

Bytes8 Prefix(const Bytes8& bytes, std::size_t size) {
  return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)};
}

constexpr std::uint32_t kImagesMagic = 0x803, kLabelsMagic = 0x801;
const mpc::Shape3 kAnyShape{};

TEST(Images, ReadsIdxPlainAndPacked) {
  const Bytes8 idx = Idx({kImagesMagic, 3, 2, 5}, Counting(30));
  for (const Bytes8& bytes : {idx, Gzip(idx), Xz(idx)}) {
    const Images all = ParseImages(bytes, "f", 0, {1, 2, 5});
    EXPECT_EQ(all.shape, (mpc::Shape3{1, 2, 5}));
    EXPECT_EQ(all.count, 3U);
    EXPECT_EQ(all.pixels, Counting(30));
    const Images some = ParseImages(bytes, "f", 2, kAnyShape);
    EXPECT_EQ(some.count, 2U);
    EXPECT_EQ(some.pixels, Counting(20));
    EXPECT_EQ(ParseImages(bytes, "f", 7, kAnyShape).count, 3U);
  }
}

TEST(Images, ReadsNpy) {
  const std::string flat = "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3, 4), }   ";
  EXPECT_EQ(ParseImages(Npy(flat, Counting(24)), "f", 0, {1, 3, 4}).pixels, Counting(24));
  EXPECT_EQ(ParseImages(Npy(flat, Counting(24), 2), "f", 0, {1, 3, 4}).pixels, Counting(24));
  EXPECT_EQ(ParseImages(Gzip(Npy(flat, Counting(24))), "f", 1, {1, 3, 4}).pixels, Counting(12));
  // Any order of keys, any quotes, no comma at the end.
  const Images color =
      ParseImages(Npy(R"({"shape":(2,3,1,2),"fortran_order":False,"descr":"|u1"})", Counting(12)),
                  "f", 0, kAnyShape);
  EXPECT_EQ(color.shape, (mpc::Shape3{3, 1, 2}));
  EXPECT_EQ(color.count, 2U);
  EXPECT_EQ(color.pixels, Counting(12));
}

TEST(Images, ReadsLabels) {
  const Bytes8 idx = Idx({kLabelsMagic, 4}, {0, 9, 3, 3});
  for (const Bytes8& bytes : {idx, Gzip(idx)}) {
    EXPECT_EQ(ParseLabels(bytes, "f", 0, 10), (Bytes8{0, 9, 3, 3}));
    EXPECT_EQ(ParseLabels(bytes, "f", 2, 10), (Bytes8{0, 9}));
  }
  EXPECT_EQ(ParseLabels(Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }", {1, 2, 3}),
                        "f", 0, 4),
            (Bytes8{1, 2, 3}));
  EXPECT_EQ(ParseLabels(Npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }",
                            {255, 0, 0, 0, 7, 0, 0, 0}),
                        "f", 0, 1000),
            (Bytes8{255, 7}));
  EXPECT_EQ(ParseLabels(Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }",
                            {5, 0, 0, 0, 0, 0, 0, 0}),
                        "f", 0, 6),
            (Bytes8{5}));
}

TEST(Images, LoadsFilesAndNamesThem) {
  const ScratchDirectory scratch;
  const auto images = scratch.Write("images.gz", Gzip(Idx({kImagesMagic, 1, 1, 2}, {8, 9})));
  EXPECT_EQ(LoadImages(images, 0, {1, 1, 2}).pixels, (Bytes8{8, 9}));
  const auto labels = scratch.Write("labels", Idx({kLabelsMagic, 1}, {4}));
  EXPECT_EQ(LoadLabels(labels, 0, 5), (Bytes8{4}));

  const std::string missing = (scratch.Path() / "none").string();
  ExpectConfigError([&] { LoadImages(missing, 0, kAnyShape); }, missing, "No such file");
  ExpectConfigError([&] { LoadLabels(missing, 0, 5); }, missing, "No such file");
  ExpectConfigError([&] { LoadImages("/dev/null", 0, kAnyShape); }, "/dev/null",
                    "is no regular file");
  const std::string empty = scratch.Write("empty", Bytes8{}).string();
  ExpectConfigError([&] { LoadImages(empty, 0, kAnyShape); }, empty, "is empty and holds no image");
  ExpectConfigError([&] { LoadLabels(empty, 0, 5); }, empty, "is empty and holds no label");
}

TEST(Images, RefusesBadImages) {
  const auto npy = [](const std::string& shape, std::size_t size) {
    return Npy("{'descr': '|u1', 'fortran_order': False, 'shape': " + shape + ", }",
               Counting(size));
  };
  const Bytes8 good = Idx({kImagesMagic, 3, 2, 2}, Counting(12));
  const Bytes8 packed = Gzip(good);
  Bytes8 damaged = packed;
  damaged[damaged.size() - 6] ^= 1;  // its checksum
  Bytes8 no_deflate = packed;
  no_deflate[10] = 0xFF;
  Bytes8 trailing = packed;
  trailing.push_back(0);
  Bytes8 longer = good;
  longer.push_back(0);

  struct Case {
    Bytes8 bytes;
    std::string message;
    mpc::Shape3 expected = {};
    std::size_t limit = 0;
  };
  const std::vector<Case> cases = {
      {Idx({kImagesMagic, 0, 28, 28}, {}), "holds no image"},
      {npy("(0, 28, 28)", 0), "holds no image"},
      {Gzip({}), "is empty once unpacked and holds no image"},
      {{0, 0, 8}, "truncated: found 3 bytes, expected a magic of 4"},
      {Prefix(good, 9), "truncated: found 5 bytes of the IDX header, expected 12"},
      {Prefix(good, 27), "truncated: found 11 bytes of images, expected 3 times 4"},
      {Prefix(good, 27), "truncated: found 11 bytes of images, expected 3 times 4", {}, 1},
      {Idx({kImagesMagic, 3, 2, 2}, {}), "truncated: found 0 bytes of images, expected 3 times 4"},
      {Gzip(Prefix(good, 27)), "truncated: found 11 bytes of images, expected 12"},
      {Prefix(packed, 5), "truncated: the gzip data end in the middle"},
      {Prefix(packed, packed.size() - 1), "truncated: the gzip data end in the middle"},
      {damaged, "damaged gzip data: incorrect data check"},
      {no_deflate, "damaged gzip data: invalid block type"},
      {trailing, "goes on after the end of its gzip data"},
      {longer, "goes on after its 3 images, expected the end of the file"},
      {longer, "goes on after its 3 images", {}, 2},
      {Gzip(longer), "goes on after its 3 images"},
      {Idx({0x00000D03, 1, 1, 1}, {0}),
       "found magic 0x00000d03, expected an IDX file of images (0x00000803)"},
      {Idx({kLabelsMagic, 1}, {0}),
       "found magic 0x00000801 (labels), expected an IDX file of images"},
      {Idx({kImagesMagic, 1, 0, 5}, {}), "found images of 1 x 0 x 5, expected 1 to 65536 channels"},
      {Idx({kImagesMagic, 1, 4097, 5}, {}), "found images of 1 x 4097 x 5"},
      {Idx({kImagesMagic, ~0U, ~0U, ~0U}, {}), "found images of 1 x 4294967295 x 4294967295"},
      {Idx({kImagesMagic, ~0U, 4096, 4096}, {}), "need a limit"},
      {good, "images of the wrong size: found 1 x 2 x 2, expected 3 x 2 x 2", {3, 2, 2}},
      {npy("(1, 3, 2, 2)", 12), "found 3 x 2 x 2, expected 1 x 28 x 28", {1, 28, 28}},
      {npy("(1, 128, 4096, 4096)", 0), "less than 2147483648 bytes"},
      {npy("(3, 2, 2)", 11), "truncated: found 11 bytes of images, expected 3 times 4"},
      {npy("(2,)", 2), "found a .npy array of 1 dimensions (2), expected 2"},
      {npy("(2, 2)", 4), "found 2 features, expected 12 (3 x 2 x 2)", {3, 2, 2}},
      {npy("(1, 1, 1, 1, 1)", 1), "found a .npy array of 5 dimensions"},
      {npy("(1, 18446744073709551616, 1)", 1), "where a size is expected"},
      {npy("(1, -1, 1)", 1), "has '-1, 1), }?' where a size is expected"},
      {npy("[1, 1, 1]", 1), "has '[1, 1, 1], }?' where '(' is expected"},
      {Npy("{'descr': '<c8', 'fortran_order': False, 'shape': (1, 1, 1)}", {0, 0, 0, 0}),
       "found .npy elements of type '<c8', expected whole numbers"},
      {Npy("{'descr': '|u1', 'fortran_order': 0, 'shape': (1, 1, 1)}", {0}),
       "where True or False is expected"},
      {Npy("{'descr': '|u1', 'shape': (1, 1, 1)}", {0}),
       "lacks a key, expected descr, fortran_order and shape"},
      {Npy("{'descr': '|u1', 'descr': '|u1', 'shape': (1, 1, 1)}", {0}), "found the key 'descr'"},
      {Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1), 'x': 1}", {0}),
       "found the key 'x'"},
      {Npy("{'descr': |u1}", {0}), "has '|u1}?' where a string is expected"},
      {Npy("{'descr", {0}), "where a string is expected"},
      {Npy("", {0}), "has '' where '{' is expected"},
      {Npy("{'descr': '|u1', 'fortran_order': False, 'shape': (1, 1, 1)} x", {0}),
       "goes on after its dictionary"},
      {Npy("{}", {}, 3), "found .npy version 3.0, expected 1.0 or 2.0"},
      {Npy("{}", {}, 1, 1), "found .npy version 1.1"},
      {{0x93, 'N', 'U', 'M', 'P', 'X', 1, 0}, "begins like a .npy file, but has another magic"},
      {{0x93, 'N', 'U', 'M', 'P', 'Y', 1}, "truncated: found 3 bytes of the .npy magic"},
      {{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 9},
       "truncated: found 1 bytes of the .npy header's length"},
      {{0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 9, 0, '{'},
       "truncated: found 1 bytes of the .npy header, expected 9"},
      {{0x93, 'N', 'U', 'M', 'P', 'Y', 2, 0, 1, 0, 1, 0}, "the .npy header is 65537 bytes long"},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectConfigError([&] { ParseImages(cases[i].bytes, "f", cases[i].limit, cases[i].expected); },
                      "f", cases[i].message);
  }
}

TEST(Images, RefusesBadLabels) {
  const auto npy = [](const std::string& type, const std::string& shape, const Bytes8& data) {
    return Npy("{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + "}", data);
  };
  struct Case {
    Bytes8 bytes;
    std::string message;
    std::size_t classes = 10;
  };
  const std::vector<Case> cases = {
      {Idx({kLabelsMagic, 0}, {}), "holds no label"},
      {Idx({kLabelsMagic, 3}, {0, 1}), "truncated: found 2 bytes of labels, expected 3 times 1"},
      {Idx({kLabelsMagic, 1}, {0, 1}), "goes on after its 1 labels"},
      {Idx({kLabelsMagic}, {0}), "truncated: found 1 bytes of the IDX header, expected 4"},
      {Idx({kImagesMagic, 1, 1, 1}, {0}),
       "found magic 0x00000803 (images), expected an IDX file of labels (0x00000801)"},
      {Idx({kLabelsMagic, 2}, {9, 10}),
       "the label of item 1 (counted from 0) is 10, expected 0 to 9"},
      {npy("<f4", "(1,)", {0, 0, 0, 0}), "found .npy elements of type '<f4'"},
      {npy("|u1", "(1, 1)", {0}), "found a .npy array of 2 dimensions (1 x 1), expected 1"},
      {npy("|u1", "()", {0}), "found a .npy array of 0 dimensions"},
      {npy("<i4", "(1,)", {0xFF, 0xFF, 0xFF, 0xFF}),
       "the label of item 0 (counted from 0) is -1, expected 0 to 9"},
      {npy("<i4", "(1,)", {0, 1, 0, 0}), "item 0 (counted from 0) is 256, expected 0 to 255", 1000},
      {npy("<i8", "(1,)", {0, 0, 0, 0, 1, 0, 0, 0}),
       "item 0 (counted from 0) is 4294967296, expected 0 to 255", 1000},
      {npy("<i8", "(1,)", {0, 0, 0, 0, 1, 0, 0}),
       "truncated: found 7 bytes of labels, expected 1 times 8"},
      {npy("<i8", "(18446744073709551615,)", {}), "need a limit"},
  };
  for (std::size_t i = 0; i < cases.size(); ++i) {
    SCOPED_TRACE(i);
    ExpectConfigError([&] { ParseLabels(cases[i].bytes, "f", 0, cases[i].classes); }, "f",
                      cases[i].message);
  }
  EXPECT_THROW(ParseLabels(Idx({kLabelsMagic, 1}, {0}), "f", 0, 0), InternalError);
}

TEST(Images, UnpacksNoMoreThanAskedFor) {
  // 64 MiB of zeros behind a header that announces one small image.
  Bytes8 bomb = Idx({kImagesMagic, 1, 1, 1}, Bytes8(64 << 20));
  ExpectConfigError([&] { ParseImages(Gzip(bomb), "f", 0, kAnyShape); }, "f",
                    "goes on after its 1 images");
  // Damage behind the wanted images is not reached.
  Bytes8 packed = Gzip(Idx({kImagesMagic, 1 << 20, 8, 8}, Bytes8(64 << 20)));
  packed.resize(packed.size() / 2);
  EXPECT_EQ(ParseImages(packed, "f", 2, kAnyShape).pixels, Bytes8(128));
}

Bytes8 Joined(Bytes8 first, const Bytes8& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// As `cat a.gz b.gz`, pigz and xz -T make them.
TEST(Images, ReadsPackedFilesOfSeveralParts) {
  const Bytes8 whole = Idx({kImagesMagic, 3, 2, 5}, Counting(30));
  const Bytes8 begin = Prefix(whole, 21), end(whole.begin() + 21, whole.end());
  for (const auto pack : {Gzip, Xz}) {
    const Bytes8 parts = Joined(Joined(pack(begin), pack({})), pack(end));
    EXPECT_EQ(ParseImages(parts, "f", 0, kAnyShape).pixels, Counting(30));
    EXPECT_EQ(ParseImages(parts, "f", 2, kAnyShape).pixels, Counting(20));
    ExpectConfigError([&] { ParseImages(Prefix(parts, parts.size() - 1), "f", 0, kAnyShape); }, "f",
                      "data end in the middle");
    ExpectConfigError(
        [&] {
          ParseImages(Joined(parts, {0, 0}), "f", 0, kAnyShape);
        },
        "f", "goes on after the end of its");
    ExpectConfigError([&] { ParseImages(Joined(parts, pack({1})), "f", 0, kAnyShape); }, "f",
                      "goes on after its 3 images");
  }
}

TEST(Images, UnpacksNoMoreThanALimit) {
  for (const Bytes8& packed : {Gzip(Bytes8(200'000)), Xz(Bytes8(200'000))}) {
    const ByteSource source{"f", packed.size(), [&](std::uint64_t at, std::uint64_t count) {
                              const auto begin = packed.begin() + static_cast<std::ptrdiff_t>(at);
                              return Bytes8(begin, begin + static_cast<std::ptrdiff_t>(count));
                            }};
    EXPECT_EQ(ByteReader(source, 200'000).Read(200'001).size(), 200'000U);
    ByteReader reader(source, 199'999);
    EXPECT_EQ(reader.Read(1000).size(), 1000U);
    ExpectConfigError([&] { reader.Read(199'000); }, "f",
                      "unpacks to more than 199999 bytes, expected at most so many");
  }
}

// Some kilobytes that unpack to 384 MiB of zeros, which could be anything that has no header.
TEST(Images, OfABombNoMoreIsUnpackedThanItCouldBe) {
  const ScratchDirectory scratch;
  const Bytes8 megabytes = Bytes8(24 << 20);
  for (const auto& [end, pack] : {std::pair(".gz", &Gzip), std::pair(".xz", &Xz)}) {
    const Bytes8 part = pack(megabytes);
    Bytes8 bomb;
    for (int i = 0; i < 16; ++i) bomb.insert(bomb.end(), part.begin(), part.end());
    const auto pixels = scratch.Write(std::string("bomb.u8") + end, bomb);
    const auto cifar = scratch.Write(std::string("bomb.bin") + end, bomb);
    const auto two = scratch.Write(std::string("two.u8") + end, pack({1, 2}));
    const std::string many = "unpacks to more than 268435456 bytes", few = "more than 16777216";
    ExpectConfigError([&] { LoadImages(pixels, 0, {1, 1, 1}); }, pixels.string(), many);
    ExpectConfigError([&] { LoadImages(cifar, 0, {}); }, cifar.string(), many);
    ExpectConfigError([&] { LoadLabels(pixels, 0, 10); }, pixels.string(), few);
    ExpectConfigError([&] { LoadLabels(cifar, 0, 10); }, cifar.string(), many);
    // Where the images are known, so is how many labels there are.
    ExpectConfigError(
        [&] {
          LoadLabelledImages(two, pixels, 0, {1, 1, 1}, 10);
        },
        pixels.string(), "at least 3 labels found, 2 expected");
    EXPECT_EQ(LoadImages(pixels, 2, {1, 1, 1}).pixels, Bytes8(2));
  }
  // A header that promises more than may be unpacked is refused at once: nothing follows it here.
  ExpectConfigError(
      [&] {
        ParseImages(Gzip(Idx({kImagesMagic, 1 << 20, 28, 28}, {})), "f", 0, kAnyShape);
      },
      "f", "unpacks to more than 268435456 bytes");
  ExpectConfigError(
      [&] {
        ParseLabels(Xz(Idx({kLabelsMagic, 1 << 30}, {})), "f", 0, 10);
      },
      "f", "unpacks to more than 16777216 bytes");
}

#if !TERCET_ADDRESS_SANITIZER && !TERCET_THREAD_SANITIZER

constexpr std::size_t kRoom = 32 << 20;  // beside what the test has; `xz -6` takes 9 MiB to unpack

// Ends the process with 0 when `read` needs no more address space than the room, and no error.
void ExitInLittleRoom(const std::function<void()>& read) {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t most = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + kRoom;
  const rlimit space{most, most};
  ::setrlimit(RLIMIT_AS, &space);
  try {
    read();
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    std::_Exit(1);
  }
  std::_Exit(0);
}

// A file that begins so and is `size` bytes long, of which the rest takes no place.
std::filesystem::path Sparse(const ScratchDirectory& scratch, const std::string& name,
                             const Bytes8& begin, std::uint64_t size) {
  auto file = scratch.Write(name, begin);
  std::filesystem::resize_file(file, size);
  return file;
}

// Of files of 3 GB, and of packed ones of more than may be unpacked, in 32 MiB.
TEST(ImagesDeathTest, ReadNoMoreThanALimitAsksFor) {
  constexpr std::uint32_t kImages = 4'000'000, kLabels = 3'000'000'000;
  const ScratchDirectory scratch;
  const auto npy = [](const std::string& type, const std::string& shape) {
    return Npy("{'descr': '" + type + "', 'fortran_order': False, 'shape': " + shape + "}", {});
  };
  const auto whole = [&](const std::string& name, const Bytes8& begin, std::uint64_t rest) {
    return Sparse(scratch, name, begin, begin.size() + rest);
  };
  const Bytes8 part(24 << 20), idx = Idx({kImagesMagic, 16 << 20, 4, 4}, {});
  const auto packed = [&](const std::string& name, Bytes8 (*pack)(const Bytes8&),
                          const Bytes8& begin) {
    Bytes8 bytes = pack(begin);
    const Bytes8 more = pack(part);
    for (int i = 0; i < 12; ++i) bytes = Joined(bytes, more);
    return scratch.Write(name, bytes);
  };
  const std::vector<std::pair<std::filesystem::path, mpc::Shape3>> images{
      {whole("idx", Idx({kImagesMagic, kImages, 28, 28}, {}), kImages * 784ULL), {1, 28, 28}},
      {whole("npy", npy("|u1", "(4000000, 1, 28, 28)"), kImages * 784ULL), {1, 28, 28}},
      {whole("i.u8", {}, kImages * 784ULL), {1, 28, 28}},
      {whole("i.bin", {}, 1'000'000 * 3073ULL), {3, 32, 32}},
      {packed("idx.gz", Gzip, idx), {1, 4, 4}},
      {packed("idx.xz", Xz, idx), {1, 4, 4}},
      {packed("i.u8.gz", Gzip, {}), {1, 28, 28}},
      {packed("i.u8.xz", Xz, {}), {1, 28, 28}},
      {packed("i.bin.gz", Gzip, {}), {3, 32, 32}},
      {packed("i.bin.xz", Xz, {}), {3, 32, 32}}};
  for (const auto& [file, shape] : images) {
    SCOPED_TRACE(file);
    EXPECT_EXIT(ExitInLittleRoom([&, &file = file, &shape = shape] {
                  TERCET_CHECK(LoadImages(file, 10, shape).count == 10, "another count");
                }),
                testing::ExitedWithCode(0), "");
  }
  const std::vector<std::filesystem::path> labels{
      whole("labels", Idx({kLabelsMagic, kLabels}, {}), kLabels),
      whole("npy_u1", npy("|u1", "(3000000000,)"), kLabels),
      whole("npy_i4", npy("<i4", "(750000000,)"), kLabels),
      whole("npy_i8", npy("<i8", "(375000000,)"), kLabels),
      whole("l.u8", {}, kLabels),
      scratch.Path() / "i.bin",
      packed("labels.gz", Gzip, Idx({kLabelsMagic, 1 << 30}, {})),
      packed("l.u8.xz", Xz, {}),
      scratch.Path() / "i.bin.gz"};
  for (const auto& file : labels) {
    SCOPED_TRACE(file);
    EXPECT_EXIT(ExitInLittleRoom(
                    [&] { TERCET_CHECK(LoadLabels(file, 10, 10).size() == 10, "another count"); }),
                testing::ExitedWithCode(0), "");
  }
  EXPECT_EXIT(ExitInLittleRoom([&] {
                const auto both = LoadLabelledImages(scratch.Path() / "i.bin", "", 10, {}, 10);
                TERCET_CHECK(both.images.count == 10 && both.labels.size() == 10, "other counts");
              }),
              testing::ExitedWithCode(0), "");
}

// Nor does a file without a limit, where it turns out not to hold what is expected.
TEST(ImagesDeathTest, TakeNoMemoryForWhatIsNotThere) {
  const ScratchDirectory scratch;
  const Bytes8 idx = Idx({kImagesMagic, 15 << 20, 4, 4}, {});  // 240 MiB
  Bytes8 bomb;
  const Bytes8 part = Gzip(Bytes8(24 << 20));
  for (int i = 0; i < 12; ++i) bomb = Joined(bomb, part);
  struct Case {
    std::filesystem::path file;
    mpc::Shape3 shape;
    std::string message;
  };
  const mpc::Shape3 small{1, 4, 4}, cifar{3, 32, 32};
  for (const auto& c :
       {Case{Sparse(scratch, "idx", Idx({kImagesMagic, 200'000'000, 4, 4}, {}), 3'000'000'000),
             small, "truncated: found 2999999984 bytes of images, expected 200000000 times 16"},
        Case{Sparse(scratch, "long", Idx({kImagesMagic, 1, 4, 4}, {}), 3'000'000'000), small,
             "goes on after its 1 images"},
        Case{Sparse(scratch, "odd.bin", {}, 3'000'000'000), cifar, "expected a multiple of 3073"},
        Case{scratch.Write("idx.gz", Gzip(Joined(idx, Bytes8(100)))), small,
             "truncated: found 100 bytes of images, expected 251658240"},
        Case{scratch.Write("idx.xz", Xz(Joined(idx, Bytes8(100)))), small,
             "truncated: found 100 bytes of images, expected 251658240"},
        Case{scratch.Write("bomb.u8.gz", bomb), small, "unpacks to more than 268435456 bytes"},
        Case{scratch.Write("bomb.bin.gz", bomb), cifar, "unpacks to more than 268435456 bytes"}}) {
    SCOPED_TRACE(c.file);
    EXPECT_EXIT(ExitInLittleRoom([&] { LoadImages(c.file, 0, c.shape); }),
                testing::ExitedWithCode(1), c.message);
  }
}

#endif

TEST(Images, RefusesBadXz) {
  const Bytes8 packed = Xz(Idx({kImagesMagic, 3, 2, 2}, Counting(12)));
  Bytes8 damaged = packed;
  damaged[damaged.size() / 2] ^= 1;
  Bytes8 trailing = packed;
  trailing.push_back(0);
  const std::vector<std::pair<Bytes8, std::string>> cases = {
      {damaged, "damaged xz data"},
      {trailing, "goes on after the end of its xz data"},
      {Prefix(packed, 8), "truncated: the xz data end in the middle"},
      {Prefix(packed, packed.size() - 1), "truncated: the xz data end in the middle"},
      {Xz({}), "is empty once unpacked and holds no image"}};
  for (const auto& [bytes, message] : cases)
    ExpectConfigError([&bytes = bytes] { ParseImages(bytes, "f", 0, kAnyShape); }, "f", message);
}

constexpr std::size_t kCifarPixels = 3072;

// Records whose pixels are all ten times the label.
Bytes8 Cifar(const Bytes8& labels) {
  Bytes8 bytes;
  for (const std::uint8_t label : labels) {
    bytes.push_back(label);
    bytes.insert(bytes.end(), kCifarPixels, static_cast<std::uint8_t>(10 * label));
  }
  return bytes;
}

TEST(Images, ReadsCifarRecords) {
  const Bytes8 bytes = Cifar({3, 9, 0});
  for (const auto& [packed, name] : std::vector<std::pair<Bytes8, std::string>>{
           {bytes, "a.bin"}, {Gzip(bytes), "a.bin.gz"}, {Xz(bytes), "a.bin.xz"}}) {
    const Images images = ParseImages(packed, name, 0, {3, 32, 32});
    EXPECT_EQ(images.shape, (mpc::Shape3{3, 32, 32}));
    EXPECT_EQ(images.count, 3U);
    EXPECT_EQ(images.pixels.at(0), 30);
    EXPECT_EQ(images.pixels.at(2 * kCifarPixels - 1), 90);
    EXPECT_EQ(images.pixels.back(), 0);
    EXPECT_EQ(ParseImages(packed, name, 2, kAnyShape).count, 2U);
    EXPECT_EQ(ParseLabels(packed, name, 0, 10), (Bytes8{3, 9, 0}));
    EXPECT_EQ(ParseLabels(packed, name, 1, 10), (Bytes8{3}));
    const auto labels = [&packed = packed, &name = name] { ParseLabels(packed, name, 0, 9); };
    ExpectConfigError(labels, name, "the label of item 1 (counted from 0) is 9, expected 0 to 8");
    const auto pixels = [&packed = packed, &name = name] {
      ParseImages(packed, name, 0, {1, 28, 28});
    };
    ExpectConfigError(pixels, name, "found 3 x 32 x 32, expected 1 x 28 x 28");
  }
  const Bytes8 cut = Prefix(bytes, bytes.size() - 1);
  for (const Bytes8& file : {cut, Xz(cut)}) {
    ExpectConfigError([&] { ParseImages(file, "a.bin", 0, kAnyShape); }, "a.bin",
                      "truncated: found 9218 bytes of records of a label and 3 x 32 x 32 pixels, "
                      "expected a multiple of 3073");
  }
  ExpectConfigError([&] { ParseImages(cut, "a.bin", 1, kAnyShape); }, "a.bin", "truncated");
  ExpectConfigError([&] { ParseImages(Xz({}), "a.bin", 0, kAnyShape); }, "a.bin", "holds no image");
}

TEST(Images, ReadsBytesWithoutAHeader) {
  const Bytes8 bytes = Counting(12);
  const Images images = ParseImages(Gzip(bytes), "beats.u8.gz", 0, {1, 1, 4});
  EXPECT_EQ(images.count, 3U);
  EXPECT_EQ(images.pixels, bytes);
  EXPECT_EQ(ParseImages(bytes, "beats.u8", 2, {1, 1, 4}).pixels, Prefix(bytes, 8));
  EXPECT_EQ(ParseLabels(Counting(5), "labels.u8", 0, 5), Counting(5));
  ExpectConfigError(
      [&] {
        ParseImages(bytes, "beats.u8", 0, {1, 1, 5});
      },
      "beats.u8", "truncated: found 12 bytes of 1 x 1 x 5 images, expected a multiple of 5");
  ExpectConfigError([&] { ParseImages(bytes, "beats.u8", 0, kAnyShape); }, "beats.u8",
                    "only a network's input shape explains");
  ExpectConfigError([&] { ParseLabels(Counting(5), "labels.u8", 0, 4); }, "labels.u8",
                    "the label of item 4 (counted from 0) is 4, expected 0 to 3");
  ExpectConfigError([&] { ParseLabels(Xz({}), "labels.u8", 0, 4); }, "labels.u8", "holds no label");
}

TEST(Images, PutsFilesTogether) {
  const ScratchDirectory scratch;
  const std::string first = scratch.Write("1.bin", Cifar({1, 2})).string();
  const std::string second = scratch.Write("2.bin.xz", Xz(Cifar({3}))).string();
  const std::string both = first + "," + second;
  const LabelledImages all = LoadLabelledImages(both, "", 0, {3, 32, 32}, 10);
  EXPECT_EQ(all.images.count, 3U);
  EXPECT_EQ(all.images.pixels.size(), 3 * kCifarPixels);
  EXPECT_EQ(all.images.pixels.back(), 30);
  EXPECT_EQ(all.labels, (Bytes8{1, 2, 3}));
  EXPECT_EQ(LoadLabels(both, 0, 10), all.labels);
  EXPECT_EQ(LoadLabelledImages(both, both, 0, {3, 32, 32}, 10).labels, all.labels);
  // Of a file beyond the limit only the count is wanted, but it must be there.
  EXPECT_EQ(LoadImages(both, 2, kAnyShape).count, 2U);
  ExpectConfigError([&] { LoadImages(first + ",none.bin", 2, kAnyShape); }, "none.bin",
                    "No such file");
  ExpectConfigError([&] { LoadLabelledImages(both, first, 0, kAnyShape, 10); }, first,
                    "2 labels found, 3 expected, one for each image of " + both);
  // A limit does not hide it where the files say how many they have.
  const std::string many = scratch.Write("many.u8", Bytes8(7)).string();
  ExpectConfigError([&] { LoadLabelledImages(first, many, 1, kAnyShape, 10); }, many,
                    "7 labels found, 2 expected, one for each image of " + first);
  ExpectConfigError([&] { LoadLabelledImages(first + "@test:0.5:1", many, 0, kAnyShape, 10); },
                    many, "7 labels found, 2 expected");
  const std::string idx = scratch.Write("idx.gz", Gzip(Idx({kLabelsMagic, 3}, {1, 2, 3}))).string();
  ExpectConfigError([&] { LoadLabelledImages(first, idx, 2, kAnyShape, 10); }, idx,
                    "3 labels found, 2 expected, one for each image of " + first);
  EXPECT_EQ(LoadLabelledImages(both, idx, 1, kAnyShape, 10).labels, Bytes8{1});
  const std::string twice = first + "," + first;
  ExpectConfigError([&] { LoadLabelledImages(twice, idx, 1, kAnyShape, 10); }, idx,
                    "3 labels found, 4 expected, one for each image of " + twice);
  ExpectConfigError([&] { LoadLabelledImages(first, idx + "," + idx, 1, kAnyShape, 10); },
                    idx + "," + idx, "6 labels found, 2 expected");
  const std::string small = scratch.Write("small", Idx({kImagesMagic, 1, 1, 2}, {8, 9})).string();
  ExpectConfigError([&] { LoadImages(first + "," + small, 0, kAnyShape); }, small,
                    "found 1 x 1 x 2, expected 3 x 32 x 32 as in " + first);
  EXPECT_TRUE(LoadLabelledImages(small, "", 0, kAnyShape, 10).labels.empty());
  ExpectConfigError([&] { LoadImages(first + ",", 0, kAnyShape); }, first + ",",
                    "found an empty file name");
  const std::string odd = scratch.Write("odd,name@test:9", Cifar({5})).string();
  ExpectConfigError([&] { LoadImages(odd, 0, kAnyShape); }, odd, "found magic");  // one file
}

TEST(Images, TakesSubsets) {
  const ScratchDirectory scratch;
  const std::string images = scratch.Write("i.u8", Counting(100)).string();
  const std::string labels = scratch.Write("l.u8", Counting(100)).string();
  const mpc::Shape3 shape{1, 1, 1};
  const LabelledImages test = LoadLabelledImages(images + "@test:0.2:7", labels, 0, shape, 100);
  const LabelledImages train = LoadLabelledImages(images + "@train:0.2:7", labels, 0, shape, 100);
  EXPECT_EQ(test.images.count, 20U);
  EXPECT_EQ(train.images.count, 80U);
  EXPECT_EQ(test.images.pixels, test.labels);
  EXPECT_EQ(train.images.pixels, train.labels);
  std::set<std::uint8_t> seen(test.labels.begin(), test.labels.end());
  seen.insert(train.labels.begin(), train.labels.end());
  EXPECT_EQ(seen.size(), 100U);
  EXPECT_FALSE(std::is_sorted(test.labels.begin(), test.labels.end()));

  EXPECT_EQ(LoadImages(images + "@test:0.2:7", 5, shape).pixels, Prefix(test.labels, 5));
  EXPECT_EQ(LoadLabels(labels + "@test:0.2:7", 5, 100), Prefix(test.labels, 5));
  EXPECT_NE(LoadLabels(labels + "@test:0.2:8", 0, 100), test.labels);
  ExpectConfigError(
      [&] { LoadLabelledImages(images + "@test:0.2:7", labels + "@test:0.2:8", 0, shape, 100); },
      labels + "@test:0.2:8", "its subset is not that of the images");
  ExpectConfigError([&] { LoadImages(images + "@test:0.001:7", 0, shape); }, images,
                    "its subset is empty: test part of 100 items");
  for (const char* bad : {"@test:0:1", "@test:1:1", "@test:nan:1", "@test:0.2",
                          "@test:0.2:", "@test:0.2:-1", "@test:0.2:1:2", "@train:x:1"}) {
    ExpectConfigError([&] { LoadImages(images + bad, 0, shape); }, images + bad,
                      "expected train:PART:SEED or test:PART:SEED");
  }
}

// The order of a subset is a promise: files of results name images by it.
TEST(Images, SubsetsStayTheSame) {
  EXPECT_EQ(SubsetIndices({true, 0.5, 1}, 10), (std::vector<std::size_t>{5, 7, 6, 8, 4}));
}

}  // namespace
}  // namespace tercet::files
