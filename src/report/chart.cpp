#include "tercet/report/chart.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string_view>

#include "tercet/base/error.h"
#include "tercet/report/table.h"

namespace tercet::report {
namespace {

// Colours that people with any kind of colour vision tell apart [Okabe and Ito, 2008], the one that
// reads worst on white left out.
constexpr std::array<const char*, 7> kColours{"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                              "#e69f00", "#56b4e9", "#000000"};
constexpr double kFontSize = 12, kTitleSize = 15;
constexpr double kCharWidth = 6.8;  // widest usual mean at kFontSize, for room, not for placing
constexpr double kTickLength = 5, kMarker = 2.5, kLegendKey = 18, kLineHeight = 18, kGap = 8;
constexpr double kTicksWanted = 6;
constexpr double kGroupFill = 0.8;  // part of a group's width that its bars take

std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    }
  }
  return out;
}

double TextWidth(std::string_view text) {
  return kCharWidth * static_cast<double>(DisplayWidth(text));
}

enum class Anchor : std::uint8_t { kStart, kMiddle, kEnd };

std::string Text(double x, double y, Anchor anchor, std::string_view text,
                 std::string_view more = "") {
  static constexpr std::array<const char*, 3> kAnchors{"start", "middle", "end"};
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y,
                     kAnchors[static_cast<std::size_t>(anchor)], more, Escape(text));
}

std::string Line(double x1, double y1, double x2, double y2, const char* colour) {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1, y1, x2,
      y2, colour);
}

/// Places values of an axis on a stretch of pixels.
class Ruler {
 public:
  Ruler(const Axis& axis, const std::vector<double>& values) : scale_(axis.scale) {
    std::optional<double> low;
    std::optional<double> high;
    for (const double v : values) {
      if (!CanDraw(v)) continue;
      low = std::min(low.value_or(v), v);
      high = std::max(high.value_or(v), v);
    }
    if (!low) low = high = 1;
    if (scale_ == AxisScale::kLog) {
      ChooseLogTicks(*low, *high);
    } else {
      if (axis.from_zero) {
        low = std::min(*low, 0.0);
        high = std::max(*high, 0.0);
      }
      ChooseLinearTicks(*low, *high);
    }
  }

  bool CanDraw(double v) const {
    return std::isfinite(v) && (scale_ == AxisScale::kLinear || v > 0);
  }
  /// Position of a drawable value: 0 at the axis' beginning, 1 at its end.
  double Part(double v) const {
    return (Position(v) - Position(begin_)) / (Position(end_) - Position(begin_));
  }
  double Begin() const { return begin_; }
  const std::vector<double>& Ticks() const { return ticks_; }
  static std::string Label(double tick) { return fmt::format("{:.10g}", tick); }

 private:
  double Position(double v) const { return scale_ == AxisScale::kLog ? std::log10(v) : v; }

  void ChooseLinearTicks(double low, double high) {
    // Differences below what a double resolves would give no ticks at all.
    const double least = std::max(std::abs(low), std::abs(high)) * 1e-9;
    if (high - low <= least) {
      const double margin = std::max(std::abs(low) / 2, 0.5);
      low -= margin;
      high += margin;
    }
    const double raw = high / kTicksWanted - low / kTicksWanted;
    const double decade = std::pow(10, std::floor(std::log10(raw)));
    double step = decade;
    for (const double factor : {1.0, 2.0, 5.0, 10.0}) {
      step = factor * decade;
      if (step >= raw * (1 - 1e-9)) break;
    }
    const double first = std::floor(low / step + 1e-9);
    const double last = std::ceil(high / step - 1e-9);
    // Multiples of the step, not sums of it, so that 0 is 0 and errors do not add up.
    for (double i = first; i <= last; ++i) ticks_.push_back(i * step);
    begin_ = ticks_.front();
    end_ = ticks_.back();
  }

  void ChooseLogTicks(double low, double high) {
    const double first = std::floor(std::log10(low));
    const double last = std::max(std::ceil(std::log10(high)), first + 1);
    const bool few = last - first <= 2;
    const double step = std::ceil((last - first) / (2 * kTicksWanted));
    for (double e = first; e <= last; e += step) {
      ticks_.push_back(std::pow(10, e));
      if (few && e < last) {
        ticks_.push_back(2 * std::pow(10, e));
        ticks_.push_back(5 * std::pow(10, e));
      }
    }
    begin_ = ticks_.front();
    end_ = std::max(ticks_.back(), std::pow(10, last));
  }

