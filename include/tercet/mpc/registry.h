#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tercet/mpc/suite.h"

namespace tercet::mpc {

/// Halves of a share that are known offline.
struct KnownHalves {
  explicit KnownHalves(const AnyShare& share)
      : mine(!share.mine.Empty()), next(!share.next.Empty()) {}
  bool mine, next;
};

/// One linear layer at one party: local products only, z_i = (W_i + W_{i+1}) x_i + W_i x_{i+1} +
/// b_i. What is known of x offline is multiplied offline.
class Linear {
 public:
  virtual ~Linear() = default;
  /// The part of z_i (bias included) that the known halves of x give.
  virtual AnyMatrix Prepare(std::size_t batch, const AnyShare& known) const = 0;
  /// Adds the rest, now that x is complete: `known` says which halves Prepare has multiplied
  /// already.
  virtual AnyMatrix Run(AnyMatrix partial, KnownHalves known, const AnyShare& x) const = 0;
};

/// Makes a Linear from this party's shares of weights (rows = out_channels, columns = depth) and
/// bias (rows = BiasCount, one column).
using LinearFactory = std::unique_ptr<Linear> (*)(const LinearShape& shape, const AnyShare& weight,
                                                  const AnyShare& bias);

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

/// Protocols by name. Filled by BuiltinProtocols() (protocols/), and by whoever adds more; then
/// read-only.
class Registry {
 public:
  /// Throws InternalError when the name is taken.
  void AddSuite(SuiteInfo info, PlanFunction plan);
  void SetLinear(LinearFactory factory);
  void SetOracle(std::unique_ptr<Oracle> oracle);

  /// Throws UnsupportedError that lists the known names.
  const Suite& FindSuite(const std::string& name) const;
  std::vector<std::string> SuiteNames() const;
  LinearFactory LinearMaker() const;
  const Oracle& PlainOracle() const;

 private:
  std::map<std::string, Suite> suites_;
  LinearFactory linear_ = nullptr;
  std::unique_ptr<Oracle> oracle_;
};

}  // namespace tercet::mpc
