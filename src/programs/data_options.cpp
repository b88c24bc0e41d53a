// SPDX-License-Identifier: Apache-2.0
#include "programs/data_options.h"

#include <algorithm>

#include "files/data_options.h"
#include "programs/options.h"

namespace tercet::programs {
namespace {

constexpr const char* kGroup = "Images and labels";
constexpr std::size_t kMaxFirstLabel = 65536;

using files::DataOptions;

/// One of `names`, as files/data_options.h writes the values of this type.
template <class T>
CLI::Option* AddName(CLI::App& app, const std::string& name, T& value,
                     const std::vector<std::string>& names, const std::string& help) {
  auto* option =
      app.add_option_function<std::string>(
             name, [&value](const std::string& text) { value = nlohmann::json(text).get<T>(); },
             help)
          ->check(CLI::IsMember(names));
  if (const nlohmann::json usual = value; usual.is_string())
    option->default_str(usual.get<std::string>());
  return option;
}

}  // namespace

GivenDataOptions AddDataOptions(CLI::App& app, DataOptions& options) {
  GivenDataOptions given;
  const auto add = [&](CLI::Option* option, auto field) {
    option->group(kGroup);
    given.emplace_back(
        option, [field](DataOptions& to, const DataOptions& from) { to.*field = from.*field; });
  };
  add(AddName(
          app, "--values", options.values, {"auto", "pixels", "scaled", "normalised"},
          "What a number in a file is: a pixel of 0 to 255, a pixel divided by the scale of the "
          "network's input, or that less its mean and divided by its std; auto: pixels where "
          "numbers are whole, else scaled"),
      &DataOptions::values);
  add(AddName(app, "--layout", options.layout, {"nchw", "nhwc"},
              "Order of the dimensions of .npy, .csv and .u8"),
      &DataOptions::layout);
  add(app.add_flag("--transpose", options.transpose, "Swap rows and columns, as EMNIST needs"),
      &DataOptions::transpose);
  add(AddName(app, "--cifar100", options.cifar, {"fine", "coarse"},
              "The .bin files are CIFAR-100's; which of the labels to take"),
      &DataOptions::cifar);
  add(AddNumber(app, "--first-label", options.first_label, 0, kMaxFirstLabel,
                "Label of class 0, where files count from 1"),
      &DataOptions::first_label);
  add(app.add_option("--label-column", options.label_column,
                     "Labels in a CSV table: first, last, none or a name of its header; without "
                     "it the column \"label\", if any")
          ->type_name("NAME"),
      &DataOptions::label_column);
  add(app.add_option_function<std::string>(
             "--csv-header",
             [&options](const std::string& text) { options.header = text == "yes"; },
             "Whether CSV tables begin with a header; without it, as it looks")
          ->check(CLI::IsMember({"yes", "no"})),
      &DataOptions::header);
  return given;
}

std::vector<std::string> DataWords(const DataOptions& options) {
  std::vector<std::string> words;
  const auto described = files::DescribeDataOptions(options);
  for (const auto& [key, value] : described.items()) {
    std::string name = "--" + key;
    std::replace(name.begin(), name.end(), '_', '-');
    words.push_back(name);
    if (key == "transpose") continue;
    if (value.is_boolean()) {
      words.emplace_back(value.get<bool>() ? "yes" : "no");
    } else {
      words.push_back(value.is_string() ? value.get<std::string>() : value.dump());
    }
  }
  return words;
}

}  // namespace tercet::programs