  AxisScale scale_;
  double begin_ = 0, end_ = 1;
  std::vector<double> ticks_;
};

struct Frame {
  double left, top, right, bottom;
  double X(double part) const { return left + part * (right - left); }
  double Y(double part) const { return bottom - part * (bottom - top); }
};

/// What both kinds of chart share: title, frame, y axis, legend.
struct Canvas {
  Frame frame;
  std::string svg;
};

Canvas Begin(unsigned width, unsigned height, const std::string& title, const std::string& x_label,
             const Axis& y, const Ruler& y_ruler, const std::vector<std::string>& names) {
  double label_width = 0;
  for (const double tick : y_ruler.Ticks())
    label_width = std::max(label_width, TextWidth(Ruler::Label(tick)));
  double legend_width = 0;
  for (const std::string& name : names)
    if (!name.empty()) legend_width = std::max(legend_width, TextWidth(name) + kLegendKey + kGap);
  const Frame frame{
      .left = kGap + (y.label.empty() ? 0 : kLineHeight) + label_width + kTickLength + kGap,
      .top = kGap + (title.empty() ? 0 : kLineHeight + kGap),
      .right = width - 2 * kGap - (legend_width > 0 ? legend_width + kGap : 0),
      .bottom = height - kGap - kLineHeight - (x_label.empty() ? 0 : kLineHeight)};
  Canvas canvas{frame, ""};
  std::string& svg = canvas.svg;
  svg += fmt::format("<rect width=\"{}\" height=\"{}\" fill=\"#ffffff\"/>\n", width, height);
  const double middle = frame.X(0.5);
  if (!title.empty()) {
    svg += Text(middle, kGap + kTitleSize, Anchor::kMiddle, title,
                fmt::format(" font-size=\"{}\" font-weight=\"bold\"", kTitleSize));
  }
  for (const double tick : y_ruler.Ticks()) {
    const double at = frame.Y(y_ruler.Part(tick));
    svg += Line(frame.left, at, frame.right, at, "#dddddd");
    svg += Text(frame.left - kTickLength - 2, at + kFontSize / 3, Anchor::kEnd, Ruler::Label(tick));
  }
  svg += Line(frame.left, frame.top, frame.left, frame.bottom, "#444444");
  svg += Line(frame.left, frame.bottom, frame.right, frame.bottom, "#444444");
  if (!x_label.empty()) svg += Text(middle, height - kGap, Anchor::kMiddle, x_label);
  if (!y.label.empty()) {
    const double x = kGap + kFontSize;
    const double centre = frame.Y(0.5);
    svg += Text(x, centre, Anchor::kMiddle, y.label,
                fmt::format(" transform=\"rotate(-90 {:.1f} {:.1f})\"", x, centre));
  }
  double at = frame.top + kLineHeight / 2;
  for (std::size_t i = 0; i < names.size(); ++i) {
    if (names[i].empty()) continue;
    const double left = frame.right + 2 * kGap;
    svg += fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{}\" height=\"4\" fill=\"{}\"/>\n",
                       left, at - 2, kLegendKey - 4, kColours[i % kColours.size()]);
    svg += Text(left + kLegendKey, at + kFontSize / 3, Anchor::kStart, names[i]);
    at += kLineHeight;
  }
  return canvas;
}

