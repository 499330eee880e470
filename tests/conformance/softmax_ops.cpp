// Softmax attention without its projections.

#include "op_support.hpp"
#include "ordo/ops/attention.hpp"

namespace conformance {
namespace {

struct AttentionConfig {
  AttentionOptions options;
  Index query_block_size = 0, key_block_size = 0;
  bool log_sum_exp = false;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("scale", s.options.scale);
    f("causal", s.options.causal);
    f("window", s.options.window);
    f("num_sink_tokens", s.options.num_sink_tokens);
    f("window_left", s.options.window_left);
    f("window_right", s.options.window_right);
    f("logit_softcap", s.options.logit_softcap);
    f("softmax_one", s.options.softmax_one);
    f("relative_bias_max_distance", s.options.relative_bias_max_distance);
    f("relative_bias_bidirectional", s.options.relative_bias_bidirectional);
    f("query_block_size", s.query_block_size);
    f("key_block_size", s.key_block_size);
    f("log_sum_exp", s.log_sum_exp);
  }
};

template <class T>
void run_attention(const Case& c, RunMode mode, Report& report) {
  AttentionConfig config;
  read_config(c.config(), config);
  c.require_inputs({"q", "k", "v", "mask", "attn_bias", "key_padding", "lengths", "segments", "key_segments", "cu_seqlens", "key_cu_seqlens",
                    "prefix_length", "alibi_slopes", "relative_bias", "sinks", "block_list"});
  config.options.alibi_slopes = c.read_if<double>("input.alibi_slopes");
  Visibility visible;
  visible.key_padding = c.read_if<std::uint8_t>("input.key_padding");
  visible.mask = c.read_if<std::uint8_t>("input.mask");
  visible.lengths = c.read_if<std::int64_t>("input.lengths");
  visible.segments = c.read_if<std::int64_t>("input.segments");
  visible.key_segments = c.read_if<std::int64_t>("input.key_segments");
  visible.prefix_length = c.read_if<std::int64_t>("input.prefix_length");
  visible.block_list = c.read_if<std::int64_t>("input.block_list");
  visible.query_block_size = config.query_block_size;
  visible.key_block_size = config.key_block_size;
  if (c.has("input.cu_seqlens")) visible.packing = Packing(c.tensor<std::int64_t, 1>("input.cu_seqlens"));
  if (c.has("input.key_cu_seqlens")) visible.key_packing = Packing(c.tensor<std::int64_t, 1>("input.key_cu_seqlens"));
  OpArguments<T> in(c, mode, report);
  const Var<T> q = in.input("q", true), k = in.input("k", true), v = in.input("v", true);
  const Var<T> bias = in.input("attn_bias"), relative = in.input("relative_bias"), sinks = in.input("sinks");
  const auto [y, lse] = attention_with_log_sum_exp(q, k, v, config.options, visible, bias, relative, sinks);
  in.compare({{"y", y}, {"log_sum_exp", lse}});
}

struct NoConfig {
  template <class Self, class F>
  static void visit(Self&, F&&) {}
};
template <class T>
void run_merge(const Case& c, RunMode mode, Report& report) {
  NoConfig config;
  read_config(c.config(), config);
  c.require_inputs({"outputs", "log_sum_exps"});
  OpArguments<T> in(c, mode, report);
  const Var<T> outputs = in.input("outputs", true), lse = in.input("log_sum_exps", true);
  const auto [y, l] = merge_attention(outputs, lse);
  in.compare({{"y", y}, {"log_sum_exp", l}});
}

}  // namespace

std::optional<Runner> find_softmax_op(std::string_view name) {
  if (name == "softmax_attention_op") return Runner{run_attention<float>, run_attention<double>};
  if (name == "merge_attention") return Runner{run_merge<float>, run_merge<double>};
  return std::nullopt;
}

}  // namespace conformance
