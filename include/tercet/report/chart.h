#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

/// Charts as SVG 1.1 text: well-formed XML without scripts, fonts or links from elsewhere. All
/// functions are pure and thread safe.
namespace tercet::report {

enum class AxisScale : std::uint8_t { kLinear, kLog };

/// An axis covers all of its data; its ends are rounded to ticks.
struct Axis {
  std::string label;  ///< with the unit: "time (s)"
  AxisScale scale = AxisScale::kLinear;
  bool from_zero = false;  ///< a linear axis begins at 0 at the latest
};

/// Points joined in their order. A point that cannot be drawn (infinite, NaN, or not above 0 on a
/// log axis) is left out, and the line is broken there.
struct Series {
  std::string name;  ///< in the legend; without a name there is no entry
  std::vector<double> x, y;
};

/// Lines over a common pair of axes.
///
///     report::LineChart chart{.title = "Loss", .x = {"epoch"}, .y = {"loss"}};
///     chart.series.push_back({"training", {1, 2, 3}, {0.5, 0.2, 0.1}});
///     file << report::ToSvg(chart);
struct LineChart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
  unsigned width = 720, height = 400;  ///< pixels
  bool markers = true;                 ///< a dot on every point
};

/// Bars side by side in groups: group g of series s has the height values[g].
struct BarSeries {
  std::string name;
  std::vector<double> values;  ///< one a group; one that cannot be drawn leaves its place empty
};
struct BarChart {
  std::string title, x_label;
  Axis y{.from_zero = true};
  std::vector<std::string> groups;
  std::vector<BarSeries> series;
  unsigned width = 720, height = 400;  ///< pixels
};

/// The chart as a file of its own. Texts are UTF-8 and escaped; control characters, which XML
/// forbids, become blanks. InternalError unless a series has as many x as y, or a bar series as
/// many values as there are groups.
std::string ToSvg(const LineChart& chart);
std::string ToSvg(const BarChart& chart);
/// Several charts, one below the other, as one file.
std::string ToSvg(std::span<const LineChart> charts);

}  // namespace tercet::report
