// SPDX-License-Identifier: Apache-2.0
#include "conformance/pinned.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <optional>

#include "tercet/net/wrappers.h"

namespace tercet {

crypto::DrawObserver* TestAccess::Observe(crypto::KeyRing& keys, crypto::DrawObserver* observer) {
  return std::exchange(keys.observer_, observer);
}

std::unique_ptr<mpc::Party> TestAccess::MakeParty(int id, net::Links links, std::size_t layers,
                                                  std::unique_ptr<crypto::KeyRing> keys) {
  return std::unique_ptr<mpc::Party>(new mpc::Party(id, std::move(links), layers, std::move(keys)));
}

std::unique_ptr<crypto::KeyRing> TestAccess::MakeKeys(int id, crypto::PrfKey mine,
                                                      crypto::PrfKey next, crypto::PrfKey own,
                                                      crypto::DrawObserver* observer) {
  auto keys = std::make_unique<crypto::KeyRing>(id, std::move(mine), std::move(next), observer);
  keys->own_ = std::move(own);
  return keys;
}

}  // namespace tercet

namespace tercet::conformance {
namespace {

constexpr std::size_t kNotByChance = 48;  // so many rows more than columns: 2^-48
constexpr std::size_t kStatisticRuns = 512;
// Of so many coins the heads: off by 9 standard deviations, which chance does once in 10^18.
constexpr std::size_t kBound = 102;

std::uint64_t Mix(std::uint64_t x) {  // splitmix64
  x += 0x9e37'79b9'7f4a'7c15;
  x = (x ^ x >> 30) * 0xbf58'476d'1ce4'e5b9;
  x = (x ^ x >> 27) * 0x94d0'49bb'1331'11eb;
  return x ^ x >> 31;
}

crypto::PrfKey KeyFrom(std::uint64_t seed) {
  std::array<std::uint8_t, crypto::PrfKey::kBytes> bytes{};
  FillFrom(seed, bytes);
  return crypto::PrfKey(bytes);
}

}  // namespace

void FillFrom(std::uint64_t seed, std::span<std::uint8_t> out) {
  for (std::size_t at = 0; at < out.size(); at += 8) {
    const std::uint64_t word = Mix(seed = Mix(seed));
    std::memcpy(out.data() + at, &word, std::min<std::size_t>(8, out.size() - at));
  }
}

std::string Received::Describe() const {
  return fmt::format("{} layer {} message {} from party {}{}", net::PhaseName(phase), Layer(),
                     tag & 0xffff, from, group > 0 ? fmt::format(" of group {}", group) : "");
}

// ------------------------------------------------------------------------------------------------
// a session

class PinnedSession::Observer final : public crypto::DrawObserver {
 public:
  Observer(PinnedSession& session, std::size_t group) : session_(session), group_(group) {}

  void OnDraw(crypto::PrfUse use, std::span<std::uint8_t> drawn) override {
    if (use.key >= 3) {
      const std::lock_guard lock(session_.mutex_);
      const Bytes coins(drawn.begin(), drawn.end());
      auto& known = session_.coins_;
      if (std::find(known.begin(), known.end(), coins) == known.end()) known.push_back(coins);
      return;
    }
    if (use.key != (session_.receiver_ + 2) % 3) return;
    Draw draw(group_, use.purpose, use.first_block);
    if (session_.varied_ != nullptr) {
      const auto varied = session_.varied_->find(draw);
      if (varied != session_.varied_->end()) {
        Bytes anew(drawn.size());  // both holders find the same
        FillFrom(Mix(session_.run_) ^ Mix(use.nonce + use.first_block) ^ group_, anew);
        for (std::size_t i = 0; i < anew.size(); ++i)
          if (varied->second.empty() || varied->second.contains(i)) drawn[i] = anew[i];
      }
    }
    if (session_.left_out_ != nullptr && *session_.left_out_ == draw)
      std::fill(drawn.begin(), drawn.end(), std::uint8_t{0});
    const std::lock_guard lock(session_.mutex_);
    session_.draws_[std::move(draw)] = drawn.size();
  }

 private:
  PinnedSession& session_;
  std::size_t group_;
};

class PinnedSession::RecordingLink final : public net::LinkWrapper {
 public:
  RecordingLink(std::unique_ptr<net::Link> inner, PinnedSession& session, std::size_t group)
      : LinkWrapper(std::move(inner)), session_(session), group_(group) {}

