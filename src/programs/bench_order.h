// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "programs/anonymous_file.h"
#include "programs/run_options.h"

/// What `tercet bench --testbed` tells `tercet-party bench` on its standard input: a line of JSON,
/// and behind it, byte for byte, the files whose sizes the line says. An order names no file, so it
/// reads and writes none of the machine that it is for.
namespace tercet::programs {

/// An order to say what the party is (BuildIdentity).
std::string DescribeOrder();

/// An order to take part in a run. Of `options` those that say how queries run: suite, linear,
/// optimise, link, batch, ahead, in_flight, helper_leaves and rotate_helper.
struct BenchFiles {
  std::string network;        ///< JSON
  std::string model, images;  ///< compiled, and .npy: at their owners; else empty
};
std::string RunOrder(const RunOptions& options, const BenchFiles& files);

struct BenchOrder {
  bool describe = false;
  RunOptions options;
  std::optional<AnonymousFile> network, model, images;
};

/// Reads one order and nothing behind it. ConfigError (place: "the order") for what is none, and
/// for one that ends too early. An order has its size checked before memory is taken for it.
BenchOrder ReadBenchOrder(int fd);

}  // namespace tercet::programs
