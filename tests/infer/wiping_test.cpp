// SPDX-License-Identifier: Apache-2.0
// What is freed has been wiped: an allocator that looks at every large block that comes back while
// three parties share a model, prepare queries, write them down, read them and run them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "net/failing_link.h"
#include "tercet/infer/secure_network.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"

namespace {

// Blocks from this size on hold shares, tables, keys or messages here, and nothing else.
constexpr std::size_t kLarge = 24 << 10;
constexpr std::size_t kHead = 16;  // before each block: its size

std::atomic<bool> watching{false};
std::atomic<std::size_t> freed{0}, unwiped{0};

void* Allocate(std::size_t size) {
  auto* block = static_cast<std::uint8_t*>(std::malloc(size + kHead));
  if (block == nullptr) throw std::bad_alloc();
  *reinterpret_cast<std::size_t*>(block) = size;
  return block + kHead;
}

void Free(void* p) {
  if (p == nullptr) return;
  auto* bytes = static_cast<std::uint8_t*>(p);
  const std::size_t size = *reinterpret_cast<std::size_t*>(bytes - kHead);
  if (watching && size >= kLarge) {
    ++freed;
    if (!std::all_of(bytes, bytes + size, [](std::uint8_t b) { return b == 0; })) ++unwiped;
  }
  std::free(bytes - kHead);
}

}  // namespace

void* operator new(std::size_t size) { return Allocate(size); }
void* operator new[](std::size_t size) { return Allocate(size); }
void operator delete(void* p) noexcept { Free(p); }
void operator delete[](void* p) noexcept { Free(p); }
void operator delete(void* p, std::size_t) noexcept { Free(p); }
void operator delete[](void* p, std::size_t) noexcept { Free(p); }

namespace tercet::infer {
namespace {

class Watch {
 public:
  Watch() {
    freed = unwiped = 0;
    watching = true;
  }
  ~Watch() { watching = false; }
};

template <class Container>
void FreeOne() {
  Container values(kLarge, 7);
  ASSERT_EQ(values.size(), kLarge);
}

TEST(Wiping, TheWatchSeesWhatIsNotWiped) {
  const Watch watch;
  FreeOne<std::vector<std::uint8_t>>();
  EXPECT_EQ(unwiped, 1u);
  FreeOne<Bytes>();
  EXPECT_EQ(unwiped, 1u);
  EXPECT_EQ(freed, 2u);
}

TEST(Wiping, BuffersAndMatrices) {
  const Watch watch;
  {
    Bytes grown;
    for (std::size_t i = 0; i < 4 * kLarge; ++i) grown.push_back(static_cast<std::uint8_t>(i | 1));
    Bytes copy = grown, moved = std::move(grown);
    copy.resize(kLarge);
    copy.shrink_to_fit();
    auto matrix = ring::MakeMatrix<std::uint32_t>(100, 100);
    matrix.fill(0xabcdef);
    ring::AnyMatrix any(matrix, 32);
    matrix = ring::MakeMatrix<std::uint32_t>(200, 50);
    matrix.fill(9);
    any = any.ToRing(20);
    any = any.ToRing(9);
  }
  EXPECT_GE(freed, 6u);
  EXPECT_EQ(unwiped, 0u);
}

TEST(Wiping, AnExceptionWipesToo) {
  const Watch watch;
  EXPECT_THROW(
      {
        Bytes bytes(kLarge, 1);
        auto matrix = ring::MakeMatrix<std::uint64_t>(100, 100);
        matrix.fill(1);
        mpc::Archive archive;
        archive(bytes);
        throw ProtocolError("stop");
      },
      ProtocolError);
  EXPECT_EQ(freed, 3u);
  EXPECT_EQ(unwiped, 0u);
}

const mpc::Registry& Protocols() {
  static const auto registry = BuiltinProtocols();
  return registry;
}

nn::PublicLayer Dense(const char* name, std::size_t in, std::size_t out, mpc::ActivationKind kind) {
  nn::PublicLayer layer;
  layer.name = name;
  layer.type = "linear";
  layer.linear.in = {in, 1, 1};
  layer.linear.out_channels = out;
  layer.activation = kind;
  layer.value_bits = 20;
  return layer;
}

// Large enough that all shares are large, with a batch of 64.
nn::IntegerNetwork Network() {
  nn::IntegerNetwork network;
  network.net.name = "Wiped";
  network.net.input.shape = {600, 1, 1};
  network.net.input.bits = 8;
  network.net.layers = {Dense("fc1", 600, 500, mpc::ActivationKind::kSign),
                        Dense("fc2", 500, 400, mpc::ActivationKind::kRelu),
                        Dense("fc3", 400, 10, mpc::ActivationKind::kNone)};
  for (const auto& layer : network.net.layers) {
    nn::LayerWeights weights;
    weights.weight.assign(layer.linear.out_channels * layer.linear.Depth(), 1);
    weights.bias.assign(layer.linear.BiasCount(), -3);
    network.weights.push_back(std::move(weights));
  }
  return network;
}

class WipingQuery : public testing::TestWithParam<const char*> {
 protected:
  static constexpr std::size_t kBatch = 64;
  static constexpr int kMany = 1 << 20;
  // Everything that a party does, with links of party 1 that fail after `messages`. Returns how
  // many it has sent.
  static int Run(int messages) {
    const nn::IntegerNetwork network = Network();
    const auto plan = MakePlan(network.net, Protocols(), {GetParam(), {}}, {}, kBatch);
    const std::vector<std::int64_t> input(600 * kBatch, 5);
    std::atomic<int> left = messages;
    mpc::LocalOptions options;
    options.layers = plan.layers.size();
    options.wrap = [&](std::unique_ptr<net::Link> link, int owner) -> std::unique_ptr<net::Link> {
      if (owner != 1) return link;
      return std::make_unique<net::FailingLink>(std::move(link), left);
    };
    const Watch watch;
    mpc::RunParties(
        [&](mpc::Party& party) {
          SecureNetwork net(party, plan, Protocols());
          auto shares = net.ShareModel(party.Id() == plan.roles.model_owner ? &network : nullptr);
          mpc::Archive model;
          model(shares);
          auto query = net.Prepare(kBatch);
          SecureNetwork::Query again;
          {
            mpc::Archive written;
            net.Visit(written, query);
            mpc::Archive read(written.Written(), "query");
            net.Visit(read, again);
          }
          net.Run(std::move(again), party.Id() == plan.roles.data_owner ? &input : nullptr);
        },
        options);
    return messages - left;
  }
};

TEST_P(WipingQuery, LeavesNothing) {
  Run(kMany);
  EXPECT_GT(freed, 50u);
  EXPECT_EQ(unwiped, 0u);
}

TEST_P(WipingQuery, LeavesNothingWhenItFails) {
  const int all = Run(kMany);
  for (const int messages : {all / 2, all * 3 / 4, all - 1}) {
    EXPECT_THROW(Run(messages), Error) << messages;
    EXPECT_GT(freed, 10u) << messages;
    EXPECT_EQ(unwiped, 0u) << messages;
  }
}

INSTANTIATE_TEST_SUITE_P(Suites, WipingQuery, testing::Values("lut", "fss", "aby3"));

}  // namespace
}  // namespace tercet::infer