  net::Message Receive(net::Phase phase) override {
    net::Message message = inner_->Receive(phase);
    const std::lock_guard lock(session_.mutex_);
    session_.view_.push_back({group_, message.phase, inner_->Peer(), message.tag, message.payload});
    return message;
  }

 private:
  PinnedSession& session_;
  std::size_t group_;
};

PinnedSession::PinnedSession(int receiver, std::uint64_t key, std::uint64_t run,
                             const Varied* varied, const Draw* left_out)
    : receiver_(receiver), key_(key), run_(run), varied_(varied), left_out_(left_out) {}

PinnedSession::~PinnedSession() = default;

mpc::LocalOptions PinnedSession::Options(std::size_t layers) {
  mpc::LocalOptions options;
  options.layers = layers;
  options.make = [this, layers](int id, net::Links links) {
    return MakeParty(id, std::move(links), layers);
  };
  return options;
}

std::unique_ptr<mpc::Party> PinnedSession::MakeParty(int id, net::Links links, std::size_t layers,
                                                     std::size_t group) {
  if (id == receiver_)
    for (auto& link : links)
      if (link) link = std::make_unique<RecordingLink>(std::move(link), *this, group);
  Observer* observer = nullptr;
  {
    const std::lock_guard lock(mutex_);
    observer = observers_.emplace_back(std::make_unique<Observer>(*this, group)).get();
  }
  const auto key = [&](int index) {
    const bool lacked = index == (receiver_ + 2) % 3;
    return KeyFrom(1000 * (group + 1) + static_cast<std::uint64_t>(index) +
                   (lacked ? 1'000'000 * key_ : 0));
  };
  return TestAccess::MakeParty(
      id, std::move(links), layers,
      TestAccess::MakeKeys(id, key(id), key((id + 1) % 3),
                           KeyFrom(1000 * (group + 1) + 3 + static_cast<std::uint64_t>(id)),
                           observer));
}

std::vector<Received> PinnedSession::View() {
  std::vector<Received> view = std::move(view_);
  for (auto& message : view)
    for (const Bytes& coins : coins_)
      if (message.payload.size() >= coins.size() &&
          std::equal(coins.begin(), coins.end(), message.payload.begin()))
        message.payload.erase(message.payload.begin(),
                              message.payload.begin() + static_cast<std::ptrdiff_t>(coins.size()));
  std::erase_if(view, [](const Received& message) { return message.payload.empty(); });
  std::stable_sort(view.begin(), view.end(),
                   [](const Received& x, const Received& y) { return x.Place() < y.Place(); });
  return view;
}

// ------------------------------------------------------------------------------------------------
// what bits tell

namespace {

/// A bit of each of many views.
using Column = std::vector<std::uint64_t>;

std::vector<Column> Columns(const std::vector<Bytes>& views) {
  std::vector<Column> columns(8 * views.at(0).size(), Column((views.size() + 63) / 64));
  for (std::size_t run = 0; run < views.size(); ++run)
    for (std::size_t p = 0; p < columns.size(); ++p)
      columns[p][run / 64] |= std::uint64_t{views[run][p / 8]} >> p % 8 << 63 >> (63 - run % 64);
  return columns;
}

std::size_t CountOnes(const Column& column) {
  std::size_t count = 0;
  for (const std::uint64_t word : column) count += static_cast<std::size_t>(std::popcount(word));
  return count;
}

bool IsOff(std::size_t heads, std::size_t runs) {
  return heads + kBound < runs / 2 || heads > runs / 2 + kBound;
}

}  // namespace

std::vector<std::size_t> DependentBits(const std::vector<Bytes>& views) {
  std::vector<Column> columns = Columns(views);
  const std::size_t words = columns.empty() ? 0 : columns[0].size();
  Column ones(words, 0);
  for (std::size_t run = 0; run < views.size(); ++run)
    ones[run / 64] |= std::uint64_t{1} << run % 64;
  std::vector<Column> basis;
  std::vector<std::size_t> pivots;  // basis[i] has the first bit of all at pivots[i]
  const auto independent = [&](Column column) {
    for (std::size_t i = 0; i < basis.size(); ++i)
      if (column[pivots[i] / 64] >> pivots[i] % 64 & 1)
        for (std::size_t w = 0; w < words; ++w) column[w] ^= basis[i][w];
    for (std::size_t w = 0; w < words; ++w) {
      if (column[w] == 0) continue;
      pivots.push_back(64 * w + static_cast<std::size_t>(std::countr_zero(column[w])));
      basis.push_back(std::move(column));
      return true;
    }
    return false;
  };
  independent(ones);
  std::vector<std::size_t> dependent;
  for (std::size_t p = 0; p < columns.size(); ++p)
    if (!independent(std::move(columns[p]))) dependent.push_back(p);
  return dependent;
}

// ------------------------------------------------------------------------------------------------
// masks

namespace {

using View = std::vector<Received>;
using Messages = std::set<std::size_t>;  // of a view

class Check {
 public:
  Check(const Scenario& scenario, int receiver, const Draw* forgotten)
      : scenario_(scenario), receiver_(receiver), forgotten_(forgotten) {
    PinnedSession session(receiver, 0, 0, nullptr, forgotten);
    scenario.run(session, 0);
    draws_ = session.Draws();
    base_ = Seen(session);
  }

