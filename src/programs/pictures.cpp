// SPDX-License-Identifier: Apache-2.0
#include "programs/pictures.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "tercet/base/error.h"
#include "tercet/report/table.h"

namespace tercet::programs {
namespace {

constexpr std::size_t kLineWidth = 96;
constexpr std::array<std::string_view, 5> kShades{" ", "░", "▒", "▓", "█"};
constexpr std::array<std::string_view, 5> kAsciiShades{" ", ".", ":", "*", "#"};

// Mean brightness of a pixel and the one below it: a character is about twice as high as wide.
unsigned Brightness(const files::Images& images, std::size_t image, std::size_t row,
                    std::size_t column) {
  const auto& shape = images.shape;
  unsigned sum = 0, count = 0;
  for (std::size_t c = 0; c < shape.channels; ++c) {
    for (std::size_t y = row; y < std::min(row + 2, shape.height); ++y) {
      sum +=
          images.pixels[((image * shape.channels + c) * shape.height + y) * shape.width + column];
      ++count;
    }
  }
  return sum / count;
}

}  // namespace

std::string DrawPictures(const files::Images& images, std::size_t count,
                         const std::vector<std::uint8_t>& labels,
                         const std::vector<std::uint8_t>& predictions, bool utf8) {
  const auto& shades = utf8 ? kShades : kAsciiShades;
  const std::size_t shown = std::min({count, images.count, predictions.size()});
  // Signals of one dimension are stretched over their width already; a very wide one is cut.
  const std::size_t width = std::min(images.shape.width, kLineWidth);
  const std::size_t cell = std::max<std::size_t>(width, 22) + 2;
  const std::size_t across = std::max<std::size_t>(1, kLineWidth / cell);
  std::string text;
  for (std::size_t first = 0; first < shown; first += across) {
    const std::size_t last = std::min(first + across, shown);
    for (std::size_t row = 0; row < images.shape.height; row += 2) {
      std::string line;
      for (std::size_t image = first; image < last; ++image) {
        for (std::size_t column = 0; column < width; ++column)
          line += shades[Brightness(images, image, row, column) * shades.size() / 256];
        line.append(cell - width, ' ');
      }
      line.erase(line.find_last_not_of(' ') + 1);
      text += line + '\n';
    }
    for (std::size_t image = first; image < last; ++image) {
      std::string caption = fmt::format("predicted {}", predictions[image]);
      if (!labels.empty())
        caption = fmt::format("true {}, {}{}", labels[image], caption,
                              labels[image] == predictions[image] ? "" : " !");
      caption.resize(cell, ' ');
      text += caption;
    }
    text += "\n\n";
  }
  return text;
}

}  // namespace tercet::programs
