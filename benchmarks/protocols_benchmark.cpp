// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>

#include "base/clock.h"
#include "programs/failure.h"
#include "tercet/base/error.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"

// Every kind of activation by every registered suite and form that has it: three parties in three
// threads over memory, so the time is that of computation. Items are elements that enter the
// activation; offline and online are counted apart.
namespace tercet {
namespace {

const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

struct Kind {
  const char* name;
  mpc::ActivationKind kind;
  bool pool;
  unsigned value_bits, shift, out_bits;
};

// Widths of networks with Sign, and of networks in fixed point.
constexpr std::array<Kind, 6> kKinds{
    {{"sign", mpc::ActivationKind::kSign, false, 12, 0, 12},
     {"sign_max_pool", mpc::ActivationKind::kSign, true, 12, 0, 12},
     {"relu", mpc::ActivationKind::kRelu, false, 12, 0, 12},
     {"relu_28_bits", mpc::ActivationKind::kRelu, false, 28, 0, 28},
     {"relu_shift_8", mpc::ActivationKind::kRelu, false, 20, 8, 20},
     {"square_shift_8", mpc::ActivationKind::kSquare, false, 20, 8, 24}}};

mpc::ActivationSpec SpecOf(const Kind& kind, const mpc::Suite& suite, std::size_t batch) {
  mpc::ActivationSpec spec;
  spec.layer = "act";
  spec.kind = kind.kind;
  spec.shift = kind.shift;
  spec.in = {16, 8, 8};
  if (kind.pool) spec.pool = mpc::PoolShape{2, 2};
  spec.value_bits = kind.value_bits;
  spec.out_bits = kind.out_bits;
  spec.batch = batch;
  spec.dealt = false;
  spec.ring_bits = suite.RingBits(spec);
  return spec;
}

bool Has(const mpc::SuiteChoice& choice, const Kind& kind) {
  try {
    const auto& suite = Protocols().FindSuite(choice.name);
    suite.Plan(SpecOf(kind, suite, 1), choice, {});
  } catch (const UnsupportedError&) {
    return false;
  }
  return true;
}

void Layer(benchmark::State& state, const mpc::SuiteChoice& choice, const Kind& kind) {
  const auto& suite = Protocols().FindSuite(choice.name);
  const auto spec = SpecOf(kind, suite, static_cast<std::size_t>(state.range(0)));
  const auto plan = suite.Plan(spec, choice, {});
  std::array<std::array<double, 2>, 3> seconds{};
  std::array<std::vector<double>, 3> queries;
  const auto rounds = static_cast<std::size_t>(state.max_iterations);
  mpc::RunParties([&](mpc::Party& party) {
    const auto id = static_cast<std::size_t>(party.Id());
    const auto activation = plan.make(party);
    ring::DispatchWord(spec.ring_bits, [&](auto word) {
      using W = decltype(word);
      std::mt19937_64 rng(id);
      auto values = ring::MakeMatrix<W>(spec.in.Size(), spec.batch);
      for (auto& v : values) v = static_cast<W>(rng());
      const ring::AnyMatrix z(std::move(values), spec.ring_bits);
      for (std::size_t round = 0; round < rounds; ++round) {
        mpc::Meet(party);
        const auto start = Clock::now();
        mpc::Context offline(party, mpc::Phase::kOffline), online(party, mpc::Phase::kOnline);
        offline.Enter(1, "act");
        auto prepared = activation->Prepare(offline, spec.batch);
        const std::chrono::duration<double> offline_time = Clock::now() - start;
        mpc::Meet(party);
        const auto middle = Clock::now();
        online.Enter(1, "act");
        benchmark::DoNotOptimize(activation->Run(online, std::move(prepared), z));
        const std::chrono::duration<double> online_time = Clock::now() - middle;
        seconds[id][0] += offline_time.count();
        seconds[id][1] += online_time.count();
        queries[id].push_back((offline_time + online_time).count());
      }
    });
  });
  std::size_t round = 0;
  for ([[maybe_unused]] auto _ : state) {
    state.SetIterationTime(std::max({queries[0][round], queries[1][round], queries[2][round]}));
    ++round;
  }
  const double elements = static_cast<double>(spec.Elements() * rounds);
  const auto slowest = [&](std::size_t phase) {
    return std::max({seconds[0][phase], seconds[1][phase], seconds[2][phase]}) * 1e9 / elements;
  };
  state.counters["offline_ns"] = slowest(0);
  state.counters["online_ns"] = slowest(1);
  state.SetItemsProcessed(static_cast<std::int64_t>(elements));
}

/// The suite as it is, and the variants among which `auto` chooses, but for fused ones: here
/// nothing follows that they could be fused with.
std::vector<mpc::SuiteChoice> ChoicesOf(const std::string& name) {
  const auto& suite = Protocols().FindSuite(name);
  std::vector<mpc::SuiteChoice> choices{{name, {}}};
  for (const auto& variant : suite.Info().variants)
    if (variant.figures && !variant.options.empty() && variant.options != "fuse=yes")
      choices.push_back(suite.Choice(variant));
  return choices;
}

void AddAll() {
  for (const auto& name : Protocols().SuiteNames())
    for (const auto& choice : ChoicesOf(name))
      for (const Kind& kind : kKinds)
        if (Has(choice, kind))
          benchmark::RegisterBenchmark(
              fmt::format("{}/{}", choice.Text(), kind.name).c_str(),
              [choice, &kind](benchmark::State& state) { Layer(state, choice, kind); })
              ->Arg(1)
              ->Arg(128)
              ->UseManualTime()
              ->Iterations(20)
              ->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace tercet

int main(int argc, char** argv) {
  return tercet::programs::GuardedMain("tercet_protocols_benchmark", [&] {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return tercet::programs::kExitUsage;
    tercet::AddAll();
    benchmark::RunSpecifiedBenchmarks();
    return tercet::programs::kExitOk;
  });
}
