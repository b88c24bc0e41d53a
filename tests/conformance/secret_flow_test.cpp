// SPDX-License-Identifier: Apache-2.0
// No branch and no address of any party depends on a share, a mask, a key or an opened value. The
// test runs under Valgrind's memcheck: all that a party gets from another, in every phase, and its
// shares of the input are marked as undefined, and memcheck reports what depends on such bits. So
// does what is computed from the keys, of which each party has received one of its two.
#include <valgrind/memcheck.h>

#include <string>
#include <tuple>
#include <utility>

#include "compile/float_weights.h"
#include "conformance/harness.h"
#include "tercet/compile/compile.h"
#include "tercet/infer/secure_network.h"
#include "tercet/net/wrappers.h"
#include "tercet/nn/run_plain.h"

namespace tercet::conformance {
namespace {

template <class T>
void MarkSecret(T* data, std::size_t count) {
  static_cast<void>(VALGRIND_MAKE_MEM_UNDEFINED(data, count * sizeof(T)));
}

void Mark(AnyMatrix& matrix, bool secret) {
  if (matrix.Empty()) return;
  ring::DispatchWord(matrix.Bits(), [&]<ring::Word W>(W) {
    auto& words = matrix.As<W>();
    if (secret) {
      MarkSecret(words.data(), words.size());
    } else {
      static_cast<void>(VALGRIND_MAKE_MEM_DEFINED(words.data(), words.size() * sizeof(W)));
    }
  });
}

class SecretLink final : public net::LinkWrapper {
 public:
  using LinkWrapper::LinkWrapper;
  net::Message Receive(Phase phase) override {
    net::Message message = inner_->Receive(phase);
    MarkSecret(message.payload.data(), message.payload.size());
    return message;
  }
};

/// Errors that memcheck reports meanwhile.
template <class F>
std::size_t Reports(F&& f) {
  const std::size_t before = VALGRIND_COUNT_ERRORS;
  f();
  return VALGRIND_COUNT_ERRORS - before;
}

class SecretFlowTest : public testing::TestWithParam<Subject> {
 protected:
  void SetUp() override {
    ASSERT_NE(RUNNING_ON_VALGRIND, 0) << "run this under valgrind, as ctest does";
  }
};

/// With one helper each, and without the suites that are not private: what these open they may
/// branch on.
std::vector<Subject> OneHelper() {
  std::vector<Subject> subjects = Subjects();
  std::erase_if(subjects, [](const Subject& subject) {
    const std::string suite = mpc::ParseSuiteChoice(subject.choice, "subject").name;
    return subject.helper != 0 || !FindSuite(suite).Info().is_private;
  });
  return subjects;
}
INSTANTIATE_TEST_SUITE_P(Suites, SecretFlowTest, testing::ValuesIn(OneHelper()), SubjectName);

ActivationSpec Spec(ActivationKind kind, unsigned shift, bool dealt) {
  ActivationSpec spec;
  spec.layer = "act1";
  spec.kind = kind;
  spec.in = {1, 7, 6};  // with the batch more than vectors hold, and a rest
  spec.value_bits = 12;
  spec.shift = shift;
  spec.out_bits = 16;
  spec.dealt = dealt;
  spec.batch = 5;
  return spec;
}

TEST_P(SecretFlowTest, NothingDependsOnSecrets) {
  std::vector<ActivationSpec> specs{
      Spec(ActivationKind::kSign, 0, true),   Spec(ActivationKind::kSign, 0, false),
      Spec(ActivationKind::kRelu, 0, true),   Spec(ActivationKind::kRelu, 4, true),
      Spec(ActivationKind::kSquare, 4, true), Spec(ActivationKind::kSign, 0, true),
      Spec(ActivationKind::kSign, 0, true),   Spec(ActivationKind::kTable, 4, true),
      Spec(ActivationKind::kTable, 0, true)};
  specs[5].pool = {2, 2};
  specs[6].pool = {3, 2};
  specs[8].value_bits = 8;
  int done = 0;
  for (const auto& spec : specs) {
    const auto layer = MakeLayer(GetParam(), spec);
    if (!layer) continue;
    SCOPED_TRACE(fmt::format("{} >> {}, {} pool, dealt {}", mpc::ActivationName(spec.kind),
                             spec.shift, spec.pool ? spec.pool->kernel.h : 1, spec.dealt));
    const Values values = Repeat(BordersAndRandom(12, 3), layer->spec.Elements());
    Shares shares =
        ShareOut(values, layer->spec.in.Size(), layer->spec.batch, layer->spec.ring_bits, 7);
    for (auto& share : shares) Mark(share, true);
    std::array<AnyShare, 3> output;
    mpc::LocalOptions options;
    options.wrap = [](std::unique_ptr<net::Link> link, int) {
      return std::make_unique<SecretLink>(std::move(link));
    };
    EXPECT_EQ(Reports([&] {
                mpc::RunParties(
                    [&](mpc::Party& party) {
                      const auto id = static_cast<std::size_t>(party.Id());
                      const auto activation = layer->plan.make(party);
                      mpc::Context offline(party, Phase::kOffline);
                      offline.Enter(1, layer->spec.layer);
                      const bool knows = layer->spec.dealt && party.Id() == layer->roles.helper;
                      auto prepared = mpc::PrepareAny(*activation, offline, layer->spec.batch,
                                                      knows ? &shares[id] : nullptr);
                      offline.Leave();
                      mpc::Context online(party, Phase::kOnline);
                      online.Enter(1, layer->spec.layer);
                      output[id] = activation->Run(online, std::move(prepared), shares[id]);
                      online.Leave();
                    },
                    options);
              }),
              0u);
    for (auto& share : output) {
      Mark(share.mine, false);
      Mark(share.next, false);
    }
    ExpectOutput(*layer, output, values);
    ++done;
  }
  EXPECT_GT(done, 0);
}

// Whole queries: sharing of weights and images, linear maps, pools, residuals, the class of the
// largest logit, and the result.
class SecretFlowQueryTest
    : public testing::TestWithParam<std::tuple<const char*, std::string, bool>> {};

constexpr const char* kResidual = R"(
  {"name": "c1", "type": "conv2d", "out_channels": 3, "kernel": 3, "padding": 1},
  {"name": "r1", "type": "relu"},
  {"name": "c2", "type": "conv2d", "out_channels": 3, "kernel": 3, "padding": 1},
  {"name": "add2", "type": "add", "from": "r1"},
  {"name": "r2", "type": "relu"},
  {"name": "a1", "type": "avg_pool2d", "kernel": 3, "stride": 2, "padding": 1},
  {"name": "fc", "type": "linear", "out_features": 4})";
constexpr const char* kSignAndPool = R"(
  {"name": "c1", "type": "conv2d", "out_channels": 3, "kernel": 3, "padding": 1},
  {"name": "s1", "type": "sign"},
  {"name": "p1", "type": "max_pool2d", "kernel": 2},
  {"name": "fc", "type": "linear", "out_features": 4})";

