// No branch and no address of any party depends on a share, a mask, a key or an opened value. The
// test runs under Valgrind's memcheck: all that a party gets from another, in every phase, and its
// shares of the input are marked as undefined, and memcheck reports what depends on such bits. So
// does what is computed from the keys, of which each party has received one of its two.
#include <valgrind/memcheck.h>

#include "conformance/harness.h"

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

class SecretLink final : public net::Link {
 public:
  explicit SecretLink(std::unique_ptr<net::Link> inner) : inner_(std::move(inner)) {}
  void Send(net::Message message) override { inner_->Send(std::move(message)); }
  net::Message Receive(Phase phase) override {
    net::Message message = inner_->Receive(phase);
    MarkSecret(message.payload.data(), message.payload.size());
    return message;
  }
  void Flush() override { inner_->Flush(); }
  void Abort(const std::string& reason) noexcept override { inner_->Abort(reason); }
  void Close() noexcept override { inner_->Close(); }
  int Peer() const override { return inner_->Peer(); }

 private:
  std::unique_ptr<net::Link> inner_;
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

std::vector<Subject> OneHelper() {
  std::vector<Subject> subjects = Subjects();
  std::erase_if(subjects, [](const Subject& subject) { return subject.helper != 0; });
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
      Spec(ActivationKind::kSign, 0, true)};
  specs[5].pool = {2, 2};
  specs[6].pool = {3, 2};
  int done = 0;
  for (const auto& spec : specs) {
    const auto layer = MakeLayer(GetParam(), spec);
    if (!layer) continue;
    SCOPED_TRACE(fmt::format("{} >> {}, {} pool, dealt {}", mpc::ActivationName(spec.kind),
                             spec.shift, spec.pool ? spec.pool->kernel : 1, spec.dealt));
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
                      const auto activation = layer->Make(party);
                      mpc::Context offline(party, Phase::kOffline);
                      offline.Enter(1, layer->spec.layer);
                      const bool knows = layer->spec.dealt && party.Id() == layer->roles.helper;
                      auto prepared = activation->Prepare(offline, layer->spec.batch,
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
    EXPECT_EQ(Open(output), Expected(layer->spec, values));
    ++done;
  }
  EXPECT_GT(done, 0);
}

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
