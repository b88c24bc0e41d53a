// SPDX-License-Identifier: Apache-2.0
// One party of a testbed: `one_party ID TESTBED NETWORK [OWN_FILE]`, where the model's owner gives
// its compiled model and the owner of the images its images. The receiver prints the classes.
#include <cstdio>
#include <optional>
#include <string>

#include "tercet/compile/compiled_file.h"
#include "tercet/infer/session.h"
#include "tercet/infer/testbed.h"
#include "tercet/mpc/builtin_protocols.h"
#include "tercet/nn/run_plain.h"

int main(int, char** argv) {
  const auto registry = tercet::BuiltinProtocols();
  const int id = std::stoi(argv[1]);
  const auto testbed = tercet::infer::LoadTestbed(argv[2], id);
  tercet::infer::SessionSettings settings{.id = id, .spec = tercet::nn::LoadNetwork(argv[3])};
  settings.suite.name = "lut";
  settings.roles = testbed.roles;
  settings.batch = 8;
  std::optional<tercet::nn::IntegerNetwork> model;
  std::optional<tercet::files::Images> images;
  if (id == settings.roles.model_owner)
    settings.model = &model.emplace(tercet::compile::LoadCompiled(argv[4], settings.spec));
  if (id == settings.roles.data_owner)
    settings.images =
        &images.emplace(tercet::files::LoadImages(argv[4], /*limit=*/0, settings.spec.input.shape));

  auto options = testbed.Tcp(id);
  options.agreement = tercet::infer::Agreement(settings);
  tercet::infer::Session session(settings, registry);
  const auto result = session.Run([&] { return tercet::net::ConnectTcp(options); });
  for (const int c : tercet::nn::Predictions(result.logits, result.classes)) std::printf("%d ", c);
}
