// SPDX-License-Identifier: Apache-2.0
#include "tercet/compile/announcement.h"

#include <fmt/format.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "base/scratch.h"
#include "tercet/compile/architecture.h"
#include "tercet/mpc/builtin_protocols.h"

namespace tercet::compile {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// Every field that a model's owner announces, and what it tells the other parties. A field belongs
/// here before it belongs in an announcement; README ("What is protected, and what is not") says
/// the same in a sentence.
const std::map<std::string, std::string> kTells{
    {"/network", "nothing: the name in the JSON that all parties have"},
    {"/spec_digest", "nothing: the digest of the JSON that all parties have"},
    {"/only_class", "whether the receiver gets the logits or the class alone"},
    {"/layers/*/value_bits",
     "a bound of the layer's values for every input, in whole bits, which depends on the weights; "
     "where it is measured, on what the calibration images gave"},
    {"/layers/*/shift",
     "by which power of two the layer's values are divided, which depends on the same"},
    {"/layers/*/proven", "whether the width is a bound or was measured; an option of compile"},
    {"/layers/*/suite",
     "which private suite the owner chose, by costs that depend on widths, shapes and the link"}};

/// The pointers of all fields, with * for an index.
void CollectFields(const json& value, const std::string& pointer,
                   std::map<std::string, json>& fields) {
  if (value.is_object()) {
    for (const auto& [key, member] : value.items())
      CollectFields(member, pointer + "/" + key, fields);
  } else if (value.is_array()) {
    for (const json& element : value) CollectFields(element, pointer + "/*", fields);
  } else {
    fields[pointer] = value;
  }
}

nn::NetworkSpec SpecOf(const std::string& layers, const std::string& output = "logits") {
  return nn::ParseNetwork(R"({"name": "N", "input": {"shape": [2, 6, 6], "bits": 4}, "layers": [)" +
                              layers + R"(], "output": ")" + output + "\"}",
                          "net.json");
}

const std::string kConv =
    R"({"name": "c1", "type": "conv2d", "out_channels": 4, "kernel": 3, "padding": 1},)";
const std::string kRelu = R"({"name": "r1", "type": "relu"},)";
const std::string kLast = R"({"name": "fc", "type": "linear", "out_features": 5})";

std::string Activation(const std::string& type, const std::string& suite) {
  return fmt::format(R"({{"name": "a1", "type": "{}", "suite": "{}"}},)", type, suite);
}

/// Fits SpecOf(kConv + kRelu + kLast).
Announcement Good(const nn::NetworkSpec& spec) {
  return {.network = "N",
          .spec_digest = spec.Digest(),
          .layers = {{.value_bits = 14, .shift = 5}, {.value_bits = 20}}};
}

void ExpectRefused(const std::string& layers, const std::function<void(Announcement&)>& change,
                   const std::string& place, const std::string& text,
                   const std::string& output = "logits") {
  const nn::NetworkSpec spec = SpecOf(layers, output);
  Announcement announcement = Good(spec);
  change(announcement);
  ExpectConfigError([&] { NetworkOf(spec, announcement, "model"); }, "model" + place, text);
}

TEST(AnnouncementTest, EveryFieldIsListedWithWhatItTells) {
  const nn::NetworkSpec spec = SpecOf(kConv + Activation("relu", "auto") + kLast);
  Announcement announcement = Good(spec);
  announcement.layers[0].suite = "lut";
  std::map<std::string, json> announced;
  CollectFields(json::parse(AnnouncementToJson(announcement)), "", announced);
  for (const auto& [field, value] : announced) {
    ASSERT_TRUE(kTells.contains(field)) << field << " is announced; say what it tells the others";
    EXPECT_THAT(kTells.at(field), Not(IsEmpty()));
    // A number with many digits tells many bits of the weights.
    EXPECT_FALSE(value.is_number_float()) << field;
  }
  for (const auto& [field, tells] : kTells) EXPECT_TRUE(announced.contains(field)) << field;
}