  std::vector<std::string> Run() {
    if (base_.empty()) return {};
    // Of what is opened, one message is left out, the one or the other.
    std::vector<Messages> left_out{{}};
    if (scenario_.is_opened) {
      for (std::size_t m = 0; m < base_.size(); ++m)
        if (scenario_.is_opened(base_[m])) opened_.insert(m);
      if (!opened_.empty()) left_out.clear();
      for (const int from : {(receiver_ + 1) % 3, (receiver_ + 2) % 3}) {
        Messages out;
        for (const std::size_t m : opened_)
          if (base_[m].from == from) out.insert(m);
        if (!out.empty()) left_out.push_back(std::move(out));
      }
    }
    FindEffects();
    for (const auto& out : left_out) FindMasks(out);
    if (!findings_.empty()) return std::move(findings_);  // statistics would say it again
    for (const auto& out : left_out) FindStatistics(out);
    return std::move(findings_);
  }

 private:
  View Seen(PinnedSession& session) const {
    View view = session.View();
    if (scenario_.is_public) std::erase_if(view, scenario_.is_public);
    return view;
  }

  View ViewOf(int input, std::uint64_t key, std::uint64_t run, const Varied* varied) {
    PinnedSession session(receiver_, key, run, varied, forgotten_);
    scenario_.run(session, input);
    View view = Seen(session);
    if (view.size() != base_.size()) throw std::runtime_error("views differ in their messages");
    for (std::size_t m = 0; m < view.size(); ++m)
      if (view[m].Place() != base_[m].Place() || view[m].payload.size() != base_[m].payload.size())
        throw std::runtime_error("views differ in " + base_[m].Describe());
    return view;
  }

  // Which bytes of which messages change with each draw alone.
  void FindEffects() {
    for (const auto& [draw, size] : draws_) {
      const Varied one{{draw, {}}};
      auto& changed = changes_[draw];
      for (std::uint64_t run = 1; run <= 8; ++run) {  // a small change may go unnoticed
        const View view = ViewOf(0, 0, run, &one);
        for (std::size_t m = 0; m < view.size(); ++m)
          for (std::size_t at = 0; at < view[m].payload.size(); ++at)
            if (view[m].payload[at] != base_[m].payload[at]) changed[m].insert(at);
      }
    }
  }

  // Bytes of a view, by message.
  using Parts = std::map<std::size_t, std::set<std::size_t>>;

  // What the model's shares are drawn from serves all queries, so it masks what is sent in setup
  // alone: one value of a query could hide behind a bias's share, two could not.
  bool MayMask(const Draw& draw, std::size_t message) const {
    return base_[message].phase == net::Phase::kSetup || !std::get<1>(draw).starts_with("model/");
  }

  // The draws that change the message and nothing else that is left.
  Varied DrawsOf(std::size_t message, const Parts& left) const {
    Varied draws;
    for (const auto& [draw, changed] : changes_) {
      if (!changed.contains(message) || !MayMask(draw, message)) continue;
      const bool others =
          std::any_of(left.begin(), left.end(), [&, &changed = changed](const auto& other) {
            const auto found = changed.find(other.first);
            return other.first != message && found != changed.end() &&
                   std::any_of(found->second.begin(), found->second.end(),
                               [&](std::size_t at) { return other.second.contains(at); });
          });
      if (!others) draws[draw] = {};
    }
    return draws;
  }

