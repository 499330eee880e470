#pragma once
/// \file
/// What the configurations of Hugging Face's config.json have in common.

#include <string>
#include <string_view>
#include <vector>

#include "ordo/kernels/activation.hpp"
#include "ordo/core/names.hpp"

namespace ordo {

namespace detail {
/// The activation that config.json means; ConfigError if there is none of that name.
inline Activation hub_activation(std::string_view name) {
  struct Entry {
    std::string_view name;
    Activation kind;
  };
  constexpr Entry known[]{{"gelu", Activation::gelu}, {"gelu_python", Activation::gelu}, {"gelu_new", Activation::gelu_tanh},
                          {"gelu_pytorch_tanh", Activation::gelu_tanh}, {"gelu_fast", Activation::gelu_tanh}, {"quick_gelu", Activation::quick_gelu},
                          {"relu", Activation::relu}, {"relu2", Activation::relu_squared}, {"silu", Activation::silu}, {"swish", Activation::silu},
                          {"tanh", Activation::tanh}, {"sigmoid", Activation::sigmoid}, {"linear", Activation::none}};
  for (const Entry& entry : known) {
    if (entry.name == name) return entry.kind;
  }
  fail<ConfigError>({"config.json: unknown activation \"", name, "\""});
}
}  // namespace detail

/// The keys that every config.json has. A hub configuration adds its own, and
///
///     static constexpr const char *base_class, *head_class;   // values of `architectures`
///     static constexpr const char* prefix;                    // of all tensors but the head's, in files of models with a head
///     static NameMap names();                                 // of its tensors, without the prefix
///     static bool ignored(std::string_view name);             // tensors that strict loading lets pass, without the prefix
///     auto expand() const;                                    // the configuration of the model
struct HubConfig {
  std::string model_type;
  std::vector<std::string> architectures;
  bool tie_word_embeddings = false;
  /// Not in config.json: the file has a head of its own.
  bool head_in_file = false;
  template <class Self, class F>
  static void visit_common(Self& c, F&& f) {
    f("model_type", c.model_type);
    f("architectures", c.architectures);
    f("tie_word_embeddings", c.tie_word_embeddings);
  }
};

}  // namespace ordo
