// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "tercet/nn/network.h"
#include "tercet/service/package.h"

namespace tercet::service {

/// What a client must know of a model to ask it; public.
struct ModelInfo {
  std::string name, version;
  crypto::Digest digest{};
  nn::InputSpec input;
  unsigned input_bits = 0;   ///< ring that images are shared in
  unsigned output_bits = 0;  ///< ring that results are shared in
  std::size_t classes = 0;
  bool only_class = false;  ///< 0 is left of the class and 1 of the others, in place of logits
  bool operator==(const ModelInfo&) const = default;
};

ModelInfo InfoOf(const ServedModel& model, const mpc::Registry& registry);
/// The document of GET /v2/models/NAME; docs/service.md lists its fields.
std::string ModelInfoToJson(const ModelInfo& info);
/// ConfigError (`place` with the JSON pointer) for a document that is none, or with values that
/// nothing can be computed with.
ModelInfo ModelInfoFromJson(const std::string& text, const std::string& place);

}  // namespace tercet::service
