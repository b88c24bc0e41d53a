// SPDX-License-Identifier: Apache-2.0
#include "programs/draw_digits.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <initializer_list>
#include <numbers>
#include <random>
#include <string>
#include <vector>

#include "tercet/base/file_writer.h"

namespace tercet::programs {
namespace {

constexpr std::size_t kSide = 28;

struct Point {
  double x, y;
};
using Stroke = std::vector<Point>;

// Part of an ellipse from angle `from` to `to` (degrees, clockwise from three o'clock), as a
// polyline.
Stroke Arc(double cx, double cy, double rx, double ry, double from, double to) {
  Stroke stroke;
  constexpr int kSteps = 24;
  for (int i = 0; i <= kSteps; ++i) {
    const double angle = (from + (to - from) * i / kSteps) * std::numbers::pi / 180;
    stroke.push_back({cx + rx * std::cos(angle), cy + ry * std::sin(angle)});
  }
  return stroke;
}

// The strokes of each digit in a box of width 0.7 and height 1 around the origin, y downwards.
std::vector<Stroke> Glyph(int digit) {
  switch (digit) {
    case 0:
      return {Arc(0, 0, 0.32, 0.5, 0, 360)};
    case 1:
      return {{{-0.12, -0.32}, {0.05, -0.5}, {0.05, 0.5}}};
    case 2:
      return {Arc(0, -0.24, 0.3, 0.26, 190, 370),
              {{0.29, -0.18}, {0.1, 0.15}, {-0.32, 0.5}, {0.34, 0.5}}};
    case 3:
      return {Arc(-0.02, -0.25, 0.28, 0.25, 200, 450), Arc(-0.02, 0.25, 0.32, 0.25, 270, 520)};
    case 4:
      return {{{-0.02, -0.5}, {-0.32, 0.12}, {0.34, 0.12}}, {{0.16, -0.2}, {0.16, 0.5}}};
    case 5:
      return {{{0.3, -0.5}, {-0.22, -0.5}, {-0.26, -0.06}}, Arc(0, 0.18, 0.32, 0.31, 215, 500)};
    case 6:
      return {Arc(0.34, 0.1, 0.62, 0.62, 245, 180), Arc(0.02, 0.22, 0.29, 0.28, 0, 360)};
    case 7:
      return {{{-0.32, -0.5}, {0.32, -0.5}, {-0.06, 0.5}}};
    case 8:
      return {Arc(0, -0.25, 0.24, 0.25, 0, 360), Arc(0, 0.25, 0.3, 0.25, 0, 360)};
    default:
      return {Arc(0, -0.22, 0.27, 0.28, 0, 360), {{0.27, -0.22}, {0.24, 0.15}, {0.12, 0.5}}};
  }
}

double DistanceToSegment(Point p, Point a, Point b) {
  const double dx = b.x - a.x, dy = b.y - a.y, length = dx * dx + dy * dy;
  const double t =
      length > 0 ? std::clamp(((p.x - a.x) * dx + (p.y - a.y) * dy) / length, 0.0, 1.0) : 0.0;
  return std::hypot(p.x - a.x - t * dx, p.y - a.y - t * dy);
}

std::vector<std::uint8_t> Draw(int digit, std::mt19937_64& rng) {
  const auto uniform = [&](double low, double high) {
    return std::uniform_real_distribution(low, high)(rng);
  };
  const double size = uniform(18.5, 20.5), turn = uniform(-0.12, 0.12),
               slant = uniform(-0.05, 0.25);
  const double width = uniform(1.2, 1.7), shift_x = uniform(-0.8, 0.8),
               shift_y = uniform(-0.8, 0.8);
  auto strokes = Glyph(digit);
  for (auto& stroke : strokes)
    for (auto& point : stroke) {
      const double x = point.x - slant * point.y, y = point.y;
      point = {kSide / 2.0 + shift_x + size * (x * std::cos(turn) - y * std::sin(turn)),
               kSide / 2.0 + shift_y + size * (x * std::sin(turn) + y * std::cos(turn))};
    }
  std::vector<std::uint8_t> pixels(kSide * kSide);
  for (std::size_t row = 0; row < kSide; ++row)
    for (std::size_t column = 0; column < kSide; ++column) {
      const Point centre{static_cast<double>(column) + 0.5, static_cast<double>(row) + 0.5};
      double distance = kSide;
      for (const auto& stroke : strokes)
        for (std::size_t i = 0; i + 1 < stroke.size(); ++i)
          distance = std::min(distance, DistanceToSegment(centre, stroke[i], stroke[i + 1]));
      pixels[row * kSide + column] = static_cast<std::uint8_t>(
          std::lround(255 * std::clamp(width + 0.5 - distance, 0.0, 1.0)));
    }
  return pixels;
}

std::string IdxHeader(std::initializer_list<std::uint32_t> words) {
  std::string text;
  for (const std::uint32_t word : words)
    for (const int shift : {24, 16, 8, 0}) text += static_cast<char>(word >> shift & 0xff);
  return text;
}

}  // namespace

void DrawDigits(const std::filesystem::path& images, const std::filesystem::path& labels,
                std::size_t count, std::uint64_t seed) {
  for (const auto& file : {images, labels}) CheckWritable(file, "draw-digits");
  std::mt19937_64 rng(seed);
  const auto number = static_cast<std::uint32_t>(count);
  std::string pixels = IdxHeader({0x00000803, number, kSide, kSide}),
              classes = IdxHeader({0x00000801, number});
  for (std::size_t i = 0; i < count; ++i) {
    const int digit = static_cast<int>(rng() % 10);
    const auto image = Draw(digit, rng);
    pixels.append(image.begin(), image.end());
    classes += static_cast<char>(digit);
  }
  const std::array outputs{Output{images, pixels}, Output{labels, classes}};
  WriteFiles(outputs);
}

}  // namespace tercet::programs
