// Editing of logits.

#include "decoding.hpp"
#include "ordo/decode/logits.hpp"

namespace conformance {
namespace {

struct LogitsCaseConfig {
  SamplerConfig sampler;
  Index prompt_length = -1;
  std::vector<std::int32_t> end_tokens;
  bool renormalize = false;
};

// sequence_bias is a list of [[ids...], bias]; all else are fields of the sampler or of the case.
LogitsCaseConfig read_logits_config(const JsonRef& json) {
  LogitsCaseConfig c;
  std::vector<std::string> known{"prompt_length", "end_tokens", "renormalize", "sequence_bias"};
  SamplerConfig::visit(c.sampler, [&](std::string_view name, auto& field) {
    if (name == "seed" || name == "sequence_bias") return;
    known.emplace_back(name);
    if (const auto given = json.find(name)) detail::read_field(*given, field);
  });
  for (const auto& [key, value] : json->members()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) fail<ConfigError>("config: unknown key \"" + key + "\"");
  }
  c.prompt_length = json.at("prompt_length").as<Index>();
  if (const auto given = json.find("end_tokens")) detail::read_field(*given, c.end_tokens);
  if (const auto given = json.find("renormalize")) detail::read_field(*given, c.renormalize);
  if (const auto given = json.find("sequence_bias"); given && !(*given)->is_null()) {
    for (std::size_t i = 0; i < (*given)->size(); ++i) {
      const JsonRef pair = given->at(i);
      if (pair->size() != 2) pair.wrong("[[ids...], bias]");
      c.sampler.sequence_bias.push_back({pair.at(0).as<std::vector<std::int32_t>>(), pair.at(1).as_double()});
    }
  }
  return c;
}

template <class T>
void run_process_logits(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("editing of logits runs whole");
  c.require_inputs({"logits", "ids", "allowed"});
  const LogitsCaseConfig config = read_logits_config(c.config());
  DynTensor<T, 2> logits = c.tensor<T, 2>("input.logits");
  const DynTensor<std::int32_t, 2> ids = c.tensor<std::int32_t, 2>("input.ids");
  const Index batch = logits.extent(0), vocab = logits.extent(1), length = ids.extent(1);
  if (ids.extent(0) != batch) fail<FileError>("input.ids: expected " + std::to_string(batch) + " rows");
  const AnyTensor<std::int32_t> allowed = c.read_if<std::int32_t>("input.allowed");
  if (allowed.present() && !(allowed.shape() == logits.shape())) fail<FileError>("input.allowed: expected the shape of input.logits");

  LogitsProcessor process(config.sampler);
  const AnyTensor<std::int32_t> expected = c.read<std::int32_t>("output.allowed");
  if (!(expected.shape() == logits.shape())) fail<FileError>("output.allowed: expected the shape of input.logits");
  int wrong = 0;
  for (Index b = 0; b < batch; ++b) {
    std::vector<std::uint8_t> may;
    if (allowed.present()) {
      for (Index i = 0; i < vocab; ++i) may.push_back(allowed.data()[b * vocab + i] != 0);
    }
    const DecodeContext context{.history = {ids.data() + b * length, static_cast<std::size_t>(length)},
                                .prompt_length = config.prompt_length,
                                .end_tokens = config.end_tokens,
                                .allowed = may};
    const std::span<T> row(logits.data() + b * vocab, static_cast<std::size_t>(vocab));
    process(row, context, config.renormalize);
    for (Index i = 0; i < vocab; ++i) {
      T& x = row[static_cast<std::size_t>(i)];
      const bool forbidden = x == -std::numeric_limits<T>::infinity();
      wrong += forbidden != (expected.data()[b * vocab + i] == 0);
      if (forbidden) x = 0;
    }
  }
  report.add("output.allowed", wrong, 0.5);
  report.compare("output.logits", borrow(logits));
}

}  // namespace

std::optional<Runner> find_decoding(std::string_view name) {
  if (name == "process_logits") return Runner{run_process_logits<float>, run_process_logits<double>};
  return find_search(name);
}

}  // namespace conformance
