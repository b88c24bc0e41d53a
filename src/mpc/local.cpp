// SPDX-License-Identifier: Apache-2.0
#include "tercet/mpc/local.h"

#include <exception>
#include <mutex>
#include <thread>

namespace tercet::mpc {

void RunParties(const std::function<void(Party&)>& body, const LocalOptions& options) {
  auto all = net::MakeMemoryLinks(options.timeout);
  std::mutex mutex;
  std::exception_ptr first;
  auto run = [&](int id) {
    std::unique_ptr<Party> party;
    try {
      if (options.wrap)
        for (auto& link : all[id])
          if (link) link = options.wrap(std::move(link), id);
      party = options.make
                  ? options.make(id, std::move(all[id]))
                  : std::make_unique<Party>(id, std::move(all[id]), options.layers, options.ledger);
      body(*party);
      party->Close();
    } catch (const std::exception& e) {
      {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      if (party) {
        party->Abort(e.what());
      } else {
        for (auto& link : all[id])
          if (link) link->Abort(e.what());
      }
    }
  };
  {
    std::array<std::jthread, 3> threads;
    for (int id = 0; id < 3; ++id) threads[id] = std::jthread(run, id);
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace tercet::mpc
