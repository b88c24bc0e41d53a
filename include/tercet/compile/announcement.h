// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "tercet/mpc/registry.h"
#include "tercet/nn/integer_network.h"
#include "tercet/nn/network.h"

/// What a model says of itself in public: to the other parties, in a compiled file, in material.
/// All else that is public follows from the architecture (Architecture), which each party has from
/// its own JSON. The text is JSON; tests/compile/announcement_test.cpp lists its fields and what
/// each tells. All functions are thread safe.
namespace tercet::compile {

/// The widest that Compile gives a layer, and the last one where it compares classes, whose values
/// are differences.
inline constexpr unsigned kMaxLayerBits = 32, kComparisonBits = 2;

struct Announcement {
  struct Layer {
    /// Of the layer's values: they depend on the weights, and where they are measured on the
    /// calibration images.
    unsigned value_bits = 0;
    unsigned shift = 0;  ///< of relu, square and table; as the width
    bool proven = true;  ///< how the width was found
    std::string suite;   ///< for a layer that leaves the choice, else empty
    bool operator==(const Layer&) const = default;
  };
  std::string network;      ///< the name, for messages
  std::string spec_digest;  ///< of the JSON that it was compiled from
  bool only_class = false;  ///< only the class leaves
  std::vector<Layer> layers;
  bool operator==(const Announcement&) const = default;
};

/// Whether a party with this --suite leaves a layer's suite to the model's owner: its own JSON says
/// `auto` there, or nothing while --suite says `auto`. `layer` is one of Architecture.
bool LeavesSuite(const nn::PublicLayer& layer, const mpc::SuiteChoice& suite);

/// Of a compiled network; without suites.
Announcement AnnouncementOf(const nn::PublicNetwork& network);
/// With the suites that `network` names, for the layers whose suite is left to the owner.
Announcement AnnouncementOf(const nn::PublicNetwork& network, const nn::NetworkSpec& spec,
                            const mpc::SuiteChoice& suite);

std::string AnnouncementToJson(const Announcement& announcement);
/// Checks the form and the bounds of each field alone. ConfigError with `place` and JSON pointer.
Announcement AnnouncementFromJson(const std::string& text, const std::string& place);

/// The most bytes that an announcement of this network can have as JSON, whatever it announces.
std::size_t MostAnnouncementBytes(const nn::NetworkSpec& spec);

/// The most bits that logits of this architecture can need, for which `network` has the widths of
/// the layers before: enough for a bias as large as the sum of what enters, each times a weight of
/// 16 bits beside its sign, and for the sum's own sign. At most kMaxLayerBits.
unsigned MostLogitBits(const nn::PublicNetwork& network);

/// The network that `announcement` makes of a party's own architecture. Nothing but widths, shifts
/// and whether they are proven is taken from it, and within bounds: as many layers, widths of 2 to
/// kMaxLayerBits bits (kComparisonBits more where classes are compared; the logits' at most
/// MostLogitBits), shifts smaller than the width and only before relu and square, before a table
/// that which leaves the bits of its index. The class alone may leave where the JSON says logits,
/// since it tells the receiver less, but no logits where it says class. ConfigError with `place`
/// and JSON pointer says what differs, also for an announcement that names a suite.
nn::PublicNetwork NetworkOf(const nn::NetworkSpec& spec, const Announcement& announcement,
                            const std::string& place);
/// With suites, of a party that runs with --suite `suite`: a layer's is what its own JSON says,
/// where that is nothing `suite`, and only where the choice is left (LeavesSuite) what is
/// announced: that must be a suite of the registry that is private.
nn::PublicNetwork NetworkOf(const nn::NetworkSpec& spec, const Announcement& announcement,
                            const mpc::Registry& registry, const mpc::SuiteChoice& suite,
                            const std::string& place);

}  // namespace tercet::compile
