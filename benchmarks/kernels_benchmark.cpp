// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "multiply_add_peak.h"
#include "programs/failure.h"
#include "tercet/ring/kernels.h"
#include "tercet/ring/pack.h"

/// The ring kernels, every available implementation: the products of a small network's layers
/// (MnistNet3's: two convolutions, one row of the image a call, and a full layer), for a batch of
/// 128 images and for one, packing, and the bit tables; beside them the peak of the processor's
/// multiplications (MAC: products added to sums, a second). Choose with
/// --benchmark_filter=<kernel>/<implementation>.
namespace tercet::ring {
namespace {

struct ProductShape {
  const char* name;
  std::size_t outputs;
  std::size_t depth;
  std::size_t cols;
};

constexpr ProductShape kShapes[] = {
    {"conv1", 16, 25, 24 * 128},  {"conv2", 16, 400, 8 * 128},  {"fc", 100, 256, 128},
    {"conv1_single", 16, 25, 24}, {"conv2_single", 16, 400, 8}, {"fc_single", 100, 256, 1},
    {"fc_deep", 128, 784, 128},   {"conv_cols16", 16, 400, 16},
};

template <class W>
std::vector<W> RandomWords(std::size_t count, std::uint64_t below = 0) {
  std::mt19937_64 random(count);
  std::vector<W> words(count);
  for (W& word : words) word = static_cast<W>(below == 0 ? random() : random() % below);
  return words;
}

template <class W>
void Product(benchmark::State& state, const Kernels& kernels, const ProductShape& shape) {
  const auto w = RandomWords<W>(shape.outputs * shape.depth);
  const auto x = RandomWords<W>(shape.depth * shape.cols);
  auto y = RandomWords<W>(shape.outputs * shape.cols);
  std::vector<const W*> rows;
  for (std::size_t k = 0; k < shape.depth; ++k) rows.push_back(x.data() + k * shape.cols);
  std::vector<W*> targets;
  for (std::size_t m = 0; m < shape.outputs; ++m) targets.push_back(y.data() + m * shape.cols);
  for (auto _ : state) {
    ProductOf<W>(kernels)(targets.data(), shape.outputs, shape.cols, w.data(), rows.data(),
                          shape.depth);
    benchmark::ClobberMemory();
  }
  state.counters["MAC"] =
      benchmark::Counter(static_cast<double>(shape.outputs * shape.depth * shape.cols),
                         benchmark::Counter::kIsIterationInvariantRate);
}

constexpr std::size_t kElements = std::size_t{1} << 14;

template <class W>
void Packing(benchmark::State& state, void (*pack)(const W*, std::size_t, unsigned, std::uint8_t*),
             unsigned bits) {
  const auto values = RandomWords<W>(kElements);
  std::vector<std::uint8_t> out(PackedBytes(kElements, bits));
  for (auto _ : state) {
    pack(values.data(), kElements, bits, out.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kElements * sizeof(W)));
}

template <class W>
void Unpacking(benchmark::State& state,
               void (*unpack)(const std::uint8_t*, std::size_t, unsigned, W*), unsigned bits) {
  const auto in = RandomWords<std::uint8_t>(PackedBytes(kElements, bits));
  std::vector<W> values(kElements);
  for (auto _ : state) {
    unpack(in.data(), kElements, bits, values.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kElements * sizeof(W)));
}

struct TableOperands {
  explicit TableOperands(unsigned k)
      : table(RandomWords<std::uint8_t>((kElements << k) / 8 + 1)),
        index(RandomWords<std::uint8_t>(kElements, std::uint64_t{1} << k)),
        flip(RandomWords<std::uint8_t>(kElements, 2)),
        f(RandomWords<std::uint8_t>(32)),
        out(kElements) {}
  std::vector<std::uint8_t> table, index, flip, f, out;
};

void Table(benchmark::State& state, unsigned k,
           const std::function<void(TableOperands&)>& operation) {
  TableOperands operands(k);
  for (auto _ : state) {
    operation(operands);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations() * kElements));
}

template <class W>
void RegisterProducts(const Kernels& kernels, const std::string& name) {
  for (const ProductShape& shape : kShapes) {
    benchmark::RegisterBenchmark(
        fmt::format("{}/{}/{}", name, kernels.name, shape.name).c_str(),
        [&](benchmark::State& state) { Product<W>(state, kernels, shape); });
  }
}

/// What products could reach at most.
void RegisterPeaks() {
  for (const benchmarks::MultiplyAddPeak& peak : benchmarks::MultiplyAddPeaks()) {
    benchmark::RegisterBenchmark(
        fmt::format("peak{}/{}", peak.word_bits, peak.instruction_set).c_str(),
        [=](benchmark::State& state) {
          constexpr std::uint64_t kRounds = 10000;
          for (auto _ : state) peak.run(kRounds);
          state.counters["MAC"] =
              benchmark::Counter(static_cast<double>(kRounds * peak.products_per_round),
                                 benchmark::Counter::kIsIterationInvariantRate);
        });
  }
}

void RegisterAll() {
  RegisterPeaks();
  for (const Kernels* kernels : AvailableKernels()) {
    const std::string name = kernels->name;
    RegisterProducts<std::uint8_t>(*kernels, "product8");
    RegisterProducts<std::uint16_t>(*kernels, "product16");
    RegisterProducts<std::uint32_t>(*kernels, "product32");
    RegisterProducts<std::uint64_t>(*kernels, "product64");
    const auto packing = [&](const char* word, auto pack, auto unpack, unsigned bits) {
      const std::string rest = fmt::format("{}/{}/{}", word, name, bits);
      benchmark::RegisterBenchmark(("pack" + rest).c_str(),
                                   [=](benchmark::State& state) { Packing(state, pack, bits); });
      benchmark::RegisterBenchmark(("unpack" + rest).c_str(), [=](benchmark::State& state) {
        Unpacking(state, unpack, bits);
      });
    };
    packing("8", kernels->pack8, kernels->unpack8, 5);
    packing("16", kernels->pack16, kernels->unpack16, 12);
    packing("16", kernels->pack16, kernels->unpack16, 13);
    packing("32", kernels->pack32, kernels->unpack32, 21);
    packing("64", kernels->pack64, kernels->unpack64, 37);
    for (unsigned k = 1; k <= 8; ++k) {
      const auto table = [&](const char* what,
                             const std::function<void(TableOperands&)>& operation) {
        benchmark::RegisterBenchmark(fmt::format("{}/{}/k{}", what, name, k).c_str(),
                                     [=](benchmark::State& state) { Table(state, k, operation); });
      };
      table("greater", [=](TableOperands& o) {
        kernels->xor_greater_rows(o.table.data(), o.index.data(), kElements, k);
      });
      table("permuted", [=](TableOperands& o) {
        kernels->xor_permuted_rows(o.table.data(), o.f.data(), o.index.data(), o.flip.data(),
                                   kElements, k);
      });
      table("select", [=](TableOperands& o) {
        kernels->select_bits(o.out.data(), o.table.data(), o.index.data(), kElements, k, 3);
      });
    }
  }
}

}  // namespace
}  // namespace tercet::ring

int main(int argc, char** argv) {
  return tercet::programs::GuardedMain("tercet_kernels_benchmark", [&] {
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv)) return tercet::programs::kExitUsage;
    tercet::ring::RegisterAll();
    benchmark::RunSpecifiedBenchmarks();
    return tercet::programs::kExitOk;
  });
}