std::string Body(const LineChart& chart) {
  std::vector<double> xs;
  std::vector<double> ys;
  std::vector<std::string> names;
  for (const Series& series : chart.series) {
    TERCET_CHECK(series.x.size() == series.y.size(), "series '{}' has {} x and {} y", series.name,
                 series.x.size(), series.y.size());
    xs.insert(xs.end(), series.x.begin(), series.x.end());
    ys.insert(ys.end(), series.y.begin(), series.y.end());
    names.push_back(series.name);
  }
  const Ruler x_ruler(chart.x, xs);
  const Ruler y_ruler(chart.y, ys);
  Canvas canvas =
      Begin(chart.width, chart.height, chart.title, chart.x.label, chart.y, y_ruler, names);
  const Frame& frame = canvas.frame;
  std::string& svg = canvas.svg;
  for (const double tick : x_ruler.Ticks()) {
    const double at = frame.X(x_ruler.Part(tick));
    svg += Line(at, frame.bottom, at, frame.bottom + kTickLength, "#444444");
    svg += Text(at, frame.bottom + kTickLength + kFontSize, Anchor::kMiddle, Ruler::Label(tick));
  }
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    const Series& series = chart.series[s];
    const char* colour = kColours[s % kColours.size()];
    std::string path;
    std::string dots;
    bool joined = false;
    for (std::size_t i = 0; i < series.x.size(); ++i) {
      if (!x_ruler.CanDraw(series.x[i]) || !y_ruler.CanDraw(series.y[i])) {
        joined = false;
        continue;
      }
      const double x = frame.X(x_ruler.Part(series.x[i]));
      const double y = frame.Y(y_ruler.Part(series.y[i]));
      path += fmt::format("{}{:.1f} {:.1f}", joined ? " L" : path.empty() ? "M" : " M", x, y);
      if (chart.markers) {
        dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\" fill=\"{}\"/>\n", x, y,
                            kMarker, colour);
      }
      joined = true;
    }
    if (path.empty()) continue;
    svg += fmt::format("<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\"/>\n", path,
                       colour);
    svg += dots;
  }
  return std::move(canvas.svg);
}

std::string Body(const BarChart& chart) {
  std::vector<double> values;
  std::vector<std::string> names;
  for (const BarSeries& series : chart.series) {
    TERCET_CHECK(series.values.size() == chart.groups.size(),
                 "series '{}' has {} values, {} groups", series.name, series.values.size(),
                 chart.groups.size());
    values.insert(values.end(), series.values.begin(), series.values.end());
    names.push_back(series.name);
  }
  const Ruler ruler(chart.y, values);
  Canvas canvas =
      Begin(chart.width, chart.height, chart.title, chart.x_label, chart.y, ruler, names);
  const Frame& frame = canvas.frame;
  std::string& svg = canvas.svg;
  const double group_width =
      chart.groups.empty() ? 0
                           : (frame.right - frame.left) / static_cast<double>(chart.groups.size());
  const double bar_width =
      chart.series.empty() ? 0
                           : group_width * kGroupFill / static_cast<double>(chart.series.size());
  const bool from_zero =
      chart.y.scale == AxisScale::kLinear && ruler.Begin() <= 0 && ruler.Ticks().back() >= 0;
  const double base = frame.Y(from_zero ? ruler.Part(0) : 0);
  for (std::size_t g = 0; g < chart.groups.size(); ++g) {
    const double left = frame.left + static_cast<double>(g) * group_width;
    svg += Text(left + group_width / 2, frame.bottom + kTickLength + kFontSize, Anchor::kMiddle,
                chart.groups[g]);
    for (std::size_t s = 0; s < chart.series.size(); ++s) {
      const double value = chart.series[s].values[g];
      if (!ruler.CanDraw(value)) continue;
      const double end = frame.Y(ruler.Part(value));
      svg += fmt::format(
          "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
          left + group_width * (1 - kGroupFill) / 2 + static_cast<double>(s) * bar_width,
          std::min(end, base), bar_width, std::abs(end - base), kColours[s % kColours.size()]);
    }
  }
  return std::move(canvas.svg);
}

std::string Document(unsigned width, unsigned height, std::string_view body) {
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} "
      "{1}\" font-family=\"sans-serif\" font-size=\"{2}\" fill=\"#222222\">\n{3}</svg>\n",
      width, height, kFontSize, body);
}

}  // namespace

std::string ToSvg(const LineChart& chart) { return ToSvg({&chart, 1}); }

std::string ToSvg(const BarChart& chart) {
  return Document(chart.width, chart.height, Body(chart));
}

std::string ToSvg(std::span<const LineChart> charts) {
  unsigned width = 0;
  unsigned height = 0;
  std::string body;
  for (const LineChart& chart : charts) {
    body += fmt::format("<g transform=\"translate(0 {})\">\n{}</g>\n", height, Body(chart));
    width = std::max(width, chart.width);
    height += chart.height;
  }
  return Document(width, height, body);
}

}  // namespace tercet::report
