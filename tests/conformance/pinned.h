// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tercet/mpc/local.h"
#include "tercet/mpc/party.h"

/// What one party receives, as a function of the one key that it lacks: the keys of the three
/// parties are given, the receiver's two stay as they are, and so do inputs and shares.
namespace tercet {

/// Reaches what programs cannot: keys that are given, and draws that are watched or changed.
struct TestAccess {
  /// Sees what the streams draw that are opened from now on; returns who saw it so far.
  static crypto::DrawObserver* Observe(crypto::KeyRing& keys, crypto::DrawObserver* observer);
  static std::unique_ptr<mpc::Party> MakeParty(int id, net::Links links, std::size_t layers,
                                               std::unique_ptr<crypto::KeyRing> keys);
  /// `own` is the key of the party's public coins.
  static std::unique_ptr<crypto::KeyRing> MakeKeys(int id, crypto::PrfKey mine, crypto::PrfKey next,
                                                   crypto::PrfKey own,
                                                   crypto::DrawObserver* observer);
};

}  // namespace tercet

namespace tercet::conformance {

/// A message to the receiver, without the public coins at its beginning.
struct Received {
  std::size_t group;  ///< of sessions side by side, see PinnedSession::MakeParty
  net::Phase phase;
  int from;
  std::uint32_t tag;
  Bytes payload;

  auto Place() const { return std::tuple(group, phase, from, tag); }
  /// The layer: 0 input, 1..L, L+1 output.
  std::size_t Layer() const { return tag >> 16; }
  std::string Describe() const;
  bool operator==(const Received&) const = default;
};

/// A draw from the key that the receiver lacks: group, purpose, first block.
using Draw = std::tuple<std::size_t, std::string, std::uint64_t>;
/// Draws that are made anew; of each the bytes that are listed, or all if none is.
using Varied = std::map<Draw, std::set<std::size_t>>;

/// Fills with bytes that depend on the seed alone.
void FillFrom(std::uint64_t seed, std::span<std::uint8_t> out);

/// One session under pinned keys. The receiver's keys, and the keys of coins, are always the same;
/// `key` chooses the one that it lacks, and `run` what comes out of the draws in `varied`, in place
/// of that key's stream. The draw `left_out` gives zeros: a mask that is forgotten.
class PinnedSession {
 public:
  PinnedSession(int receiver, std::uint64_t key, std::uint64_t run = 0,
                const Varied* varied = nullptr, const Draw* left_out = nullptr);
  ~PinnedSession();

  /// Where RunParties is to make the parties.
  mpc::LocalOptions Options(std::size_t layers);
  /// A party with its keys, on links that are recorded. Sessions side by side have numbers.
  std::unique_ptr<mpc::Party> MakeParty(int id, net::Links links, std::size_t layers,
                                        std::size_t group = 0);

  /// Afterwards: what the receiver got, in an order that is the same in every run.
  std::vector<Received> View();
  /// What was drawn from the key that the receiver lacks, and how many bytes.
  const std::map<Draw, std::size_t>& Draws() const { return draws_; }

 private:
  class Observer;
  class RecordingLink;

  int receiver_;
  std::uint64_t key_, run_;
  const Varied* varied_;
  const Draw* left_out_;
  std::mutex mutex_;
  std::vector<Received> view_;
  std::map<Draw, std::size_t> draws_;
  std::vector<Bytes> coins_;  // each once
  std::vector<std::unique_ptr<Observer>> observers_;
};

/// What three parties do, and can be done again under other keys.
struct Scenario {
  /// Runs all three parties; `input` is 0 or 1.
  std::function<void(PinnedSession&, int input)> run;
  /// Tells what is opened to the receiver, if anything is: of such messages from the parties after
  /// and before it only one is masked, whichever, and the sum of both is what it is to learn.
  std::function<bool(const Received&)> is_opened;
  /// Tells what is no secret, if anything is: nobody looks at it.
  std::function<bool(const Received&)> is_public{};
};

/// Whether the view of `receiver` is uniform whatever the input: what is not, in words. `left_out`
/// is a draw that is forgotten, see PinnedSession.
///
/// *Masks.* A message has a mask of its own if among the draws from the lacked key are some that
/// change this message and no other, and its bits have no affine relation over GF(2) when those
/// alone are drawn anew and everything else is fixed. It is then taken away and the others are
/// looked at. In the reverse of that order each message is uniform given those before it, whatever
/// the inputs and the other draws are: so all are together, and independent of what is secret.
/// Where one draw masks a message of which others depend on a part, the parts are told apart: the
/// bytes of the draw that change nothing else, and the bytes of the message that these change.
/// What the model's shares are drawn from masks nothing that is sent after setup: it stays the same
/// for all queries.
///
/// *Statistics*, of what has masks. Under many keys, with two inputs in turn: no 8-byte block
/// stays; no bit is biased, nor the XOR of any two of the view, nor does one go with the input; the
/// bytes of each message are evenly distributed, and alike for both inputs.
///
/// All of it is the same in every run of the test. That a view which is uniform is found not to be
/// has a probability below 2^-48 a message and 10^-18 a pair of bits.
std::vector<std::string> Findings(const Scenario& scenario, int receiver,
                                  const Draw* left_out = nullptr);

/// Positions of bits that are constant in all views, or the same sum over GF(2) of bits before them
/// (and perhaps 1).
std::vector<std::size_t> DependentBits(const std::vector<Bytes>& views);

}  // namespace tercet::conformance
