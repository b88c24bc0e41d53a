// SPDX-License-Identifier: Apache-2.0
#include "tercet/service/package.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "base/scratch.h"
#include "service/small_service.h"

namespace tercet::service {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::size_t kHeaderAt = 16;

class Package : public testing::Test {
 protected:
  ServedModel Read(int id, ByteSpan package) const {
    return ReadPackage(package, world_.deployment, id, world_.keys[static_cast<std::size_t>(id)],
                       Protocols(), "p");
  }
  ServedModel Read(int id) const { return Read(id, package_); }
  std::string HeaderText() const {
    const std::size_t size = package_[12] | package_[13] << 8U | package_[14] << 16U;
    return {package_.begin() + kHeaderAt, package_.begin() + static_cast<long>(kHeaderAt + size)};
  }
  // The package with another header in place of its own.
  Bytes WithHeader(const std::string& text) const {
    Bytes changed(package_.begin(), package_.begin() + 12);
    for (int i = 0; i < 4; ++i)
      changed.push_back(static_cast<std::uint8_t>(text.size() >> (8 * i)));
    changed.insert(changed.end(), text.begin(), text.end());
    changed.insert(changed.end(),
                   package_.begin() + static_cast<long>(kHeaderAt + HeaderText().size()),
                   package_.end());
    return changed;
  }
  void ExpectRefused(ByteSpan package, const std::string& text, int id = 1) const {
    ExpectConfigError([&] { Read(id, package); }, "p", text);
  }

