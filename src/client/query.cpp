// SPDX-License-Identifier: Apache-2.0
#include "tercet/client/query.h"

#include "tercet/base/error.h"
#include "tercet/crypto/prf.h"
#include "tercet/nn/integer_network.h"
#include "tercet/ring/pack.h"

namespace tercet::client {

Query::Query(const service::Deployment& deployment, const service::ModelInfo& model,
             const files::Images& images, std::size_t first, std::size_t count,
             std::uint64_t now_ms)
    : model_(model) {
  if (!(images.shape == model.input.shape))
    throw ConfigError("images", fmt::format("{} x {} x {} found, the model takes {} x {} x {}",
                                            images.shape.channels, images.shape.height,
                                            images.shape.width, model.input.shape.channels,
                                            model.input.shape.height, model.input.shape.width));
  if (count == 0 || count > deployment.max_images)
    throw ConfigError(
        "images", fmt::format("{} in one query, 1 to {} expected", count, deployment.max_images));
  auto& head = request_.head;
  crypto::RandomBytes(head.id);
  head.model = model.digest;
  head.lane = service::LaneOf(head.id, deployment.lanes);
  head.images = static_cast<std::uint32_t>(count);
  head.time_ms = now_ms;
  head.reply = reply_.Public();

  // Features x images, row-major; shares go image after image.
  const auto input = nn::QuantiseInput(model.input, images, first, count);
  const std::size_t features = model.input.shape.Size();
  ring::DispatchWord(model.input_bits, [&]<ring::Word W>(W) {
    Buffer<W> mine(features * count), other(features * count);
    crypto::RandomBytes({reinterpret_cast<std::uint8_t*>(mine.data()), mine.size() * sizeof(W)});
    for (std::size_t image = 0, v = 0; image < count; ++image)
      for (std::size_t row = 0; row < features; ++row, ++v)
        other[v] =
            static_cast<W>(ring::Encode<W>(input[row * count + image], model.input_bits) - mine[v]);
    const auto seal = [&](const Buffer<W>& share, int server) {
      Bytes packed(ring::PackedBytes(share.size(), model.input_bits));
      ring::Pack(std::span<const W>(share.data(), share.size()), model.input_bits,
                 std::span<std::uint8_t>(packed));
      return crypto::Seal(deployment.servers[static_cast<std::size_t>(server)].sealing_key,
                          QueryContext(head, server), packed);
    };
    const auto roles = service::RolesOf(head.lane);
    request_.e1 = seal(mine, roles.Evaluator1());
    request_.e2 = seal(other, roles.Evaluator2());
  });
}

std::vector<std::int64_t> Query::Open(const service::SealedPair& answer) const {
  const auto& head = request_.head;
  if (answer.head.id != head.id) throw ProtocolError("the answer is that of another query");
  const auto roles = service::RolesOf(head.lane);
  const std::size_t values = model_.classes * head.images;
  return ring::DispatchWord(model_.output_bits, [&]<ring::Word W>(W) {
    Buffer<W> sum(values), share(values);
    std::fill(sum.begin(), sum.end(), W{0});
    for (const auto& [server, sealed] :
         {std::pair(roles.Evaluator1(), &answer.e1), std::pair(roles.Evaluator2(), &answer.e2)}) {
      const auto text = crypto::Unseal(reply_, AnswerContext(head, server), *sealed);
      if (!text || text->size() != ring::PackedBytes(values, model_.output_bits))
        throw ProtocolError(
            fmt::format("the answer's part of server {} is not of this query", server));
      ring::Unpack(*text, model_.output_bits, std::span<W>(share.data(), share.size()));
      for (std::size_t i = 0; i < values; ++i) sum[i] = static_cast<W>(sum[i] + share[i]);
    }
    std::vector<std::int64_t> logits(values);
    for (std::size_t i = 0; i < values; ++i) {
      const std::int64_t value =
          ring::Decode(ring::Reduce(sum[i], model_.output_bits), model_.output_bits);
      logits[i] = model_.only_class ? 1 - value : value;
    }
    return logits;
  });
}

}  // namespace tercet::client
