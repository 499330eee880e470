// Positions: rotary, sinusoidal, biases.

#include "op_support.hpp"
#include "ordo/ops/rotary.hpp"

namespace conformance {
namespace {

struct RotaryConfig {
  Index head_dim = 0, rope_dim = 0;
  double rope_base = 10000;
  bool rope_interleaved = false;
  Index position_offset = 0, seq_len = 0;
  RopeScaling rope_scaling;
};
struct FrequenciesConfig : RotaryConfig {
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("rope_dim", s.rope_dim);
    f("rope_base", s.rope_base);
    f("rope_scaling", s.rope_scaling);
    f("seq_len", s.seq_len);
  }
};
template <class T>
void run_frequencies(const Case& c, RunMode, Report& report) {
  FrequenciesConfig o;
  read_config(c.config(), o);
  const RotaryFrequencies f = rotary_frequencies(o.rope_dim, o.rope_base, o.rope_scaling, o.seq_len);
  AnyTensor<T> inv_freq(Shape{static_cast<Index>(f.inv_freq.size())});
  for (Index i = 0; i < inv_freq.size(); ++i) inv_freq.data()[i] = static_cast<T>(f.inv_freq[static_cast<std::size_t>(i)]);
  report.compare("output.inv_freq", inv_freq);
  report.compare("output.attention_factor", AnyTensor<T>(Shape{}, static_cast<T>(f.attention_factor)));
}

struct RopeConfig : RotaryConfig {
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("head_dim", s.head_dim);
    f("rope_dim", s.rope_dim);
    f("rope_base", s.rope_base);
    f("rope_interleaved", s.rope_interleaved);
    f("position_offset", s.position_offset);
    f("rope_scaling", s.rope_scaling);
  }
};
template <class T>
void run_rotary(const Case& c, RunMode mode, Report& report) {
  RopeConfig o;
  read_config(c.config(), o);
  c.require_inputs({"x", "positions"});
  OpArguments<T> in(c, mode, report);
  const Var<T> x = in.input("x", true);
  AnyTensor<std::int32_t> positions = c.read_if<std::int32_t>("input.positions");
  if (!positions.present()) {
    positions = AnyTensor<std::int32_t>(Shape{1, x.shape()[1]});
    for (Index i = 0; i < positions.size(); ++i) positions.data()[i] = static_cast<std::int32_t>(o.position_offset + i);
  }
  const Index longest = positions.size() == 0 ? 0 : *std::max_element(positions.data(), positions.data() + positions.size()) + 1;
  const Index dim = o.rope_dim == 0 ? o.head_dim : o.rope_dim;
  const RotaryTable<T> table(rotary_frequencies(dim, o.rope_base, o.rope_scaling, longest), positions);
  in.compare({{"y", rotary(x, table, o.rope_interleaved)}});
}

struct SinusoidConfig {
  Index model_dim = 0, length = 0, position_offset = 0;
  SinusoidLayout layout = SinusoidLayout::interleaved;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("model_dim", s.model_dim);
    f("length", s.length);
    f("position_offset", s.position_offset);
    f("layout", s.layout);
  }
};
template <class T>
void run_sinusoids(const Case& c, RunMode, Report& report) {
  SinusoidConfig o;
  read_config(c.config(), o);
  report.compare("output.y", borrow(sinusoidal_positions<T>(o.length, o.model_dim, o.position_offset, o.layout)).copy());
}

struct SlopesConfig {
  Index num_heads = 0;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("num_heads", s.num_heads);
  }
};
template <class T>
void run_slopes(const Case& c, RunMode, Report& report) {
  SlopesConfig o;
  read_config(c.config(), o);
  const std::vector<double> slopes = alibi_slopes(o.num_heads);
  AnyTensor<T> y(Shape{o.num_heads});
  for (Index h = 0; h < o.num_heads; ++h) y.data()[h] = static_cast<T>(slopes[static_cast<std::size_t>(h)]);
  report.compare("output.slopes", y);
}

struct BucketsConfig {
  Index num_heads = 0, num_buckets = 32, max_distance = 128;
  bool bidirectional = true;
  Index query_length = 0, key_length = 0, position_offset = 0;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("num_heads", s.num_heads);
    f("num_buckets", s.num_buckets);
    f("max_distance", s.max_distance);
    f("bidirectional", s.bidirectional);
    f("query_length", s.query_length);
    f("key_length", s.key_length);
    f("position_offset", s.position_offset);
  }
};
template <class T>
void run_relative_bias(const Case& c, RunMode mode, Report& report) {
  BucketsConfig o;
  read_config(c.config(), o);
  c.require_inputs({});
  OpArguments<T> in(c, mode, report);
  const Var<T> weight = in.parameter("weight");
  if (!(weight.shape() == Shape{o.num_buckets, o.num_heads})) fail<FileError>("param.weight: expected [num_buckets, num_heads]");
  const auto buckets = relative_buckets(o.query_length, o.key_length, o.num_buckets, o.max_distance, o.bidirectional, o.position_offset);
  const AnyTensor<std::int64_t> expected = c.read<std::int64_t>("output.bucket");
  if (expected.size() != buckets.size()) fail<FileError>("output.bucket: expected [query_length, key_length]");
  report.add("output.bucket", std::equal(buckets.begin(), buckets.end(), expected.data()) ? 0 : HUGE_VAL, 1);
  in.compare({{"bias", t5_relative_bias(weight, o.query_length, o.key_length, o.max_distance, o.bidirectional, o.position_offset)}});
}

}  // namespace

std::optional<Runner> find_position_op(std::string_view name) {
  if (name == "rotary_frequencies") return Runner{run_frequencies<float>, run_frequencies<double>};
  if (name == "rotary") return Runner{run_rotary<float>, run_rotary<double>};
  if (name == "sinusoidal_positions") return Runner{run_sinusoids<float>, run_sinusoids<double>};
  if (name == "alibi_slopes") return Runner{run_slopes<float>, run_slopes<double>};
  if (name == "t5_relative_bias") return Runner{run_relative_bias<float>, run_relative_bias<double>};
  return std::nullopt;
}

}  // namespace conformance
