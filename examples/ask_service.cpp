// SPDX-License-Identifier: Apache-2.0
// A client of a prediction service: `ask_service DEPLOYMENT MODEL TOKEN_FILE IMAGES` prints the
// classes of the images, which no server sees.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>

#include "tercet/client/service.h"
#include "tercet/nn/run_plain.h"

int main(int, char** argv) {
  const auto deployment = tercet::service::LoadDeployment(argv[1]);
  std::string token;
  std::ifstream(argv[3]) >> token;
  tercet::client::Service service(deployment, token);
  const auto info = service.Model(argv[2]);
  const auto images = tercet::files::LoadImages(argv[4], /*limit=*/0, info.input.shape);
  for (std::size_t first = 0; first < images.count; first += deployment.max_images) {
    const auto count = std::min<std::size_t>(deployment.max_images, images.count - first);
    const auto logits = service.AskAgain(info, images, first, count, /*tries=*/8);
    for (const int c : tercet::nn::Predictions(logits, info.classes)) std::printf("%d ", c);
  }
}
