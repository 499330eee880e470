// Blocks, encoders, decoders, encoder-decoders; torch.nn's transformer modules.

#include "report.hpp"

namespace conformance {

// Each over a scalar type is a source file of its own.
RunFunction find_stack_model_of(std::string_view name, float);
RunFunction find_stack_model_of(std::string_view name, double);
RunFunction find_transformer_of(std::string_view name, float);
RunFunction find_transformer_of(std::string_view name, double);

std::optional<Runner> find_stack_model(std::string_view name) {
  if (const auto run = find_stack_model_of(name, float())) return Runner{run, find_stack_model_of(name, double())};
  if (const auto run = find_transformer_of(name, float())) return Runner{run, find_transformer_of(name, double())};
  return std::nullopt;
}

}  // namespace conformance
