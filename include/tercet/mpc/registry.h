// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tercet/mpc/linear.h"
#include "tercet/mpc/suite.h"

namespace tercet::mpc {

/// The same operations on integers in the clear: the oracle that secure results are compared with.
class Oracle {
 public:
  virtual ~Oracle() = default;
  /// z = W x + b over the integers; x and z are features x batch, row-major.
  virtual std::vector<std::int64_t> Linear(const LinearShape& shape,
                                           const std::vector<std::int64_t>& weight,
                                           const std::vector<std::int64_t>& bias,
                                           const std::vector<std::int64_t>& x,
                                           std::size_t batch) const = 0;
  /// The activation, then the pool. Sign gives 0 or 1, with Sign(0) = 1.
  virtual std::vector<std::int64_t> Activate(const ActivationSpec& spec,
                                             const std::vector<std::int64_t>& z) const = 0;
};

/// The linear protocols that are used unasked: where the model's owner is an evaluator, and
/// elsewhere.
inline constexpr const char* kClearLinear = "clear";
inline constexpr const char* kReplicatedLinear = "replicated";
/// Weights that all parties know: only by name.
inline constexpr const char* kPublicLinear = "public";

/// Protocols by name. Filled by BuiltinProtocols() (protocols/), and by whoever adds more; then
/// read-only.
class Registry {
 public:
  /// Throws InternalError when the name is taken.
  void AddSuite(SuiteInfo info, PlanFunction plan);
  void AddLinear(LinearProtocol protocol);
  void SetOracle(std::unique_ptr<Oracle> oracle);

  /// Throws UnsupportedError that lists the known names.
  const Suite& FindSuite(const std::string& name) const;
  const LinearProtocol& FindLinear(const std::string& name) const;
  std::vector<std::string> SuiteNames() const;
  const Oracle& PlainOracle() const;

 private:
  std::map<std::string, Suite> suites_;
  std::map<std::string, LinearProtocol> linear_;
  std::unique_ptr<Oracle> oracle_;
};

}  // namespace tercet::mpc
