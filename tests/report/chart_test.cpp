#include "tercet/report/chart.h"

#include <expat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "tercet/base/error.h"

namespace tercet::report {
namespace {

using testing::Contains;
using testing::DoubleNear;
using testing::ElementsAre;
using testing::SizeIs;

struct Element {
  std::string tag, text;
  std::map<std::string, std::string> attributes;

  double Number(const std::string& name) const {
    return std::strtod(attributes.at(name).c_str(), nullptr);
  }
};

// Every element of the document, in order of their begin tags. Fails the test unless the text is
// well-formed XML.
std::vector<Element> Elements(const std::string& svg) {
  struct State {
    std::vector<Element> all;
    std::vector<std::size_t> open;
  } state;
  XML_Parser parser = XML_ParserCreate(nullptr);
  XML_SetUserData(parser, &state);
  XML_SetElementHandler(
      parser,
      [](void* user, const XML_Char* name, const XML_Char** attributes) {
        auto& s = *static_cast<State*>(user);
        Element element{name, "", {}};
        for (; *attributes != nullptr; attributes += 2)
          element.attributes[attributes[0]] = attributes[1];
        s.open.push_back(s.all.size());
        s.all.push_back(std::move(element));
      },
      [](void* user, const XML_Char*) { static_cast<State*>(user)->open.pop_back(); });
  XML_SetCharacterDataHandler(parser, [](void* user, const XML_Char* text, int length) {
    auto& s = *static_cast<State*>(user);
    s.all[s.open.back()].text.append(text, static_cast<std::size_t>(length));
  });
  EXPECT_EQ(XML_Parse(parser, svg.data(), static_cast<int>(svg.size()), 1), XML_STATUS_OK)
      << XML_ErrorString(XML_GetErrorCode(parser)) << " in line "
      << XML_GetCurrentLineNumber(parser) << " of\n"
      << svg;
  XML_ParserFree(parser);
  return state.all;
}

std::vector<std::string> Texts(const std::vector<Element>& elements) {
  std::vector<std::string> texts;
  for (const Element& e : elements)
    if (e.tag == "text") texts.push_back(e.text);
  return texts;
}

std::vector<Element> All(const std::vector<Element>& elements, const std::string& tag) {
  std::vector<Element> found;
  for (const Element& e : elements)
    if (e.tag == tag) found.push_back(e);
  return found;
}

TEST(LineChart, PlacesPointsInProportion) {
  LineChart chart{.title = "Loss", .x = {"epoch"}, .y = {"loss"}};
  chart.series.push_back({"training", {0, 5, 10}, {0, 1, 2}});
  const auto elements = Elements(ToSvg(chart));
  for (const char* text : {"Loss", "epoch", "loss", "training", "0", "10", "2"})
    EXPECT_THAT(Texts(elements), Contains(text));
  const auto dots = All(elements, "circle");
  ASSERT_THAT(dots, SizeIs(3));
  EXPECT_NEAR(dots[1].Number("cx"), (dots[0].Number("cx") + dots[2].Number("cx")) / 2, 0.11);
  EXPECT_NEAR(dots[1].Number("cy"), (dots[0].Number("cy") + dots[2].Number("cy")) / 2, 0.11);
  EXPECT_GT(dots[0].Number("cy"), dots[2].Number("cy"));  // y of SVG grows downwards
  EXPECT_LT(dots[0].Number("cx"), dots[2].Number("cx"));
  EXPECT_THAT(All(elements, "path"), SizeIs(1));
}

TEST(LineChart, LogAxesMakeFactorsEqualSteps) {
  LineChart chart{.x = {"bytes", AxisScale::kLog}, .y = {"s", AxisScale::kLog}};
  chart.series.push_back({"", {1, 100, 10000}, {0.001, 0.01, 0.1}});
  const auto elements = Elements(ToSvg(chart));
  const auto dots = All(elements, "circle");
  ASSERT_THAT(dots, SizeIs(3));
  EXPECT_NEAR(dots[1].Number("cx"), (dots[0].Number("cx") + dots[2].Number("cx")) / 2, 0.11);
  EXPECT_NEAR(dots[1].Number("cy"), (dots[0].Number("cy") + dots[2].Number("cy")) / 2, 0.11);
  EXPECT_THAT(Texts(elements), Contains("0.001"));
  EXPECT_THAT(Texts(elements), Contains("10000"));
}

TEST(LineChart, LeavesOutWhatCannotBeDrawn) {
  const double nan = std::nan("");
  LineChart chart{.y = {"", AxisScale::kLog}};
  chart.series.push_back({"a", {1, 2, 3, 4, 5}, {1, nan, 2, 0, 3}});
  chart.series.push_back({"b", {1, 2}, {std::numeric_limits<double>::infinity(), -1}});
  const auto elements = Elements(ToSvg(chart));
  EXPECT_THAT(All(elements, "circle"), SizeIs(3));
  const auto paths = All(elements, "path");
  ASSERT_THAT(paths, SizeIs(1));
  // Three pieces of one point each.
  const std::string d = paths[0].attributes.at("d");
  EXPECT_EQ(std::count(d.begin(), d.end(), 'M'), 3);
  EXPECT_EQ(std::count(d.begin(), d.end(), 'L'), 0);
}

TEST(LineChart, AnyDataGiveAPicture) {
  const std::vector<std::vector<double>> cases = {{},
                                                  {0},
                                                  {7, 7, 7},
                                                  {-1e300, 1e300},
                                                  {1e-300, 2e-300},
                                                  {1, 1 + 1e-15},
                                                  {-5, -4},
                                                  {1e15, 1e15 + 1}};
  for (const AxisScale scale : {AxisScale::kLinear, AxisScale::kLog}) {
    for (const auto& values : cases) {
      LineChart chart{.x = {"x", scale}, .y = {"y", scale}};
      chart.series.push_back({"s", values, values});
      const std::string svg = ToSvg(chart);
      for (const Element& dot : All(Elements(svg), "circle")) {
        EXPECT_GE(dot.Number("cx"), 0);
        EXPECT_LE(dot.Number("cx"), chart.width);
        EXPECT_GE(dot.Number("cy"), 0);
        EXPECT_LE(dot.Number("cy"), chart.height);
      }
      EXPECT_EQ(svg.find("nan"), std::string::npos);
      EXPECT_EQ(svg.find("inf"), std::string::npos);
      EXPECT_LT(svg.size(), 20'000U);  // a bounded number of ticks
    }
  }
}

TEST(LineChart, EscapesTexts) {
  LineChart chart{.title = "a < b & \"c\" > d", .x = {"line\nbreak\x01"}, .y = {"größe"}};
  chart.series.push_back({"</svg>", {1}, {1}});
  const auto texts = Texts(Elements(ToSvg(chart)));
  for (const char* text : {"a < b & \"c\" > d", "line break ", "größe", "</svg>"})
    EXPECT_THAT(texts, Contains(text));
}

TEST(LineChart, StacksCharts) {
  std::vector<LineChart> charts(2);
  charts[0].height = 100;
  charts[1].height = 150;
  const auto elements = Elements(ToSvg(charts));
  EXPECT_EQ(elements[0].attributes.at("height"), "250");
  EXPECT_EQ(All(elements, "g").at(1).attributes.at("transform"), "translate(0 100)");
}

TEST(BarChart, BarsAreAsHighAsTheirValues) {
  BarChart chart{.title = "Time", .x_label = "network", .y = {"ms", AxisScale::kLinear, true}};
  chart.groups = {"one", "two"};
  chart.series = {{"lut", {1, 2}}, {"fss", {4, std::nan("")}}};
  const auto elements = Elements(ToSvg(chart));
  for (const char* text : {"Time", "network", "ms", "one", "two", "lut", "fss"})
    EXPECT_THAT(Texts(elements), Contains(text));
  // The background, two keys of the legend, three bars.
  const auto rects = All(elements, "rect");
  ASSERT_THAT(rects, SizeIs(6));
  const double unit = rects[3].Number("height");
  EXPECT_THAT((std::vector{rects[4].Number("height"), rects[5].Number("height")}),
              ElementsAre(DoubleNear(4 * unit, 0.5), DoubleNear(2 * unit, 0.5)));
  for (int i = 3; i < 6; ++i) {
    const Element& bar = rects[static_cast<std::size_t>(i)];
    EXPECT_NEAR(bar.Number("y") + bar.Number("height"),
                rects[3].Number("y") + rects[3].Number("height"), 0.21);
  }
}

TEST(Charts, RefuseSeriesThatDoNotFit) {
  LineChart lines;
  lines.series.push_back({"s", {1, 2}, {1}});
  EXPECT_THROW(ToSvg(lines), InternalError);
  BarChart bars;
  bars.groups = {"a"};
  bars.series.push_back({"s", {1, 2}});
  EXPECT_THROW(ToSvg(bars), InternalError);
}

}  // namespace
}  // namespace tercet::report
