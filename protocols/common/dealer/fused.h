// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "tercet/mpc/suite.h"

/// A sign that is fused with the fully connected map W that follows it: the sign is not shared
/// again, and W s is computed on what the evaluators have opened (README.md, "Fused layers"). What
/// each party computes, no messages. Thread safe but for FusedSum.
///
///     s_i = c_i + sum_t k_it x_it            c, k known to E1 and E2, x to D
///     W s = W c + sum_it k_it W_i x_it       W_i: column i, by which input i is multiplied
///
/// Of W = w_D + w_E1 + w_E2 (party p holds w_p and that of the party after it) D knows M = w_D +
/// w_E1 and deals x_it and M_i x_it, 1 + fan-out ring elements; w_E2 is known to E1 and E2, who
/// have shares of x_it.
namespace tercet::protocols::dealer {

using mpc::AnyMatrix;
using mpc::AnyShare;

/// Outputs of the map that the layer is fused with, 0 where it is not.
inline std::size_t FanOut(const mpc::ActivationSpec& spec) {
  return spec.next ? spec.next->out_channels : 0;
}

/// At D: the columns of M. Nothing where the layer is not fused.
class Columns {
 public:
  Columns() = default;
  /// `columns`: inputs x outputs, mpc::FusedColumns.
  explicit Columns(std::shared_ptr<const AnyMatrix> columns) : columns_(std::move(columns)) {}

  std::size_t FanOut() const { return columns_ ? columns_->Cols() : 0; }
  /// Of element i of `count`, where elements are inputs x batch; null where the layer is not fused.
  template <ring::Word V>
  const V* Of(std::size_t i, std::size_t count) const {
    if (!columns_) return nullptr;
    return columns_->As<V>().data() + i / (count / columns_->Rows()) * columns_->Cols();
  }

 private:
  std::shared_ptr<const AnyMatrix> columns_;
};

/// At D: what it deals of x, x and then its products with a column. Returns where `out` ends.
template <ring::Word V>
V* WithProducts(V x, const V* column, std::size_t fan_out, V* out) {
  *out++ = x;
  for (std::size_t j = 0; j < fan_out; ++j) *out++ = ring::Times(x, column[j]);
  return out;
}

/// At E1 and E2: what they add up of W s. No branch or address depends on c, k or shares.
template <ring::Word V>
class FusedSum {
 public:
  FusedSum(std::size_t inputs, std::size_t batch, std::size_t fan_out);

  /// Element i = input * batch + image. `dealt`: this party's shares of x_i0 and M_i x_i0, of x_i1
  /// and M_i x_i1, ..., one x for each k.
  void Add(std::size_t i, V constant, std::span<const V> k, const V* dealt);

  /// Adds sum_it k_it M_i x_it to `next` (outputs x batch). Returns the halves for which the next
  /// linear layer gives the rest: of E1 (w_E1 + w_E2) c + w_E2 sum k x, of E2 w_D c + w_E2 sum k x,
  /// with the evaluator's own shares of x.
  /// Where one evaluator alone multiplies, `multiplies` says whether this one does: the halves are
  /// then those for which the linear layer gives W c + w_E2 sum k x there, and at the other one
  /// w_E2 sum k x.
  AnyShare Finish(bool e1, std::optional<bool> multiplies, unsigned bits, AnyMatrix& next) &&;

 private:
  std::size_t batch_, fan_out_;
  ring::Matrix<V> constant_, share_;  // c, and sum_t k_it x_it; inputs x batch
  ring::Matrix<V> products_;          // batch x outputs
};

}  // namespace tercet::protocols::dealer
