// SPDX-License-Identifier: Apache-2.0
#include "files/data_options.h"

#include "base/json.h"

namespace tercet::files {

void ReadDataOptions(const nlohmann::json& object, DataOptions& options) {
  const auto read = [&](const char* key, auto& value) { ReadIfPresent(object, key, value); };
  read("values", options.values);
  read("layout", options.layout);
  read("transpose", options.transpose);
  read("cifar100", options.cifar);
  read("first_label", options.first_label);
  read("label_column", options.label_column);
  if (object.contains("csv_header")) options.header = object.at("csv_header").get<bool>();
}

nlohmann::ordered_json DescribeDataOptions(const DataOptions& options) {
  const DataOptions usual;
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  const auto describe = [&](const char* key, const auto& value, const auto& usual_value) {
    if (value != usual_value) object[key] = value;
  };
  describe("values", options.values, usual.values);
  describe("layout", options.layout, usual.layout);
  describe("transpose", options.transpose, usual.transpose);
  describe("cifar100", options.cifar, usual.cifar);
  describe("first_label", options.first_label, usual.first_label);
  describe("label_column", options.label_column, usual.label_column);
  if (options.header) object["csv_header"] = *options.header;
  return object;
}

}  // namespace tercet::files
