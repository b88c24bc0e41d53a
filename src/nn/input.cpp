#include "nn/input.h"

#include <fmt/format.h>

namespace tercet::nn {

std::string ShapeText(const mpc::Shape3& shape) {
  return fmt::format("{} x {} x {}", shape.channels, shape.height, shape.width);
}

}  // namespace tercet::nn