  // Those of the message's `bytes` with bits that are bare, or follow from others, when `varied`
  // are drawn anew.
  std::set<std::size_t> BareBytes(std::size_t message, const std::set<std::size_t>& bytes,
                                  const Varied& varied) {
    const std::vector<std::size_t> all(bytes.begin(), bytes.end());
    std::set<std::size_t> bare;
    for (const std::size_t bit : BareBits(message, bytes, varied)) bare.insert(all[bit / 8]);
    return bare;
  }
  // The bits themselves, counted from the first of `bytes`.
  std::vector<std::size_t> BareBits(std::size_t message, const std::set<std::size_t>& bytes,
                                    const Varied& varied) {
    std::vector<Bytes> runs;
    for (std::uint64_t run = 0; run < 8 * bytes.size() + 1 + kNotByChance; ++run) {
      const View view = ViewOf(0, 0, 100 + run, &varied);
      Bytes& part = runs.emplace_back();
      for (const std::size_t at : bytes) part.push_back(view[message].payload[at]);
    }
    return DependentBits(runs);
  }

  // Takes away the part of the message that has a mask of its own, if there is one.
  bool TakePart(std::size_t message, Parts& left) {
    auto& bytes = left[message];
    // Bytes of draws that change nothing else, and what each changes of this message.
    std::map<std::pair<Draw, std::size_t>, std::set<std::size_t>> own;
    for (const auto& [draw, changed] : changes_) {
      if (!changed.contains(message) || !MayMask(draw, message)) continue;
      for (std::size_t byte = 0; byte < draws_[draw]; ++byte) {
        const Varied one{{draw, {byte}}};
        bool others = false;
        std::set<std::size_t> changes;
        for (std::uint64_t run = 0; run < 12 && !others; ++run) {  // each may change a bit alone
          const View view = ViewOf(0, 0, 10 + run, &one);
          const auto differs = [&](std::size_t m, std::size_t at) {
            return view[m].payload[at] != base_[m].payload[at];
          };
          for (const auto& [m, its_bytes] : left)
            for (const std::size_t at : its_bytes) others |= m != message && differs(m, at);
          for (const std::size_t at : bytes)
            if (differs(message, at)) changes.insert(at);
        }
        if (!others && !changes.empty()) own[{draw, byte}] = std::move(changes);
      }
    }
    // Bytes of the message that these mask in part stay, and with them what else changes them.
    while (!own.empty()) {
      Varied varied;
      std::set<std::size_t> part;
      for (const auto& [where, changes] : own) {
        varied[where.first].insert(where.second);
        part.insert(changes.begin(), changes.end());
      }
      const auto bare = BareBytes(message, part, varied);
      if (bare.empty()) {
        for (const std::size_t at : part) bytes.erase(at);
        return true;
      }
      std::erase_if(own, [&](const auto& one) {
        return std::any_of(one.second.begin(), one.second.end(),
                           [&](std::size_t at) { return bare.contains(at); });
      });
    }
    return false;
  }

  void FindMasks(const Messages& out) {
    Parts left;
    for (std::size_t m = 0; m < base_.size(); ++m)
      for (std::size_t at = 0; at < base_[m].payload.size(); ++at)
        if (!out.contains(m)) left[m].insert(at);
    std::map<std::size_t, std::string> problems;
    const auto is_masked = [&](const auto& one) {
      const auto& [m, bytes] = one;
      if (bytes.empty()) return true;
      const auto draws = DrawsOf(m, left);
      if (draws.empty()) return false;
      auto& bare = bare_[{m, bytes, draws}];
      if (!bare) bare = BareBits(m, bytes, draws).size();
      if (*bare > 0) problems[m] = fmt::format(", {} bits bare or the sum of others", *bare);
      return *bare == 0;
    };
    for (;;) {
      const auto masked = std::find_if(left.begin(), left.end(), is_masked);
      if (masked != left.end()) {
        left.erase(masked);
        continue;
      }
      const bool some = std::any_of(left.begin(), left.end(),
                                    [&](const auto& one) { return TakePart(one.first, left); });
      if (!some) break;
    }
    if (left.empty()) return;
    std::vector<std::string> lines;
    for (const auto& [m, bytes] : left) lines.push_back(base_[m].Describe() + problems[m]);
    findings_.push_back(fmt::format("none has a mask of its own: {}", fmt::join(lines, "; ")));
  }

  // ----------------------------------------------------------------------------------------------
  // statistics

