// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <exception>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "infer/flight.h"
#include "tercet/net/wrappers.h"

namespace tercet::infer {

/// What three parties do in one process: all queries of a session after the agreement.
struct FlightRun {
  const nn::IntegerNetwork& model;
  const files::Images& images;
  const std::vector<Plan>& plans;  ///< PlansOf
  const mpc::Registry& registry;
  mpc::Roles roles;
  Schedule schedule = InTurn{};
  std::size_t in_flight = 1;
  Flight::MakeParty make = Flight::AgreeKeys;

  /// How it ended at each party; a party's error is passed on to the others.
  struct Ends {
    std::array<Outcome, 3> outcomes;
    std::array<std::vector<PartyLayer>, 3> layers;
    std::array<std::exception_ptr, 3> errors;
    void ThrowIfAny() const {
      for (const auto& error : errors)
        if (error) std::rethrow_exception(error);
    }
  };
  Ends Over(std::array<net::Links, 3> links) const {
    Ends ends;
    std::array<std::jthread, 3> threads;
    for (std::size_t at = 0; at < 3; ++at)
      threads[at] = std::jthread([&, at] { RunParty(at, std::move(links[at]), ends); });
    for (auto& thread : threads) thread.join();
    return ends;
  }

 private:
  void RunParty(std::size_t at, net::Links links, Ends& ends) const {
    std::array<std::shared_ptr<net::Link>, 3> held;
    for (std::size_t p = 0; p < 3; ++p) {
      if (!links[p]) continue;
      held[p] = std::move(links[p]);
      links[p] = net::MakeSharedLink(held[p]);
    }
    const auto abort = [&](const std::string& reason) {
      for (const auto& link : held)
        if (link) link->Abort(reason);
    };
    try {
      SessionSettings settings;
      settings.id = static_cast<int>(at);
      settings.roles = roles;
      settings.model = settings.id == roles.model_owner ? &model : nullptr;
      settings.images = settings.id == roles.data_owner ? &images : nullptr;
      settings.schedule = schedule;
      settings.in_flight = in_flight;
      std::size_t batch = 0;
      for (const auto& plan : plans) batch += plan.batch;
      Flight flight(std::move(links), plans, Runners(in_flight, (images.count + batch - 1) / batch),
                    registry, settings, abort, make);
      ends.outcomes[at] = flight.Run(images.count, 0);
      ends.layers[at] = flight.Layers();
    } catch (const std::exception& e) {
      ends.errors[at] = std::current_exception();
      abort(e.what());
    }
  }
};

}  // namespace tercet::infer
