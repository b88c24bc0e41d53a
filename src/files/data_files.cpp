// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>
#include <random>
#include <string_view>

#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/files/images.h"

namespace tercet::files {

DataFiles ParseDataFiles(const std::string& text) {
  DataFiles data;
  std::error_code ignored;
  if (std::filesystem::exists(text, ignored)) return {{text}, std::nullopt};
  std::string_view names = text;
  const std::size_t at = names.rfind('@');
  const std::string_view suffix = at == std::string_view::npos ? "" : names.substr(at + 1);
  const bool test = suffix.starts_with("test:");
  if (test || suffix.starts_with("train:")) {
    const std::string_view numbers = suffix.substr(suffix.find(':') + 1);
    const std::size_t colon = std::min(numbers.find(':'), numbers.size());
    const std::string_view part = numbers.substr(0, colon);
    const std::string_view seed = numbers.substr(std::min(colon + 1, numbers.size()));
    Subset subset{.test = test};
    const auto parsed_part =
        std::from_chars(part.data(), part.data() + part.size(), subset.test_part);
    const auto parsed_seed = std::from_chars(seed.data(), seed.data() + seed.size(), subset.seed);
    if (parsed_part.ec != std::errc{} || parsed_part.ptr != part.data() + part.size() ||
        parsed_seed.ec != std::errc{} || parsed_seed.ptr != seed.data() + seed.size() ||
        !(subset.test_part > 0 && subset.test_part < 1)) {
      throw ConfigError(text, fmt::format("found the subset '{}', expected train:PART:SEED or "
                                          "test:PART:SEED with 0 < PART < 1 and a whole SEED",
                                          Printable(suffix)));
    }
    data.subset = subset;
    names = names.substr(0, at);
  }
  while (true) {
    const std::size_t comma = std::min(names.find(','), names.size());
    if (comma == 0) throw ConfigError(text, "found an empty file name, expected FILE[,FILE...]");
    data.files.emplace_back(names.substr(0, comma));
    if (comma == names.size()) return data;
    names.remove_prefix(comma + 1);
  }
}

std::vector<std::size_t> SubsetIndices(const Subset& subset, std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), std::size_t{0});
  // The generator and its use are spelt out, as std::shuffle differs between libraries.
  std::mt19937_64 generator(subset.seed);
  for (std::size_t i = count; i-- > 1;) {
    __extension__ using Wide = unsigned __int128;
    const auto j = static_cast<std::size_t>(static_cast<Wide>(generator()) * (i + 1) >> 64);
    std::swap(order[i], order[j]);
  }
  const auto middle = order.begin() + std::llround(subset.test_part * static_cast<double>(count));
  return subset.test ? std::vector(order.begin(), middle) : std::vector(middle, order.end());
}

}  // namespace tercet::files