  SmallDeployment world_;
  nn::IntegerNetwork model_ = SmallModel();
  Bytes package_ = SmallPackage(model_, world_.deployment);
};

// The sum of a tensor's shares, of which each server has two.
template <class Member>
std::vector<std::int64_t> Opened(const std::array<ServedModel, 3>& servers, std::size_t layer,
                                 Member member) {
  const auto& first = servers[0].shares.layers[layer].*member;
  return ring::DispatchWord(first.mine.Bits(), [&]<ring::Word W>(W) {
    std::vector<std::int64_t> values;
    for (std::size_t i = 0; i < first.mine.template As<W>().size(); ++i) {
      W sum = 0;
      for (std::size_t p = 0; p < 3; ++p) {
        const auto& share = servers[p].shares.layers[layer].*member;
        const auto& after = servers[(p + 1) % 3].shares.layers[layer].*member;
        const auto reduce = [&](W value) { return ring::Reduce(value, first.mine.Bits()); };
        EXPECT_EQ(reduce(share.next.template As<W>().data()[i]),
                  reduce(after.mine.template As<W>().data()[i]));
        sum = static_cast<W>(sum + share.mine.template As<W>().data()[i]);
      }
      values.push_back(ring::Decode(ring::Reduce(sum, first.mine.Bits()), first.mine.Bits()));
    }
    return values;
  });
}

TEST_F(Package, GivesTheServersSharesOfTheModel) {
  const std::array<ServedModel, 3> servers{Read(0), Read(1), Read(2)};
  for (std::size_t k = 0; k < model_.weights.size(); ++k) {
    using Layer = infer::SecureNetwork::ModelShares::Layer;
    EXPECT_EQ(Opened(servers, k, &Layer::weight), model_.weights[k].weight);
    EXPECT_EQ(Opened(servers, k, &Layer::bias), model_.weights[k].bias);
  }
  for (const auto& server : servers) {
    EXPECT_EQ(server.header.name, "small");
    EXPECT_EQ(server.header.version, "1");
    EXPECT_EQ(server.network.layers, model_.net.layers);
    EXPECT_EQ(server.header.digest, servers[0].header.digest);
  }
}

// Weights are shared anew each time, and so are the digests: they say nothing about weights.
TEST_F(Package, OfTheSameModelIsAnotherEachTime) {
  const Bytes again = SmallPackage(model_, world_.deployment);
  EXPECT_NE(Read(1).header.digest, Read(1, again).header.digest);
  EXPECT_NE(Read(1).header.commitments, Read(1, again).header.commitments);
}

TEST_F(Package, CutShortAnywhereIsRefused) {
  const std::size_t header = kHeaderAt + HeaderText().size();
  for (std::size_t size = 0; size < package_.size(); size += size < header ? 7 : 1) {
    const ByteSpan cut = ByteSpan(package_).first(size);
    EXPECT_THROW(Read(1, cut), ConfigError) << size;
  }
  ExpectRefused(ByteSpan(package_).first(package_.size() - 1), "is cut short");
  ExpectRefused(ByteSpan(package_).first(header), "is cut short");
  ExpectRefused(ByteSpan(package_).first(header - 1), "is cut short");
  Bytes longer = package_;
  longer.push_back(0);
  ExpectRefused(longer, "is too long");
}

TEST_F(Package, OfAnotherDeploymentIsRefused) {
  const SmallDeployment other;
  ExpectConfigError(
      [&] { ReadPackage(package_, other.deployment, 1, other.keys[1], Protocols(), "p"); }, "p",
      "was published for another deployment");
}

TEST_F(Package, SealedToAnotherKeyIsRefused) {
  ExpectConfigError(
      [&] { ReadPackage(package_, world_.deployment, 1, world_.keys[2], Protocols(), "p"); }, "p",
      "the part of server 1 was sealed to another key");
}

TEST_F(Package, WithAChangedHeaderIsRefused) {
  json header = json::parse(HeaderText());
  header["version"] = "2";
  ExpectRefused(WithHeader(header.dump()), "belongs to another header");
  header = json::parse(HeaderText());
  header["parts"][0]["commitment"] = std::string(64, '0');
  ExpectRefused(WithHeader(header.dump()), "belongs to another header");
  // Even where the JSON says the same.
  ExpectRefused(WithHeader(HeaderText() + " "), "belongs to another header");
}

TEST_F(Package, EveryChangedByteIsRefused) {
  const std::size_t header = kHeaderAt + HeaderText().size();
  const std::size_t part0 = json::parse(HeaderText())["parts"][0]["bytes"].get<std::size_t>();
  const std::size_t part1 = json::parse(HeaderText())["parts"][1]["bytes"].get<std::size_t>();
  for (std::size_t i = 0; i < header + part0 + part1; i += i < header ? 5 : 1) {
    if (i >= header && i < header + part0) continue;  // not this server's
    Bytes changed = package_;
    changed[i] ^= 1;
    EXPECT_THROW(Read(1, changed), Error) << i;
  }
}

// A part is bound to its header: parts of two packages of one model cannot be mixed.
TEST_F(Package, WithAPartOfAnotherIsRefused) {
  const Bytes other = SmallPackage(model_, world_.deployment);
  ASSERT_EQ(other.size(), package_.size());
  Bytes mixed = package_;
  std::copy(other.begin() + static_cast<long>(kHeaderAt + HeaderText().size()), other.end(),
            mixed.begin() + static_cast<long>(kHeaderAt + HeaderText().size()));
  ExpectRefused(mixed, "belongs to another header");
}

TEST_F(Package, ALyingHeaderIsRefusedByItsField) {
  const auto refused = [&](const json& header, const std::string& place, const std::string& text) {
    ExpectConfigError([&] { Read(1, WithHeader(header.dump())); }, place, text);
  };
  json header = json::parse(HeaderText());
  header["parts"][1]["bytes"] = 1 << 30;
  refused(header, "p", "is cut short");
  header = json::parse(HeaderText());
  header["parts"][1]["bytes"] = header["parts"][1]["bytes"].get<int>() - 1;
  header["parts"][0]["bytes"] = header["parts"][0]["bytes"].get<int>() + 1;
  refused(header, "p", "the part of server 1 has");
  header = json::parse(HeaderText());
  header["name"] = "../etc";
  refused(header, "p /name", "1 to 64 letters");
  header = json::parse(HeaderText());
  header["network"]["layers"][0]["kernel"] = 9;
  EXPECT_THROW(Read(1, WithHeader(header.dump())), ConfigError);
  header = json::parse(HeaderText());
  header["extra"] = 1;
  EXPECT_THROW(Read(1, WithHeader(header.dump())), ConfigError);
}

TEST_F(Package, ASuiteThatIsNotPrivateIsRefused) {
  try {
    SmallPackage(model_, world_.deployment, "small", "cbnn");
    ADD_FAILURE() << "cbnn was taken";
  } catch (const UnsupportedError& e) {
    EXPECT_THAT(e.what(), HasSubstr("which is not private"));
  }
}

TEST_F(Package, ANameThatIsNoneIsRefused) {
  for (const char* name : {"", "a/b", "a b", "\xc3\xa4"})
    ExpectConfigError([&] { SmallPackage(model_, world_.deployment, name); }, "name",
                      "expected 1 to 64 letters");
}

}  // namespace
}  // namespace tercet::service
