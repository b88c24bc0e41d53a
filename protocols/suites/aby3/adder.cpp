// SPDX-License-Identifier: Apache-2.0
#include "suites/aby3/adder.h"

#include <algorithm>
#include <deque>

namespace tercet::protocols::aby3 {

namespace {

/// (generate, propagate) of a group of bits; the lowest group's propagate is not needed.
struct Node {
  BitRef generate, propagate;
};

/// Rows that a level of `nodes` computes: (G, P) for each pair, G alone for the lowest.
constexpr std::size_t LevelRows(std::size_t nodes) { return 2 * (nodes / 2) - 1; }

/// Row of leaf j's generate; its propagate, where it is a product, follows.
constexpr std::size_t LeafRow(std::size_t j) { return j == 0 ? 0 : 2 * j - 1; }

/// (generate, propagate) of pairs of neighbouring nodes, a node's rows from `row` on.
void Combine(const std::vector<Node>& nodes, Planes& products, std::size_t row) {
  const std::size_t words = products.Words();
  for (std::size_t j = 0; j < nodes.size() / 2; ++j) {
    const Node &low = nodes[2 * j], &high = nodes[2 * j + 1];
    std::uint64_t* generate = products[row + LeafRow(j)];  // G_high ^ P_high G_low
    std::copy_n(high.generate.mine, words, generate);
    XorProduct(generate, high.propagate, low.generate, words);
    if (j > 0) XorProduct(products[row + LeafRow(j) + 1], high.propagate, low.propagate, words);
  }
}

/// What is left of `nodes` once their pairs stand in `level` from `row` on.
std::vector<Node> Left(const std::vector<Node>& nodes, const PlaneShare& level, std::size_t row) {
  std::vector<Node> left;
  for (std::size_t j = 0; j < nodes.size() / 2; ++j)
    left.push_back({level[row + LeafRow(j)], j == 0 ? BitRef{} : level[row + LeafRow(j) + 1]});
  if (nodes.size() % 2 != 0) left.push_back(nodes.back());
  return left;
}

Planes Zeros(std::size_t rows, std::size_t count) {
  Planes planes(rows, count);
  std::fill(planes.All().begin(), planes.All().end(), 0);
  return planes;
}

}  // namespace

std::size_t Adder::LeafRows(const std::vector<AdderShape>& shapes) {
  std::size_t rows = 0;
  for (const auto& shape : shapes) rows += shape.LeafRows();
  return rows;
}

std::vector<std::size_t> Adder::Levels(const std::vector<AdderShape>& shapes) {
  std::vector<std::size_t> levels;
  for (const auto& shape : shapes) {
    std::size_t level = 0;
    for (std::size_t nodes = shape.Groups(); nodes > 2; nodes = (nodes + 1) / 2, ++level) {
      if (level == levels.size()) levels.push_back(0);
      levels[level] += LevelRows(nodes);
    }
  }
  return levels;
}

Planes SharedRows(const AdderShape& shape, const Planes& bits) {
  Planes rows(shape.SharedRows(), bits.Count());
  for (std::size_t k = 0; k < shape.width; ++k) std::copy_n(bits[k], bits.Words(), rows[k]);
  for (std::size_t j = 0; j < shape.Pairs(); ++j)
    for (std::size_t w = 0; w < bits.Words(); ++w)
      rows[shape.width + j][w] = bits[2 * j][w] & bits[2 * j + 1][w];
  return rows;
}

Adder::Adder(Party& party, int helper, std::vector<AdderShape> shapes, const std::string& purpose)
    : helper_(helper), shapes_(std::move(shapes)), zero_(party, purpose + "/zero") {
  if (party.Id() != E2()) with_e1_ = party.Keys().Open(E1(), purpose + "/leaves");
  if (party.Id() != E1()) with_e2_ = party.Keys().Open(helper, purpose + "/leaves");
}

// With a = a_0 + 2 a_1 of a pair and b alike,
//   G = a_1 b_1 ^ (a_1 ^ b_1) a_0 b_0 = a_1 b_1 ^ (a_1 a_0) b_0 ^ a_0 (b_1 b_0)
//   P = (a_1 ^ b_1) (a_0 ^ b_0)       = (a_1 a_0) ^ a_1 b_0 ^ a_0 b_1 ^ (b_1 b_0).
// What stands left is shared between E1 and E2 (and D), what stands right is known to both.
Planes Adder::Leaves(const Context& ctx, const AdderInput& input, std::size_t count) const {
  Planes products = Zeros(LeafRows(shapes_), count);
  if (ctx.Is(helper_)) return products;
  const Planes& a = ctx.Is(E1()) ? input.a.mine : input.a.next;
  const Planes& b = input.b;
  const std::uint64_t once = ctx.Is(E1()) ? ~std::uint64_t{0} : 0;  // one evaluator adds b_1 b_0
  const std::size_t words = products.Words();
  std::size_t row = 0;
  for (const auto& shape : shapes_) {
    for (std::size_t j = 0; j < shape.Pairs(); ++j) {
      const std::uint64_t *a0 = a[2 * j], *a1 = a[2 * j + 1], *a10 = a[Widest().width + j];
      const std::uint64_t *b0 = b[2 * j], *b1 = b[2 * j + 1];
      std::uint64_t* generate = products[row + LeafRow(j)];
      for (std::size_t w = 0; w < words; ++w)
        generate[w] = (a1[w] & b1[w]) ^ (a10[w] & b0[w]) ^ (a0[w] & b1[w] & b0[w]);
      if (j == 0) continue;
      std::uint64_t* propagate = products[row + LeafRow(j) + 1];
      for (std::size_t w = 0; w < words; ++w)
        propagate[w] = a10[w] ^ (a1[w] & b0[w]) ^ (a0[w] & b1[w]) ^ (b1[w] & b0[w] & once);
    }
    if (shape.Single()) {
      const std::size_t top = shape.width - 1;
      std::uint64_t* generate = products[row + LeafRow(shape.Pairs())];
      for (std::size_t w = 0; w < words; ++w) generate[w] = a[top][w] & b[top][w];
    }
    row += shape.LeafRows();
  }
  return products;
}

void Adder::SendLeaves(Context& ctx, Planes products) {
  const std::size_t rows = products.Rows(), count = products.Count();
  Planes with_e1, with_e2;
  if (with_e1_) with_e1_->Draw((with_e1 = Planes(rows, count)).All());
  if (with_e2_) with_e2_->Draw((with_e2 = Planes(rows, count)).All());
  if (ctx.Is(helper_)) {
    leaves_ = {std::move(with_e2), std::move(with_e1)};
    return;
  }
  // The third share is t_1 ^ t_2 ^ both masks; each evaluator adds the other's part on arrival.
  const int peer = ctx.Is(E1()) ? E2() : E1();
  products ^= ctx.Is(E1()) ? with_e1 : with_e2;
  ctx.SendBytes(peer, Pack(products));  // 1 hop, 1 bit, from each evaluator
  leaves_ = ctx.Is(E1()) ? PlaneShare{std::move(with_e1), std::move(products)}
                         : PlaneShare{std::move(products), std::move(with_e2)};
}

void Adder::ReceiveLeaves(Context& ctx) {
  if (ctx.Is(helper_)) return;
  Planes& third = ctx.Is(E1()) ? leaves_.next : leaves_.mine;
  const int peer = ctx.Is(E1()) ? E2() : E1();
  third ^= mpc::Unpack(ctx.ReceiveBytes(peer, ring::PackedBytes(third.Rows() * third.Count(), 1)),
                       third.Rows(), third.Count());
}

Planes Adder::Carries(Context& ctx, const AdderInput& input) {
  const std::size_t count = leaves_.mine.Count();
  std::vector<std::vector<Node>> trees;
  std::size_t row = 0;
  for (const auto& shape : shapes_) {
    auto& nodes = trees.emplace_back();
    for (std::size_t j = 0; j < shape.Pairs(); ++j)
      nodes.push_back(
          {leaves_[row + LeafRow(j)], j == 0 ? BitRef{} : leaves_[row + LeafRow(j) + 1]});
    if (shape.Single()) {
      // a ^ b: a has shares D and D+1, b is share D+2.
      const auto top = [bit = shape.width - 1](const Planes& a, const Planes& b) {
        return a.Rows() > 0 ? a[bit] : b[bit];
      };
      nodes.push_back({leaves_[row + LeafRow(shape.Pairs())],
                       {top(input.a.mine, input.b), top(input.a.next, input.b)}});
    }
    row += shape.LeafRows();
  }
  std::deque<PlaneShare> levels;  // keeps what `trees` refer to
  for (const std::size_t rows : Levels(shapes_)) {
    Planes products = Zeros(rows, count);
    row = 0;
    for (const auto& nodes : trees) {
      if (nodes.size() <= 2) continue;
      Combine(nodes, products, row);
      row += LevelRows(nodes.size());
    }
    const auto& level =
        levels.emplace_back(Reshare(ctx, zero_, std::move(products)));  // 1 hop, 3 bits a row
    row = 0;
    for (auto& nodes : trees) {
      if (nodes.size() <= 2) continue;
      const std::size_t after = row + LevelRows(nodes.size());
      nodes = Left(nodes, level, row);
      row = after;
    }
  }
  Planes carries = Zeros(trees.size(), count);
  for (std::size_t t = 0; t < trees.size(); ++t) {
    if (trees[t].size() == 2) {
      Combine(trees[t], carries, t);
    } else {
      std::copy_n(trees[t][0].generate.mine, carries.Words(), carries[t]);
    }
  }
  return carries;
}

}  // namespace tercet::protocols::aby3
