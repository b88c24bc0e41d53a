// SPDX-License-Identifier: Apache-2.0
// Three parties in one process, over memory: `three_parties NETWORK COMPILED_MODEL IMAGES` prints
// the classes that party 1, the owner of the images, learns. Party 2 owns the model; party 0 helps
// and learns neither.
#include <array>
#include <cstdio>
#include <thread>
#include <utility>

#include "tercet/compile/compiled_file.h"
#include "tercet/infer/session.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/nn/run_plain.h"

int main(int, char** argv) {
  const auto registry = tercet::BuiltinProtocols();
  const auto spec = tercet::nn::LoadNetwork(argv[1]);
  const auto model = tercet::compile::LoadCompiled(argv[2], spec);
  const auto images = tercet::files::LoadImages(argv[3], /*limit=*/0, spec.input.shape);

  auto links = tercet::net::MakeMemoryLinks();
  std::array<tercet::infer::PartyReport, 3> reports;
  {
    std::array<std::jthread, 3> parties;
    for (int id = 0; id < 3; ++id) {
      parties[id] = std::jthread([&, id] {
        tercet::infer::SessionSettings settings{
            .id = id, .spec = spec, .suite = {"lut", {}}, .batch = 8};
        if (id == settings.roles.model_owner) settings.model = &model;
        if (id == settings.roles.data_owner) settings.images = &images;
        tercet::infer::Session session(settings, registry);
        reports[id] = session.Run([&] { return std::move(links[id]); });
      });
    }
  }
  const auto& result = reports[1];
  for (const int c : tercet::nn::Predictions(result.logits, result.classes)) std::printf("%d ", c);
}
