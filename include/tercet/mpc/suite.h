#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tercet/mpc/archive.h"
#include "tercet/mpc/party.h"
#include "tercet/mpc/spec.h"

/// The interfaces that protocols implement and the executor uses.
namespace tercet::mpc {

/// Whether it is a party's number.
constexpr bool IsParty(int party) { return party >= 0 && party < 3; }

/// Who does what; public. The helper deals correlated randomness. It may have the other roles too;
/// where it owns the input or receives the result it has to be there online.
struct Roles {
  int helper = 0;
  int data_owner = 1;
  int model_owner = 2;
  int receiver = 1;

  int Evaluator1() const { return (helper + 1) % 3; }
  int Evaluator2() const { return (helper + 2) % 3; }
  bool operator==(const Roles&) const = default;
};
/// Throws ConfigError (place `place`) that names the role, unless each is a party's number. One
/// party may have any of them, or all.
void CheckRoles(const Roles& roles, const std::string& place);

/// One message of a cost.
struct Transmission {
  int from = 0, to = 0;
  std::uint64_t bytes = 0;
};
/// Messages that are all sent before any of them is received.
using Round = std::vector<Transmission>;

/// What one query (one batch), or a part of it, sends: rounds of messages in the order in which
/// each party sends and receives them. Bytes by party and hops follow from that. Hops are the
/// longest chain of dependent messages, so where a party need not wait for a message before it
/// sends the next, two parts together take fewer than the sum.
class Cost {
 public:
  /// Throws InternalError unless each message goes from one party to another.
  void Add(Phase phase, Round round);
  Cost& operator+=(const Cost& other);

  /// Payload bytes sent by each party.
  const std::array<std::uint64_t, 3>& OfflineBytes() const { return offline_.bytes; }
  const std::array<std::uint64_t, 3>& OnlineBytes() const { return online_.bytes; }
  std::uint64_t OfflineTotal() const { return Sum(offline_.bytes); }
  std::uint64_t OnlineTotal() const { return Sum(online_.bytes); }
  std::uint32_t OfflineHops() const { return Hops(offline_); }
  std::uint32_t OnlineHops() const { return Hops(online_); }
  /// The rounds of a query's phase, offline or online.
  const std::vector<Round>& Rounds(Phase phase) const {
    return phase == Phase::kOffline ? offline_.rounds : online_.rounds;
  }

 private:
  struct Part {
    std::vector<Round> rounds;
    std::array<std::uint64_t, 3> bytes{};
  };
  static std::uint64_t Sum(const std::array<std::uint64_t, 3>& b) { return b[0] + b[1] + b[2]; }
  static std::uint32_t Hops(const Part& part);

  Part offline_, online_;
};

/// A suite's name with its options, written "lut" or "lut:chunks=3,form=bit".
struct SuiteChoice {
  std::string name;
  std::map<std::string, std::string> options;
  std::string Text() const;
};
/// Throws ConfigError (place `place`) on bad syntax.
SuiteChoice ParseSuiteChoice(std::string_view text, const std::string& place);

/// What a party keeps between Prepare and Run of one layer of one query; used once.
class Correlation {
 public:
  virtual ~Correlation() = default;
  /// Names every field to the archive, which writes or fills it.
  virtual void Visit(Archive& archive) = 0;
};

struct Prepared {
  std::unique_ptr<Correlation> correlation;
  AnyShare
      known;  ///< the halves of this layer's output that this party already knows; others are empty
};

/// One activation layer at one party for the length of a run. Lives through many queries; Prepare
/// calls come in query order, and so do Run calls; the two may run in different threads, one of
/// each at a time.
class Activation {
 public:
  virtual ~Activation() = default;
  /// Offline. `z` is this party's additive share of the layer's input where it is known already,
  /// else null: suites with a dealer need it at the dealer when the spec says `dealt`.
  virtual Prepared Prepare(Context& ctx, std::size_t batch, const AnyMatrix* z) = 0;
  /// An empty correlation of the kind that Prepare makes, to be filled from an archive; null where
  /// Prepare makes none.
  virtual std::unique_ptr<Correlation> NewCorrelation() const { return nullptr; }
  /// Online. `z` is this party's additive share (rows = spec.in.Size()); returns its replicated
  /// share of the output.
  virtual AnyShare Run(Context& ctx, Prepared prepared, const AnyMatrix& z) = 0;
};

struct SuiteInfo {
  std::string name;
  std::string summary;     ///< one line: protocol and source
  bool is_private = true;  ///< no party learns anything; otherwise `leaks` says what, and the suite
                           ///< must be asked for by name
  std::string leaks;
  bool dealt_output =
      false;  ///< every share that the helper holds of the output is drawn from its keys
  std::vector<std::string> options;  ///< "name: meaning" of each option
};

/// One way to do the non-linear layers. Stateless; thread safe.
class Suite {
 public:
  virtual ~Suite() = default;
  virtual const SuiteInfo& Info() const = 0;
  /// Width of the ring that shares of values of `value_bits` bits must live in. Throws
  /// UnsupportedError if none serves.
  virtual unsigned RingBits(unsigned value_bits) const { return value_bits; }
  /// Throws UnsupportedError (naming layer and what is supported) or ConfigError (options).
  virtual void Check(const ActivationSpec& spec, const SuiteChoice& choice) const = 0;
  /// Exact cost of one query of spec.batch images.
  virtual Cost Costs(const ActivationSpec& spec, const SuiteChoice& choice,
                     const Roles& roles) const = 0;
  virtual std::unique_ptr<Activation> Create(Party& party, const ActivationSpec& spec,
                                             const SuiteChoice& choice,
                                             const Roles& roles) const = 0;
};

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
  void AddSuite(std::unique_ptr<Suite> suite);
  void SetLinear(LinearFactory factory);
  void SetOracle(std::unique_ptr<Oracle> oracle);

  /// Throws UnsupportedError that lists the known names.
  const Suite& FindSuite(const std::string& name) const;
  std::vector<std::string> SuiteNames() const;
  LinearFactory LinearMaker() const;
  const Oracle& PlainOracle() const;

 private:
  std::map<std::string, std::unique_ptr<Suite>> suites_;
  LinearFactory linear_ = nullptr;
  std::unique_ptr<Oracle> oracle_;
};

}  // namespace tercet::mpc
