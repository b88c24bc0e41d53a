// SPDX-License-Identifier: Apache-2.0
#include "serve/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <utility>

#include "tercet/base/error.h"

namespace tercet::serve {
namespace {

using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

const Histogram::BucketBoundaries kSeconds{0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1,
                                           0.2,   0.5,   1,     2,    5,    10};
const Histogram::BucketBoundaries kImages{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096};

// What is read off the lanes when somebody asks.
class Lanes : public prometheus::Collectable {
 public:
  explicit Lanes(std::function<std::vector<LaneState>()> states) : states_(std::move(states)) {}
  std::vector<MetricFamily> Collect() const override {
    const auto family = [](const char* name, const char* help, MetricType type) {
      MetricFamily made;
      made.name = name;
      made.help = help;
      made.type = type;
      return made;
    };
    auto up = family("tercet_lane_up", "1 where the lane has a session of all three servers",
                     MetricType::Gauge);
    auto material = family("tercet_material_batches", "batches whose material is made and waits",
                           MetricType::Gauge);
    auto material_bytes =
        family("tercet_material_bytes", "about how many bytes that material is", MetricType::Gauge);
    auto sent = family("tercet_sent_bytes_total", "bytes of messages to the other servers",
                       MetricType::Counter);
    auto received = family("tercet_received_bytes_total",
                           "bytes of messages from the other servers", MetricType::Counter);
    for (const auto& state : states_()) {
      const auto add = [&](MetricFamily& to, double value) {
        prometheus::ClientMetric metric;
        metric.label = {{"lane", std::to_string(state.lane)}};
        (to.type == MetricType::Gauge ? metric.gauge.value : metric.counter.value) = value;
        to.metric.push_back(std::move(metric));
      };
      add(up, state.up ? 1 : 0);
      add(material, static_cast<double>(state.material));
      add(material_bytes, static_cast<double>(state.material_bytes));
      add(sent, static_cast<double>(state.sent));
      add(received, static_cast<double>(state.received));
    }
    return {std::move(up), std::move(material), std::move(material_bytes), std::move(sent),
            std::move(received)};
  }

 private:
  const std::function<std::vector<LaneState>()> states_;
};

}  // namespace

struct Metrics::State {
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();
  prometheus::Family<prometheus::Counter>& answers =
      prometheus::BuildCounter()
          .Name("tercet_answers_total")
          .Help("answers to requests, by HTTP status")
          .Register(*registry);
  prometheus::Family<Histogram>& stages =
      prometheus::BuildHistogram()
          .Name("tercet_query_seconds")
          .Help(
              "what a query takes: open (checked and unsealed), wait (for its batch), material "
              "(for its batch's material, a part of compute), compute (its batch), all (from its "
              "request to its answer)")
          .Register(*registry);
  Histogram& open = stages.Add({{"stage", "open"}}, kSeconds);
  Histogram& wait = stages.Add({{"stage", "wait"}}, kSeconds);
  Histogram& material = stages.Add({{"stage", "material"}}, kSeconds);
  Histogram& compute = stages.Add({{"stage", "compute"}}, kSeconds);
  Histogram& all = stages.Add({{"stage", "all"}}, kSeconds);
  Histogram& batches = prometheus::BuildHistogram()
                           .Name("tercet_batch_images")
                           .Help("images of a batch that this server has led")
                           .Register(*registry)
                           .Add({}, kImages);
  prometheus::Counter& queries = prometheus::BuildCounter()
                                     .Name("tercet_queries_total")
                                     .Help("queries that were answered")
                                     .Register(*registry)
                                     .Add({});
  prometheus::Counter& images = prometheus::BuildCounter()
                                    .Name("tercet_images_total")
                                    .Help("images of queries that were answered")
                                    .Register(*registry)
                                    .Add({});
  std::shared_ptr<Lanes> lanes;
  std::unique_ptr<prometheus::Exposer> exposer;
};

Metrics::Metrics() : state_(std::make_unique<State>()) {}
Metrics::~Metrics() = default;

void Metrics::Answered(std::uint16_t status) {
  state_->answers.Add({{"code", std::to_string(status)}}).Increment();
}

void Metrics::Opened(double seconds) { state_->open.Observe(seconds); }

void Metrics::Batch(const service::BatchDone& batch) {
  state_->batches.Observe(static_cast<double>(batch.images));
  for (const double waited : batch.waited) state_->wait.Observe(waited);
  for (std::size_t q = 0; q < batch.waited.size(); ++q) {
    state_->material.Observe(batch.material_s);
    state_->compute.Observe(batch.seconds);
  }
}

void Metrics::Query(std::size_t images, double seconds) {
  state_->queries.Increment();
  state_->images.Increment(static_cast<double>(images));
  state_->all.Observe(seconds);
}

void Metrics::Listen(const std::string& address, std::function<std::vector<LaneState>()> lanes) {
  state_->lanes = std::make_shared<Lanes>(std::move(lanes));
  try {
    state_->exposer = std::make_unique<prometheus::Exposer>(address, 1);
  } catch (const std::exception& e) {
    throw ConfigError("--metrics", fmt::format("{} cannot be listened on: {}", address, e.what()));
  }
  state_->exposer->RegisterCollectable(state_->registry);
  state_->exposer->RegisterCollectable(state_->lanes);
}

void Metrics::Close() { state_->exposer.reset(); }

}  // namespace tercet::serve