TEST(AnnouncementTest, RoundTrips) {
  const nn::NetworkSpec spec = SpecOf(kConv + kRelu + kLast);
  Announcement announcement = Good(spec);
  announcement.layers[0].proven = false;
  announcement.layers[0].suite = "lut:chunks=3";
  announcement.only_class = true;
  EXPECT_EQ(AnnouncementFromJson(AnnouncementToJson(announcement), "model"), announcement);
}

TEST(AnnouncementTest, NoneIsLongerThanTheMost) {
  const nn::NetworkSpec spec = SpecOf(kConv + kRelu + kLast);
  Announcement longest = Good(spec);
  EXPECT_LT(AnnouncementToJson(longest).size(), MostAnnouncementBytes(spec));
  for (auto& layer : longest.layers)
    layer = {.value_bits = 34, .shift = 33, .proven = false, .suite = std::string(256, '"')};
  const std::string text = AnnouncementToJson(longest);
  EXPECT_EQ(text.size(), MostAnnouncementBytes(spec));
  EXPECT_EQ(AnnouncementFromJson(text, "model"), longest);
}

TEST(AnnouncementTest, NetworksOfOneOutputHaveNoClassesToCompare) {
  const nn::NetworkSpec spec =
      SpecOf(kConv + kRelu + R"({"name": "fc", "type": "linear", "out_features": 1})");
  EXPECT_GT(MostAnnouncementBytes(spec), AnnouncementToJson(Good(spec)).size());
}

TEST(AnnouncementTest, FormIsStrict) {
  const std::string good = AnnouncementToJson(Good(SpecOf(kConv + kRelu + kLast)));
  const auto refused = [&](const std::string& from, const std::string& to,
                           const std::string& pointer, const std::string& text) {
    const auto at = good.find(from);
    ASSERT_NE(at, std::string::npos) << from << " in " << good;
    const std::string changed = std::string(good).replace(at, from.size(), to);
    ExpectConfigError([&] { AnnouncementFromJson(changed, "model"); }, "model" + pointer, text);
  };
  refused("\"network\":\"N\"", "\"network\":\"N\",\"logit_scale\":0.1", "",
          "unknown key 'logit_scale'");
  refused("\"shift\":5,", "", " /layers/0", "missing key 'shift'");
  refused("\"value_bits\":14", "\"value_bits\":1", " /layers/0/value_bits", "from 2 to 34");
  refused("\"value_bits\":14", "\"value_bits\":35", " /layers/0/value_bits", "from 2 to 34");
  refused("\"value_bits\":14", "\"value_bits\":14.0", " /layers/0/value_bits", "an integer");
  refused("\"value_bits\":14", "\"value_bits\":4294967310", " /layers/0/value_bits", "an integer");
  refused("\"shift\":5", "\"shift\":14", " /layers/0/shift", "from 0 to 13");
  refused("\"shift\":5", "\"shift\":-1", " /layers/0/shift", "found -1");
  refused("\"proven\":true", "\"proven\":1", " /layers/0/proven", "true or false");
  refused("\"only_class\":false", "\"only_class\":null", " /only_class", "true or false");
  refused("\"spec_digest\":\"", "\"spec_digest\":\"Z", " /spec_digest", "hexadecimal");
  ExpectConfigError([] { AnnouncementFromJson("[1", "model"); }, "model", "no valid JSON");
  ExpectConfigError([] { AnnouncementFromJson("[1]", "model"); }, "model", "an object");
  Announcement many = Good(SpecOf(kConv + kRelu + kLast));
  many.layers.resize(4097, {.value_bits = 2});
  ExpectConfigError([&] { AnnouncementFromJson(AnnouncementToJson(many), "model"); },
                    "model /layers", "4097 elements");
}

TEST(AnnouncementTest, OnlyWidthsAreTaken) {
  const nn::NetworkSpec spec = SpecOf(kConv + kRelu + kLast);
  Announcement announcement = Good(spec);
  announcement.layers[1].proven = false;
  const nn::PublicNetwork network = NetworkOf(spec, announcement, "model");
  nn::PublicNetwork own = Architecture(spec, false);
  own.layers[0].value_bits = 14;
  own.layers[0].shift = 5;
  own.layers[1].value_bits = 20;
  own.layers[1].proven = false;
  EXPECT_EQ(network, own);
}

