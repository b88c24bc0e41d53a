#pragma once

#include <string>

#include "base/json.h"
#include "tercet/base/file_reader.h"
#include "tercet/mpc/spec.h"

/// What the readers of this floor share. All functions are thread safe.
namespace tercet::nn {

/// "1 x 28 x 28".
std::string ShapeText(const mpc::Shape3& shape);

}  // namespace tercet::nn
