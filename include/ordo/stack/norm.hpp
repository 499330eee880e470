#pragma once
/// \file
/// The norm of a block or model, chosen at run time, and what blocks inherit from the model around them.

#include <optional>
#include <string>
#include <string_view>

#include "ordo/nn/layer.hpp"
#include "ordo/ops/norm.hpp"

namespace ordo {

enum class NormKind { rms_norm, layer_norm, no };
inline std::string to_string(NormKind kind) {
  return kind == NormKind::rms_norm ? "rms_norm" : kind == NormKind::layer_norm ? "layer_norm" : "none";
}
inline bool from_string(std::string_view name, NormKind& kind) {
  for (const NormKind known : {NormKind::rms_norm, NormKind::layer_norm, NormKind::no}) {
    if (to_string(known) == name) {
      kind = known;
      return true;
    }
  }
  return false;
}

/// Where the norms N of a block stand on a branch f of its residual stream x, and whether its branches run side by side.
enum class NormPosition {
  pre,                 ///< x + f(N(x))
  post,                ///< N(x + f(x))
  branch_output,       ///< x + N(f(x))
  sandwich,            ///< x + N'(f(N(x)))
  parallel,            ///< x + mixer(N(x)) + feed_forward(N(x))
  parallel_two_norms,  ///< x + mixer(N(x)) + feed_forward(M(x))
};
namespace detail {
inline constexpr std::string_view norm_position_names[]{"pre", "post", "branch_output", "sandwich", "parallel", "parallel_two_norms"};
}
inline std::string to_string(NormPosition position) {
  return std::string(detail::norm_position_names[static_cast<std::size_t>(position)]);
}
inline bool from_string(std::string_view name, NormPosition& position) {
  for (std::size_t i = 0; i < std::size(detail::norm_position_names); ++i) {
    if (detail::norm_position_names[i] == name) {
      position = static_cast<NormPosition>(i);
      return true;
    }
  }
  return false;
}

namespace detail {

/// The options that a block takes from the model around it where it does not say otherwise, in any configuration that has them.
template <class Config, class F>
void visit_style(Config& c, F&& f) {
  f("norm", c.norm);
  f("norm_eps", c.norm_eps);
  f("norm_bias", c.norm_bias);
  f("norm_position", c.norm_position);
  f("residual_scale", c.residual_scale);
}
template <class Inner, class Outer>
void inherit_style(Inner& inner, const Outer& outer) {
  const auto take = [](auto& own, const auto& from) {
    if (!own) own = from;
  };
  take(inner.norm, outer.norm);
  take(inner.norm_eps, outer.norm_eps);
  take(inner.norm_bias, outer.norm_bias);
  take(inner.norm_position, outer.norm_position);
  take(inner.residual_scale, outer.residual_scale);
}

}  // namespace detail

/// RMS norm, layer norm or the identity over the last axis: the layers RmsNorm and LayerNorm under one type.   x, y: [..., model_dim].
template <class T = float>
class Norm {
 public:
  using value_type = T;
  struct Config {
    Index model_dim = 0;
    NormKind kind = NormKind::rms_norm;
    double norm_eps = 1e-5;
    bool bias = true;  ///< of layer_norm
    template <class Self, class F>
    static void visit(Self& c, F&& f) {
      f("model_dim", c.model_dim);
      f("kind", c.kind);
      f("norm_eps", c.norm_eps);
      f("bias", c.bias);
    }
  };

  Norm() = default;
  [[gnu::cold]] explicit Norm(const Config& config) : kind_(config.kind), eps_(config.norm_eps) {
    detail::require_at_least("norm", "model_dim", config.model_dim, 1);
    if (kind_ == NormKind::no) return;
    weight_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 1);
    if (kind_ == NormKind::layer_norm && config.bias) bias_ = constant_parameter<T>(DynExtents<1>(config.model_dim), 0);
  }
  /// The norm of a model or block of width `model_dim`.
  template <class Style>
  static Norm of(const Style& c, Index model_dim) {
    return Norm({model_dim, c.norm.value_or(NormKind::rms_norm), c.norm_eps.value_or(1e-5), c.norm_bias.value_or(true)});
  }

  bool present() const noexcept { return kind_ != NormKind::no; }

  template <TensorLike X>
  auto operator()(const X& x) const {
    using Y = decltype(rms_norm(x, weight_, eps_));
    if (kind_ == NormKind::rms_norm) return rms_norm(x, weight_, eps_);
    if (kind_ == NormKind::layer_norm) return layer_norm(x, weight_, bias_, eps_);
    return Y(x);
  }

  template <class Self, class F>
  static void visit(Self& self, F&& f) {
    if (self.weight_.present()) f("weight", self.weight_);
    if (self.bias_.present()) f("bias", self.bias_);
  }

 private:
  NormKind kind_ = NormKind::no;
  double eps_ = 0;
  DynParameter<T, 1> weight_, bias_;
};

}  // namespace ordo
