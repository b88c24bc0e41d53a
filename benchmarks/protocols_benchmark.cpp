#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <random>

#include "tercet/mpc/builtin_protocols.h"
#include "tercet/mpc/local.h"

// Sign, and Sign with 2 x 2 max-pool, by every registered suite: three parties in three threads
// over memory, so the time is that of computation. Items are elements that enter the activation;
// offline and online are counted apart.
namespace tercet {
namespace {

using Clock = std::chrono::steady_clock;

const mpc::Registry& Protocols() {
  static const mpc::Registry registry = BuiltinProtocols();
  return registry;
}

void Layer(benchmark::State& state, const std::string& name, bool pool) {
  const auto& suite = Protocols().FindSuite(name);
  mpc::ActivationSpec spec;
  spec.layer = "act";
  spec.in = {16, 8, 8};
  if (pool) spec.pool = mpc::PoolShape{2, 2};
  spec.value_bits = 12;
  spec.out_bits = 12;
  spec.ring_bits = suite.RingBits(spec.value_bits);
  spec.batch = static_cast<std::size_t>(state.range(0));
  spec.dealt = false;
  const mpc::SuiteChoice choice{name, {}};
  const mpc::Roles roles;
  std::array<std::array<double, 2>, 3> seconds{};
  std::array<std::vector<double>, 3> queries;
  const auto rounds = static_cast<std::size_t>(state.max_iterations);
  mpc::RunParties([&](mpc::Party& party) {
    const auto id = static_cast<std::size_t>(party.Id());
    const auto activation = suite.Create(party, spec, choice, roles);
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
        auto prepared = activation->Prepare(offline, spec.batch, nullptr);
        mpc::Meet(party);
        const auto middle = Clock::now();
        online.Enter(1, "act");
        benchmark::DoNotOptimize(activation->Run(online, std::move(prepared), z));
        const auto end = Clock::now();
        seconds[id][0] += std::chrono::duration<double>(middle - start).count();
        seconds[id][1] += std::chrono::duration<double>(end - middle).count();
        queries[id].push_back(std::chrono::duration<double>(end - start).count());
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

void AddAll() {
  for (const auto& name : Protocols().SuiteNames())
    for (const bool pool : {false, true})
      benchmark::RegisterBenchmark(
          (name + (pool ? "/sign_max_pool" : "/sign")).c_str(),
          [name, pool](benchmark::State& state) { Layer(state, name, pool); })
          ->Arg(1)
          ->Arg(128)
          ->UseManualTime()
          ->Iterations(20)
          ->Unit(benchmark::kMillisecond);
}

}  // namespace
}  // namespace tercet

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  tercet::AddAll();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