constexpr const char* kSigns = R"(
  {"name": "fc1", "type": "linear", "out_features": 7},
  {"name": "s1", "type": "sign"},
  {"name": "fc2", "type": "linear", "out_features": 4})";

TEST_P(SecretFlowQueryTest, NothingDependsOnSecrets) {
  ASSERT_NE(RUNNING_ON_VALGRIND, 0) << "run this under valgrind, as ctest does";
  const auto& [layers, suite, only_class] = GetParam();
  const auto spec = compile::Spec(R"("shape": [2, 6, 6], "mean": 0.4, "bits": 4)", layers);
  compile::CompileOptions compile;
  compile.default_fixed_bits = 24;
  compile.only_class = only_class;
  auto network = compile::Compile(compile::Weights(3).FillReal(spec).Network(spec),
                                  compile::Oracle(), compile, nullptr);
  const auto images = compile::RandomImages(network.net.input.shape, 3, 11);
  const auto plain = nn::RunPlain(network, compile::Oracle(), images, 0, 3);
  auto input = nn::QuantiseInput(network.net.input, images, 0, 3);
  const auto plan = infer::MakePlan(network.net, AllProtocols(),
                                    mpc::ParseSuiteChoice(suite, "test"), RolesWith(0), 3);
  for (auto& weights : network.weights)
    for (auto* values : {&weights.weight, &weights.bias, &weights.shortcut})
      MarkSecret(values->data(), values->size());
  MarkSecret(input.data(), input.size());
  mpc::LocalOptions options;
  options.layers = plan.layers.size();
  options.wrap = [](std::unique_ptr<net::Link> link, int) {
    return std::make_unique<SecretLink>(std::move(link));
  };
  std::vector<std::int64_t> result;
  EXPECT_EQ(Reports([&] {
              mpc::RunParties(
                  [&](mpc::Party& party) {
                    const auto& roles = plan.roles;
                    infer::SecureNetwork net(party, plan, AllProtocols());
                    net.ShareModel(party.Id() == roles.model_owner ? &network : nullptr);
                    auto part =
                        net.Run(net.Prepare(3), party.Id() == roles.data_owner ? &input : nullptr);
                    if (party.Id() == roles.receiver) result = std::move(part);
                  },
                  options);
            }),
            0u);
  static_cast<void>(VALGRIND_MAKE_MEM_DEFINED(result.data(), result.size() * sizeof(std::int64_t)));
  EXPECT_EQ(result, plain);
}
using QueryCase = std::tuple<const char*, std::string, bool>;

/// Of each private suite, and fused where it can be. Two more that are fused, of one suite's form
/// and of windows: each query takes seconds under Valgrind.
std::vector<QueryCase> QueryCases() {
  std::vector<QueryCase> cases{{kSigns, "lut:form=bit,fuse=yes", false},
                               {kSignAndPool, "lut:fuse=yes", true}};
  for (const auto& suite : PrivateSuites()) {
    cases.insert(cases.end(), {{kResidual, suite, false}, {kSignAndPool, suite, true}});
    if (const auto fused = Fused(suite)) cases.emplace_back(kSigns, *fused, false);
  }
  return cases;
}

std::string QueryName(const testing::TestParamInfo<QueryCase>& query) {
  std::string name = std::get<1>(query.param) + (std::get<0>(query.param) == kSigns ? "_signs"
                                                 : std::get<2>(query.param)         ? "_class"
                                                                                    : "_residual");
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  return name;
}
INSTANTIATE_TEST_SUITE_P(Queries, SecretFlowQueryTest, testing::ValuesIn(QueryCases()), QueryName);

// What is looked for is found.
TEST(SecretFlowSelfTest, ReportsABranchAndAnAddress) {
  ASSERT_NE(RUNNING_ON_VALGRIND, 0) << "run this under valgrind, as ctest does";
  const std::array<std::uint8_t, 4> table{1, 2, 3, 4};
  volatile std::uint8_t index = 2;
  MarkSecret(const_cast<std::uint8_t*>(&index), 1);
  volatile std::uint8_t sink = 0;
  EXPECT_EQ(Reports([&] { sink = index ^ 1; }), 0u);
  EXPECT_GT(Reports([&] { sink = table[index & 3]; }), 0u);
  EXPECT_GT(Reports([&] {
              if (index == 2) sink = table[0];
            }),
            0u);
}

}  // namespace
}  // namespace tercet::conformance
