// SPDX-License-Identifier: Apache-2.0
#include "tercet/files/tensor_file.h"

#include <cmath>
#include <limits>

#include "base/scratch.h"

namespace tercet::files {
namespace {

using Bytes8 = std::vector<std::uint8_t>;

/// A file with this header and data; the header's length may be overridden.
Bytes8 FileOf(const std::string& header, const Bytes8& data, std::uint64_t length = 0) {
  if (length == 0) length = header.size();
  Bytes8 bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<std::uint8_t>(length >> (8 * i)));
  bytes.insert(bytes.end(), header.begin(), header.end());
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

TensorFile Example() {
  TensorFile file;
  file.metadata = {{"format", "pt"}, {"note", "\"quoted\" \xc3\xa4"}};
  file.tensors["a.weight"] = TensorData::FromFloats({2, 3}, {0.5F, -1, 2, 3e30F, -0.0F, 1e-40F});
  file.tensors["b"] = TensorData::FromIntegers({3}, {-128, 0, 127}, DType::kI8);
  file.tensors["c"] = TensorData::FromIntegers({1, 2}, {-32768, 32767}, DType::kI16);
  file.tensors["d"] = TensorData::FromIntegers({2}, {-2147483648, 2147483647}, DType::kI32);
  file.tensors["e"] =
      TensorData::FromIntegers({}, {std::numeric_limits<std::int64_t>::min()}, DType::kI64);
  file.tensors["f"] = {DType::kF64, {1}, Bytes8{0, 0, 0, 0, 0, 0, 0xF0, 0x3F}};
  file.tensors["none"] = TensorData::FromFloats({0, 5}, {});
  return file;
}

TEST(TensorFile, RoundTrip) {
  const TensorFile file = Example();
  EXPECT_EQ(ParseTensors(SerializeTensors(file), "m"), file);
  EXPECT_EQ(ParseTensors(SerializeTensors(TensorFile{}), "m"), TensorFile{});

  const ScratchDirectory scratch;
  const std::filesystem::path path = scratch.Path() / "m.safetensors";
  SaveTensors(TensorFile{}, path);
  SaveTensors(file, path);
  EXPECT_EQ(LoadTensors(path), file);
  // Weights are a secret.
  EXPECT_EQ(std::filesystem::status(path).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  // Nothing is left beside it.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.Path()), {}), 1);
}

TEST(TensorFile, WritesTheDocumentedLayout) {
  TensorFile file;
  file.tensors["byte"] = TensorData::FromIntegers({1}, {-1}, DType::kI8);
  file.tensors["wide"] = TensorData::FromIntegers({1}, {258}, DType::kI64);
  std::string header = R"({"byte":{"data_offsets":[8,9],"dtype":"I8","shape":[1]},)"
                       R"("wide":{"data_offsets":[0,8],"dtype":"I64","shape":[1]}})";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(SerializeTensors(file), FileOf(header, {2, 1, 0, 0, 0, 0, 0, 0, 0xFF}));
}

TEST(TensorFile, ConvertsValues) {
  const TensorFile file = Example();
  EXPECT_EQ(file.tensors.at("a.weight").AsDoubles(),
            (std::vector<double>{0.5, -1, 2, double{3e30F}, 0, double{1e-40F}}));
  EXPECT_EQ(file.tensors.at("b").AsDoubles(), (std::vector<double>{-128, 0, 127}));
  EXPECT_EQ(file.tensors.at("c").AsIntegers("p"), (std::vector<std::int64_t>{-32768, 32767}));
  EXPECT_EQ(file.tensors.at("d").AsDoubles(), (std::vector<double>{-2147483648.0, 2147483647.0}));
  EXPECT_EQ(file.tensors.at("e").AsIntegers("p"),
            (std::vector<std::int64_t>{std::numeric_limits<std::int64_t>::min()}));
  EXPECT_EQ(file.tensors.at("f").AsIntegers("p"), (std::vector<std::int64_t>{1}));
  EXPECT_EQ(file.tensors.at("none").Count(), 0U);
  EXPECT_EQ(file.tensors.at("e").Count(), 1U);
  EXPECT_EQ(TensorData::FromFloats({2}, {-3, 4e9F}).AsIntegers("p"),
            (std::vector<std::int64_t>{-3, 4'000'000'000}));

  for (const float bad :
       {0.5F, 0x1p63F, -0x1.000002p63F, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    SCOPED_TRACE(bad);
    ExpectConfigError(
        [&] {
          TensorData::FromFloats({2}, {1, bad}).AsIntegers("m tensor w");
        },
        "m tensor w", "element 1 is not an integer");
  }
}

TEST(TensorFile, RefusesTensorsThatContradictThemselves) {
  EXPECT_THROW(TensorData::FromFloats({2, 2}, {1, 2, 3}), InternalError);
  EXPECT_THROW(TensorData::FromIntegers({1}, {128}, DType::kI8), InternalError);
  EXPECT_THROW(TensorData::FromIntegers({1}, {-32769}, DType::kI16), InternalError);
  EXPECT_THROW(TensorData::FromIntegers({1}, {2147483648}, DType::kI32), InternalError);
  EXPECT_THROW(TensorData::FromIntegers({1}, {1}, DType::kF32), InternalError);
  EXPECT_THROW((TensorData{DType::kF32, {std::size_t{1} << 62, 4}, {}}.Count()), InternalError);
  TensorFile file;
  file.tensors["__metadata__"] = TensorData::FromFloats({}, {1});
  EXPECT_THROW(SerializeTensors(file), InternalError);
  file.tensors.clear();
  file.tensors["\xff"] = TensorData::FromFloats({}, {1});
  EXPECT_THROW(SerializeTensors(file), InternalError);
}

TEST(TensorFile, WidensHalfPrecision) {
  const std::vector<std::pair<std::uint16_t, double>> halves = {
      {0x3C00, 1},        {0xC000, -2},        {0x3555, 0.333251953125}, {0x7BFF, 65504},
      {0x0001, 0x1p-24},  {0x03FF, 0x3FFp-24}, {0x0400, 0x1p-14},        {0x8001, -0x1p-24},
      {0x7C00, INFINITY}, {0xFC00, -INFINITY}};
  Bytes8 data;
  for (const auto& [bits, value] : halves) {
    data.push_back(static_cast<std::uint8_t>(bits));
    data.push_back(static_cast<std::uint8_t>(bits >> 8));
  }
  const TensorFile half = ParseTensors(
      FileOf(R"({"w":{"dtype":"F16","shape":[5,2],"data_offsets":[0,20]}})", data), "m");
  const TensorData& widened = half.tensors.at("w");
  EXPECT_EQ(widened.dtype, DType::kF32);
  EXPECT_EQ(widened.shape, (std::vector<std::size_t>{5, 2}));
  const std::vector<double> values = widened.AsDoubles();
  for (std::size_t i = 0; i < halves.size(); ++i)
    EXPECT_EQ(values[i], halves[i].second) << std::hex << halves[i].first;

  const std::vector<double> special =
      ParseTensors(FileOf(R"({"w":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})",
                          {0x01, 0x7C, 0x00, 0x80}),
                   "m")
          .tensors.at("w")
          .AsDoubles();
  EXPECT_TRUE(std::isnan(special[0]));
  EXPECT_TRUE(special[1] == 0 && std::signbit(special[1]));

  EXPECT_EQ(ParseTensors(FileOf(R"({"w":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})",
                                {0x80, 0x3F, 0x49, 0xC0}),
                         "m")
                .tensors.at("w")
                .AsDoubles(),
            (std::vector<double>{1, -3.140625}));
}

TEST(TensorFile, KeepsNanAndInfinity) {
  const TensorFile file{{{"w", TensorData::FromFloats({2}, {std::nanf(""), -INFINITY})}}, {}};
  const std::vector<double> values =
      ParseTensors(SerializeTensors(file), "m").tensors.at("w").AsDoubles();
  EXPECT_TRUE(std::isnan(values[0]));
  EXPECT_EQ(values[1], -INFINITY);
}

TEST(TensorFile, RefusesABadHeader) {
  struct Case {
    Bytes8 bytes;
    std::string place, message;
  };
  const std::vector<Case> cases = {
      {{}, "m header", "truncated: the file has 0 bytes, expected at least 8"},
      {{1, 0, 0, 0, 0, 0, 0}, "m header", "truncated: the file has 7 bytes"},
      {FileOf("{}", {}, 3), "m header", "truncated: is 3 bytes long, but the file has 2"},
      {FileOf("{}", {}, 100'000'001), "m header",
       "is 100000001 bytes long, expected at most 100000000"},
      {FileOf("{}", {}, ~std::uint64_t{0}), "m header", "expected at most 100000000"},
      {FileOf("[]", {}), "m header", "does not begin with '{'"},
      {Bytes8(8, 0), "m header", "does not begin with '{'"},
      {FileOf("{\"a\" 1}", {}), "m header", "no valid JSON at line 1, column 6"},
      {FileOf(R"({"a":1,"a":2})", {}), "m header", "the key 'a' comes twice"},
      {FileOf(R"({"a":[[[[[1]]]]]})", {}), "m header /a/0/0/0", "nested more than 4 levels"},
      {FileOf(R"({"__metadata__":[]})", {}), "m header",
       "found [] as __metadata__, expected an object"},
      {FileOf(R"({"__metadata__":{"epoch":3}})", {}), "m header",
       "found 3 as __metadata__ 'epoch', expected a string"},
      {FileOf("{}", {1}), "m header", "describes 0 bytes of data, but the file has 1"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.message);
    ExpectConfigError([&] { ParseTensors(bad.bytes, "m"); }, bad.place, bad.message);
  }
}

TEST(TensorFile, RefusesABadTensor) {
  struct Case {
    std::string header;
    std::size_t data_bytes;
    std::string message;
    std::string place = "m tensor w";
  };
  const std::vector<Case> cases = {
      {R"({"w":5})", 0, "found 5 in the header, expected an object"},
      {R"({"w":{"shape":[],"data_offsets":[0,4]}})", 4, "missing key 'dtype'"},
      {R"({"w":{"dtype":"F32","data_offsets":[0,4]}})", 4, "missing key 'shape'"},
      {R"({"w":{"dtype":"F32","shape":[]}})", 4, "missing key 'data_offsets'"},
      {R"({"w":{"dtype":"F32","shape":[],"data_offsets":[0,4],"x":1}})", 4, "unknown key 'x'"},
      {R"({"w":{"dtype":"U8","shape":[],"data_offsets":[0,1]}})", 1,
       "found dtype \"U8\", expected F32, F64, F16, BF16, I8, I16, I32 or I64"},
      {R"({"w":{"dtype":4,"shape":[],"data_offsets":[0,1]}})", 1, "found dtype 4"},
      {R"({"w":{"dtype":"I8","shape":3,"data_offsets":[0,3]}})", 3,
       "found shape 3, expected an array"},
      {R"({"w":{"dtype":"I8","shape":[-3],"data_offsets":[0,3]}})", 3, "found shape [-3]"},
      {R"({"w":{"dtype":"I8","shape":[3.0],"data_offsets":[0,3]}})", 3, "found shape [3.0]"},
      {R"({"w":{"dtype":"I8","shape":[3],"data_offsets":[0]}})", 3,
       "found data_offsets [0], expected [begin, end]"},
      {R"({"w":{"dtype":"I8","shape":[3],"data_offsets":[0,1,3]}})", 3,
       "found data_offsets [0,1,3]"},
      {R"({"w":{"dtype":"I8","shape":[3],"data_offsets":[3,0]}})", 3, "found data_offsets [3,0]"},
      {R"({"w":{"dtype":"I8","shape":[3],"data_offsets":[0,3]}})", 2,
       "lies at [0,3] of the data, which has only 2 bytes"},
      {R"({"w":{"dtype":"F32","shape":[3],"data_offsets":[0,3]}})", 3,
       "found 3 bytes, expected 12 for shape [3] of F32"},
      {R"({"w":{"dtype":"F16","shape":[3],"data_offsets":[0,12]}})", 12,
       "found 12 bytes, expected 6"},
      {R"({"w":{"dtype":"I16","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0,
       "more bytes than 64 bits"},
      {R"({"w":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0,
       "more bytes than 64 bits"},
      {R"({"v":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},"w":{"dtype":"I8","shape":[2],"data_offsets":[2,4]}})",
       4,
       "begins at byte 2 of the data, expected 3, the end of the tensor before it (they overlap)"},
      {R"({"v":{"dtype":"I8","shape":[2],"data_offsets":[0,2]},"w":{"dtype":"I8","shape":[1],"data_offsets":[3,4]}})",
       4, "begins at byte 3 of the data, expected 2, the end of the tensor before it (a gap)"},
      {R"({"w":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}})", 3,
       "describes 2 bytes of data, but the file has 3", "m header"},
  };
  for (const Case& bad : cases) {
    SCOPED_TRACE(bad.header);
    ExpectConfigError([&] { ParseTensors(FileOf(bad.header, Bytes8(bad.data_bytes)), "m"); },
                      bad.place, bad.message);
  }
}

TEST(TensorFile, RefusesEveryTruncation) {
  const Bytes8 bytes = SerializeTensors(Example());
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_THROW(
        ParseTensors(Bytes8(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size)), "m"),
        ConfigError)
        << size;
  }
}

TEST(TensorFile, NamesFilesItCannotReadOrWrite) {
  const ScratchDirectory scratch;
  const std::string missing = (scratch.Path() / "none.safetensors").string();
  ExpectConfigError([&] { LoadTensors(missing); }, missing, "No such file");
  const std::string bad = scratch.Write("bad.safetensors", Bytes8{1}).string();
  ExpectConfigError([&] { LoadTensors(bad); }, bad + " header", "truncated");

  const std::string nowhere = (scratch.Path() / "no" / "m.safetensors").string();
  ExpectConfigError([&] { SaveTensors(Example(), nowhere); }, nowhere, "no: No such file");
  // A directory cannot be replaced; the temporary file must not stay behind.
  const std::filesystem::path directory = scratch.Path() / "dir";
  std::filesystem::create_directory(directory);
  ExpectConfigError([&] { SaveTensors(Example(), directory); }, directory.string(),
                    "cannot be written: it is a directory");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(scratch.Path()), {}), 2);
}

}  // namespace
}  // namespace tercet::files