  void FindStatistics(const Messages& out) {
    if (views_.empty())
      for (std::uint64_t run = 0; run < kStatisticRuns; ++run)
        views_.push_back(ViewOf(run % 2, run + 1, 0, nullptr));
    std::vector<Bytes> all(views_.size());
    std::vector<std::size_t> message_of;  // by byte
    for (std::size_t m = 0; m < base_.size(); ++m) {
      if (out.contains(m)) continue;
      for (std::size_t run = 0; run < views_.size(); ++run) {
        const Bytes& payload = views_[run][m].payload;
        all[run].insert(all[run].end(), payload.begin(), payload.end());
      }
      message_of.resize(all[0].size(), m);
    }
    if (all[0].empty()) return;
    for (std::size_t run = 0; run < all.size(); ++run)  // the input, as the last byte
      all[run].push_back(run % 2 == 0 ? 0 : 0xff);

    const auto columns = Columns(all);
    const auto describe = [&](std::size_t p) {
      return fmt::format("bit {} of the view, {}", p, base_[message_of[p / 8]].Describe());
    };
    std::size_t reported = 0;
    const auto report = [&](std::string what) {
      if (++reported <= 8) findings_.push_back(std::move(what));
    };
    const std::size_t bits = 8 * message_of.size();
    for (std::size_t p = 0; p < bits; ++p)
      if (IsOff(CountOnes(columns[p]), all.size())) report(describe(p) + " is biased");
    const std::size_t words = columns[0].size();
    for (std::size_t p = 0; p < bits; ++p)
      for (std::size_t q = p + 1; q <= bits; ++q) {  // the last is the input
        std::size_t ones = 0;
        for (std::size_t w = 0; w < words; ++w)
          ones += static_cast<std::size_t>(std::popcount(columns[p][w] ^ columns[q][w]));
        if (!IsOff(ones, all.size())) continue;
        report(q == bits ? describe(p) + " goes with the input"
                         : describe(p) + " goes with " + describe(q));
      }
    for (std::size_t m = 0; m < base_.size(); ++m)
      if (!out.contains(m)) CheckBytes(m);
  }

  // Blocks that come twice, and the distribution of the bytes.
  void CheckBytes(std::size_t m) {
    std::array<std::array<double, 256>, 2> counts{};
    double total = 0;
    for (std::size_t run = 0; run < views_.size(); ++run) {
      const Bytes& payload = views_[run][m].payload;
      for (const std::uint8_t b : payload) ++counts[run % 2][b];
      total += static_cast<double>(payload.size()) / 2;
      if (run < 2) continue;
      const Bytes& before = views_[run - 2][m].payload;
      for (std::size_t at = 0; at + 8 <= payload.size(); at += 8)
        if (std::equal(before.begin() + static_cast<std::ptrdiff_t>(at),
                       before.begin() + static_cast<std::ptrdiff_t>(at) + 8,
                       payload.begin() + static_cast<std::ptrdiff_t>(at))) {
          findings_.push_back(base_[m].Describe() + " has a block that stays the same");
          return;
        }
    }
    // Chi-square with 255 degrees of freedom; 560 is passed by chance once in 10^20.
    constexpr double kFar = 560;
    double between = 0;
    std::array<double, 2> squares{};
    for (std::size_t b = 0; b < 256; ++b) {
      for (std::size_t input : {0u, 1u}) squares[input] += counts[input][b] * counts[input][b];
      const double both = counts[0][b] + counts[1][b];
      if (both > 0) between += (counts[0][b] - counts[1][b]) * (counts[0][b] - counts[1][b]) / both;
    }
    for (std::size_t input : {0u, 1u})
      if (squares[input] * 256 / total - total > kFar)
        findings_.push_back(base_[m].Describe() + " has bytes that are not evenly distributed");
    if (between > kFar)
      findings_.push_back(base_[m].Describe() + " has bytes that go with the input");
  }

  const Scenario& scenario_;
  int receiver_;
  const Draw* forgotten_;
  std::map<Draw, std::size_t> draws_;
  View base_;
  Messages opened_;
  std::map<Draw, Parts> changes_;
  std::map<std::tuple<std::size_t, std::set<std::size_t>, Varied>, std::optional<std::size_t>>
      bare_;
  std::vector<View> views_;  // under other keys, input 0 and 1 in turn
  std::vector<std::string> findings_;
};

}  // namespace

std::vector<std::string> Findings(const Scenario& scenario, int receiver, const Draw* left_out) {
  return Check(scenario, receiver, left_out).Run();
}

}  // namespace tercet::conformance