TEST(AnnouncementTest, RefusesWhatDoesNotFitTheArchitecture) {
  const std::string relu = kConv + kRelu + kLast;
  ExpectRefused(
      relu, [](Announcement& a) { a.spec_digest[0] ^= 1; }, "",
      "compiled for another architecture");
  ExpectRefused(
      relu, [](Announcement& a) { a.network = std::string("M"); }, " /network", "expected \"N\"");
  ExpectRefused(
      relu, [](Announcement& a) { a.layers.pop_back(); }, " /layers",
      "found 1 elements, expected 2, one for each layer of network \"N\"");
  ExpectRefused(
      relu, [](Announcement& a) { a.layers.push_back({.value_bits = 8}); }, " /layers",
      "found 3 elements");
  ExpectRefused(
      relu, [](Announcement& a) { a.layers[0].value_bits = 33; }, " /layers/0/value_bits",
      "expected 2 to 32");
  ExpectRefused(
      relu, [](Announcement& a) { a.layers[0].shift = 14; }, " /layers/0/shift", "at most 13");
  ExpectRefused(
      relu, [](Announcement& a) { a.layers[1].shift = 1; }, " /layers/1/shift", "at most 0");
  const std::string table = kConv + R"({"name": "t1", "type": "table", "input_scale": 1,
      "output_scale": 1, "values": [0, 1, 2, 3, 4, 5, 6, 9]},)" +
                            kLast;
  ExpectRefused(
      table, [](Announcement& a) { a.layers[0].shift = 10; }, " /layers/0/shift",
      "expected the table of layer c1 to be left with 3 bits");
  ExpectRefused(
      table,
      [](Announcement& a) {
        a.layers[0].shift = 11;
        a.layers[0].proven = false;
      },
      " /layers/0/proven", "must be in it");
  ExpectRefused(
      relu, [](Announcement& a) { a.layers[0].suite = "cbnn"; }, " /layers/0/suite",
      "found cbnn for layer c1, expected none");
}

// 5 sums over what leaves the layer before, in 16 bits a weight, with a bias and a sign.
TEST(AnnouncementTest, LogitsAreAsWideAsTheyCanNeed) {
  const std::string sign = kConv + R"({"name": "s1", "type": "sign"},)" + kLast;
  const auto with = [](unsigned bits) {
    return [bits](Announcement& a) {
      a.layers[0].shift = 0;
      a.layers[1].value_bits = bits;
    };
  };
  // 144 bits enter: 8 bits, and 18.
  const nn::NetworkSpec spec = SpecOf(sign);
  Announcement widest = Good(spec);
  with(26)(widest);
  EXPECT_EQ(MostLogitBits(NetworkOf(spec, widest, "model")), 26U);
  ExpectRefused(sign, with(27), " /layers/1/value_bits",
                "found 27, expected 2 to 26, all that the logits of this architecture can need");
  // Of the same layer before 13 - 9 = 4 bits enter from each of 144 values: 12 bits.
  const nn::NetworkSpec relu = SpecOf(kConv + kRelu + kLast);
  Announcement announcement = Good(relu);
  announcement.layers[0].shift = 9;
  announcement.layers[1].value_bits = 30;
  EXPECT_EQ(MostLogitBits(NetworkOf(relu, announcement, "model")), 30U);
  announcement.layers[1].value_bits = 31;
  EXPECT_THROW(NetworkOf(relu, announcement, "model"), ConfigError);
  // Never wider than the compile step makes them.
  announcement.layers[0].shift = 0;
  announcement.layers[1].value_bits = 32;
  EXPECT_EQ(MostLogitBits(NetworkOf(relu, announcement, "model")), 32U);
}

