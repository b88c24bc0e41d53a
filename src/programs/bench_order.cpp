// SPDX-License-Identifier: Apache-2.0
#include "programs/bench_order.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json.h"
#include "files/byte_reader.h"
#include "files/schema_check.h"
#include "tercet/base/error.h"
#include "tercet/base/file_writer.h"

namespace tercet::programs {
namespace {

constexpr const char* kPlace = "the order";
constexpr std::size_t kMaxLine = 1 << 14, kPiece = 1 << 20;

// Suite, link and objective are texts that a party checks as those of its own command line.
constexpr char kOrderSchema[] = R"json({
  "title": "the order", "description": "an object", "type": "object",
  "required": ["order"], "additionalProperties": false,
  "properties": {
    "order": {"enum": ["describe", "run"], "description": "\"describe\" or \"run\""},
    "suite": {"type": "string", "description": "a string"},
    "linear": {"enum": ["auto", "clear", "replicated", "public"],
               "description": "\"auto\", \"clear\", \"replicated\" or \"public\""},
    "optimise": {"type": "string", "description": "a string"},
    "link": {"type": "string", "description": "a string"},
    "batch": {"type": "integer", "minimum": 1, "maximum": 4096,
              "description": "an integer from 1 to 4096"},
    "ahead": {"type": "integer", "minimum": 0, "maximum": 1000000,
              "description": "an integer from 0 to 1000000"},
    "in_flight": {"type": "integer", "minimum": 1, "maximum": 64,
                  "description": "an integer from 1 to 64"},
    "helper_leaves": {"type": "boolean", "description": "true or false"},
    "rotate_helper": {"type": "boolean", "description": "true or false"},
    "network_bytes": {"type": "integer", "minimum": 1, "maximum": 16777216,
                      "description": "an integer from 1 to 16777216"},
    "model_bytes": {"type": "integer", "minimum": 0, "maximum": 4294967296,
                    "description": "an integer from 0 to 4294967296"},
    "images_bytes": {"type": "integer", "minimum": 0, "maximum": 4294967296,
                     "description": "an integer from 0 to 4294967296"}
  }
})json";
static_assert(kMaxBatch == 4096 && kMaxQueries == 1000000 && infer::kMaxInFlight == 64);

// Calls f(key, setting) for what an order says of how queries run.
template <class Options, class F>
void ForSettings(Options& options, F&& f) {
  f("suite", options.suite);
  f("linear", options.linear);
  f("optimise", options.optimise);
  f("link", options.link);
  f("batch", options.batch);
  f("ahead", options.ahead);
  f("in_flight", options.in_flight);
  f("helper_leaves", options.helper_leaves);
  f("rotate_helper", options.rotate_helper);
}

[[noreturn]] void Refuse(const std::string& problem) { throw ConfigError(kPlace, problem); }

// Up to `size` bytes; fewer only where no more come.
std::size_t ReadUpTo(int fd, char* to, std::size_t size) {
  std::size_t have = 0;
  while (have < size) {
    const ssize_t count = ::read(fd, to + have, size - have);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) Refuse(fmt::format("cannot be read: {}", std::strerror(errno)));
    if (count == 0) break;
    have += static_cast<std::size_t>(count);
  }
  return have;
}

// Byte after byte, so that nothing of what follows is taken.
std::string ReadLine(int fd) {
  std::string line;
  for (char byte = 0; ReadUpTo(fd, &byte, 1) == 1; line.push_back(byte)) {
    if (byte == '\n') return line;
    if (line.size() == kMaxLine) Refuse(fmt::format("has no end of line in {} bytes", kMaxLine));
  }
  Refuse(line.empty() ? "there is none; `tercet bench --testbed` starts this command and sends it"
                      : "ended in its first line");
}

std::optional<AnonymousFile> ReadContent(int fd, std::uint64_t size, const char* what) {
  if (size == 0) return std::nullopt;
  AnonymousFile file;
  std::string piece;
  for (std::uint64_t left = size; left > 0; left -= piece.size()) {
    piece.resize(std::min<std::uint64_t>(left, kPiece));
    if (ReadUpTo(fd, piece.data(), piece.size()) < piece.size())
      Refuse(fmt::format("ended in the {}, of which it announced {} bytes", what, size));
    WriteFile(file.Path(), piece);
  }
  return file;
}

}  // namespace

std::string DescribeOrder() { return nlohmann::json{{"order", "describe"}}.dump() + "\n"; }

std::string RunOrder(const RunOptions& options, const BenchFiles& files) {
  nlohmann::json line{{"order", "run"},
                      {"network_bytes", files.network.size()},
                      {"model_bytes", files.model.size()},
                      {"images_bytes", files.images.size()}};
  ForSettings(options, [&](const char* key, const auto& value) { line[key] = value; });
  return line.dump() + "\n" + files.network + files.model + files.images;
}

BenchOrder ReadBenchOrder(int fd) {
  static const files::Schema schema(kOrderSchema);
  const auto line = ReadJson(ReadLine(fd), kPlace, {.values = 64});
  schema.Check(line, kPlace);
  BenchOrder order;
  order.describe = line.at("order") == "describe";
  if (order.describe) return order;
  const auto read = [&](const char* key, auto& value) {
    if (!line.contains(key)) Refuse(fmt::format("has no {}", key));
    line.at(key).get_to(value);
  };
  ForSettings(order.options, read);
  order.options.batch_given = true;
  std::uint64_t network = 0, model = 0, images = 0;
  read("network_bytes", network);
  read("model_bytes", model);
  read("images_bytes", images);
  order.network = ReadContent(fd, network, "network");
  order.model = ReadContent(fd, model, "model");
  order.images = ReadContent(fd, images, "images");
  return order;
}

}  // namespace tercet::programs