// The class tells the receiver less than the logits, so a model may say it of its own accord.
TEST(AnnouncementTest, OnlyLessThanTheNetworkSaysMayLeave) {
  const nn::NetworkSpec spec = SpecOf(kConv + kRelu + kLast);
  Announcement announcement = Good(spec);
  announcement.only_class = true;
  announcement.layers[1].value_bits = 34;  // of differences, which nobody sees
  EXPECT_TRUE(NetworkOf(spec, announcement, "model").OnlyClass());
  announcement.layers[1].value_bits = 35;
  EXPECT_THROW(NetworkOf(spec, announcement, "model"), ConfigError);
  ExpectRefused(
      kConv + kRelu + kLast, [](Announcement&) {}, " /only_class", "expected true", "class");
}

class SuiteTest : public testing::Test {
 protected:
  nn::PublicNetwork Take(const std::string& own, const std::string& run,
                         const std::string& announced) const {
    const nn::NetworkSpec spec =
        SpecOf(kConv + (own.empty() ? kRelu : Activation("relu", own)) + kLast);
    Announcement announcement = Good(spec);
    announcement.layers[0].suite = announced;
    return NetworkOf(spec, announcement, registry_, mpc::ParseSuiteChoice(run, "test"), "model");
  }
  void ExpectRefused(const std::string& own, const std::string& run, const std::string& announced,
                     const std::string& text) const {
    ExpectConfigError([&] { Take(own, run, announced); }, "model /layers/0/suite", text);
  }

  const mpc::Registry registry_ = BuiltinProtocols();
};

TEST_F(SuiteTest, AreThisPartysOwnWhereItNamesThem) {
  EXPECT_EQ(Take("", "lut", "").layers[0].suite, "");
  EXPECT_EQ(Take("fss", "lut", "").layers[0].suite, "fss");
  EXPECT_EQ(Take("cbnn", "lut", "").layers[0].suite, "cbnn");  // by name, so with consent
  ExpectRefused("", "lut", "cbnn", "own network file or --suite says lut");
  ExpectRefused("", "lut", "fss", "own network file or --suite says lut");
  ExpectRefused("fss", "auto", "lut", "own network file or --suite says fss");
}

TEST_F(SuiteTest, AreAPrivateOneOfTheOwnersWhereTheyAreLeft) {
  EXPECT_EQ(Take("auto", "lut", "fss:form=bit").layers[0].suite, "fss:form=bit");
  EXPECT_EQ(Take("", "auto", "aby3").layers[0].suite, "aby3");
  for (const char* own : {"", "auto"}) {
    ExpectRefused(own, "auto", "cbnn", "found cbnn, which is NOT private");
    ExpectRefused(own, "auto", "cbnn:x=1", "which is NOT private");
    ExpectRefused(own, "auto", "auto", "found auto, expected one of aby3,");
    ExpectRefused(own, "auto", "x", "found x, expected one of aby3,");
    ExpectRefused(own, "auto", "", "found none");
  }
}

TEST_F(SuiteTest, AreAnnouncedOnlyWhereTheyAreLeft) {
  const nn::NetworkSpec spec = SpecOf(kConv + Activation("relu", "auto") +
                                      R"({"name": "c2", "type": "conv2d", "out_channels": 2,
                                      "kernel": 3}, {"name": "r2", "type": "relu"},)" +
                                      kLast);
  nn::PublicNetwork network = Architecture(spec, false);
  for (nn::PublicLayer& layer : network.layers) layer.value_bits = 10;
  network.layers[0].suite = "fss";
  network.layers[1].suite = "lut";
  const auto announced = AnnouncementOf(network, spec, mpc::ParseSuiteChoice("lut", "test"));
  EXPECT_EQ(announced.layers[0].suite, "fss");
  EXPECT_EQ(announced.layers[1].suite, "");
  const auto all = AnnouncementOf(network, spec, mpc::ParseSuiteChoice("auto", "test"));
  EXPECT_EQ(all.layers[1].suite, "lut");
  EXPECT_EQ(all.layers[2].suite, "");
}

}  // namespace
}  // namespace tercet::compile
