#pragma once
// Runs any layer of the layer list against a case, by what the layer can do: its Config, visit, State and step.

#include "ordo/eval/layers/entry.hpp"
#include "ordo/io/model.hpp"
#include "ordo/nn/sequences.hpp"
#include "ordo/ops/attention_options.hpp"
#include "ordo/ops/shape.hpp"
#include "kernels.hpp"
#include "report.hpp"

namespace conformance {

// Files keep the state-space state channel-major [B, E, N], Ordo [B, N, E]; and the states of stacked recurrent layers [N, B, E], Ordo
// with the batch in front. The two axes that stand the other way round in files, 0 and 0 if none do.
struct Axes {
  std::size_t a = 0, b = 0;
  explicit operator bool() const { return a != b; }
  template <class T>
  AnyTensor<T> swap(const AnyTensor<T>& x) const {
    return TransposeOp{a, b}.forward(x);
  }
};
// In place of a layer: blocks, whose mixers may be recurrent layers.
struct OfMixers {
  struct Config {};
};
template <class L, class Leaf>
Axes swapped_in_files(const Path& path, const Leaf& leaf) {
  if (leaf.shape().rank() != 3) return {};
  if (path.name() == "ssm") return {1, 2};
  if (std::is_same_v<L, OfMixers> && (path.name() == "hidden" || path.name() == "cell")) return {0, 1};
  if constexpr (requires(typename L::Config& c) { c.num_layers, c.bidirectional; }) return {0, 1};
  return {};
}

template <class L>
concept Packs = requires(const L& layer, const DynTensor<typename L::value_type, 3>& x, const Packing& p) { layer(x, p); };
template <class L>
concept Pads = requires(const L& layer, const DynTensor<typename L::value_type, 3>& x, const Padding& p) { layer(x, p); };

// A layer that takes a second sequence, masks and biases besides its input.
template <class L>
concept Attends = requires(const L& layer, const DynTensor<typename L::value_type, 3>& x, const Visibility& v) { layer.attend(x, none, none, none, v); };
// A state that grows with the stream: compact() leaves what files hold.
template <class S>
concept Compacts = requires(S& s) { s.compact(); };

struct Sequences {
  std::optional<Packing> packing;
  std::optional<Padding> padding;
};

template <class L, class X, class... S>
auto call(const L& layer, const Sequences& sequences, const X& x, S&... state) {
  if constexpr (!TokenIdLayer<L> && rank_of<X> == 3) {
    if constexpr (Packs<L>) {
      if (sequences.packing) return layer(x, state..., *sequences.packing);
    }
    if constexpr (Pads<L>) {
      if (sequences.padding) return layer(x, state..., *sequences.padding);
    }
  }
  if (sequences.packing) fail<UsageError>("input.cu_seqlens: this layer takes no packed sequences");
  if (sequences.padding) fail<UsageError>("input.key_padding, input.lengths: this layer takes no padded batches");
  return layer(x, state...);
}

// The tensors of a state under "prefix.path", all or none.
template <class L, class S>
void load_state(const Case& c, const std::string& prefix, S& state) {
  const auto in_file = c.names(prefix);
  if (in_file.empty()) return;
  std::set<std::string> left(in_file.begin(), in_file.end());
  [[maybe_unused]] Index columns = 0;
  for_each_leaf(state, [&](const Path& path, auto& leaf) {
    using T = typename std::remove_cvref_t<decltype(leaf)>::value_type;
    const std::string name = path.str();
    if (left.erase(name) == 0) {
      if (leaf.size() == 0) return;
      if constexpr (Compacts<S> && std::is_integral_v<T>) {  // the number of tokens, where that is all that files say about it
        std::fill_n(leaf.data(), leaf.size(), static_cast<T>(columns));
        return;
      }
      fail<FileError>("missing tensor " + prefix + "." + name);
    }
    AnyTensor<T> value = c.read<T>(prefix + "." + name);
    if constexpr (std::is_floating_point_v<T>) {
      if (const Axes axes = swapped_in_files<L>(path, value)) value = axes.swap(value);
    }
    if constexpr (Compacts<S> && std::is_floating_point_v<T>) {  // as many tokens as there are
      Shape shape = leaf.shape();
      if (shape.rank() == value.rank()) shape[1] = value.extent(1);
      columns = shape.rank() > 1 ? shape[1] : 0;
      if (shape == value.shape()) leaf = std::remove_reference_t<decltype(leaf)>(value.shape().template extents<std::remove_reference_t<decltype(leaf)>::rank()>());
    }
    if (!(value.shape() == leaf.shape()))
      fail<FileError>(prefix + "." + name + ": shape " + ordo::to_string(c.shape(prefix + "." + name)) + " does not fit the state");
    std::copy_n(value.data(), value.size(), leaf.data());
  });
  if (!left.empty()) fail<FileError>("unknown tensor " + prefix + "." + *left.begin());
}

template <class L, class S>
void compare_state(Report& report, S& state) {
  if constexpr (Compacts<S>) state.compact();
  for_each_leaf(state, [&](const Path& path, const auto& leaf) {
    using T = typename std::remove_cvref_t<decltype(leaf)>::value_type;
    if constexpr (std::is_floating_point_v<T>) {
      const AnyTensor<T> value = borrow(leaf).copy();
      const Axes axes = swapped_in_files<L>(path, value);
      report.compare("state_out." + path.str(), axes ? axes.swap(value) : value);
    } else {
      report.compare_integers("state_out." + path.str(), leaf);
    }
  });
}

// The name that files give a parameter: that of visit, or what the layer's map of names makes of it.
template <class L>
std::string name_in_files(const std::string& name) {
  if constexpr (requires { L::Config::names(); }) {
    return L::Config::names()(name).name;
  } else {
    return name;
  }
}

// Gradients of the parameters.
template <class L>
void compare_parameters(Report& report, const L& layer, const Gradients& gradients) {
  for_each_leaf(layer, [&](const Path& path, const auto& p) { report.compare("grad_param." + name_in_files<L>(path.str()), gradients.of(p)); });
}

template <class T>
Tape::Seed seed_of(const Case& c, const std::string& name, const auto& y, Axes swapped = {}) {
  AnyTensor<T> upstream = c.read_if<T>(name);
  if (!upstream.present()) upstream = AnyTensor<T>(y.var().shape(), T{0});
  else if (swapped) upstream = swapped.swap(upstream);
  return Tape::Seed::of(y, upstream);
}

// Tokens [at, at + length) of each row.
template <class X>
X cut(const X& x, Index at, Index length) {
  const Shape shape = x.shape();
  auto extents = x.extents().to_array();
  extents[1] = length;
  X piece(typename X::extents_type(extents), uninitialized);
  const Index width = shape.size(2, shape.rank());
  for (Index b = 0; b < shape[0]; ++b)
    std::copy_n(x.data() + (b * shape[1] + at) * width, length * width, piece.data() + b * length * width);
  return piece;
}
template <class T>
auto token(const DynTensor<T, 3>& piece) { return reshape(piece, piece.extent(0), piece.extent(2)); }
inline auto token(const DynTensor<std::int64_t, 2>& piece) {
  DynTensor<std::int64_t, 1> ids(piece.extent(0));
  std::copy_n(piece.data(), piece.size(), ids.data());
  return ids;
}

template <class L>
class LayerRun {
  using T = typename L::value_type;

 public:
  LayerRun(const Case& c, Report& report) : case_(c), report_(report) {
    typename L::Config config;
    read_config(c.config(), config);
    if constexpr (requires { config.shared_values; }) {  // the rank of a table tells whether the heads share it
      const auto shared = [&c](const std::string& name) { return c.has(name) && c.shape(name).rank() == 2; };
      config.shared = shared("param.relative_embedding");
      config.shared_values = shared("param.relative_value_embedding");
    }
    Random random(1);
    layer_ = L(config, random);
    load_model(c.source(), layer_, {.ignore = [](const std::string& name) { return !name.starts_with("param."); },
                                    .rename = [](const std::string& name) { return "param." + name_in_files<L>(name); }});
    for (const std::string& name : c.names("input")) {
      if (Attends<L> && name != "x") {
        has_context_ = true;
      } else if (name == "cu_seqlens") {
        sequences_.packing = Packing(c.tensor<std::int64_t, 1>("input.cu_seqlens"));
      } else if (name == "key_padding") {
        sequences_.padding.emplace(c.tensor<std::uint8_t, 2>("input.key_padding"));
      } else if (name == "lengths") {
        sequences_.padding.emplace(Padding::of_lengths(c.tensor<std::int64_t, 1>("input.lengths"), c.shape("input.x")[1]));
      } else if (input_.empty()) {
        input_ = name;
      } else {
        fail<FileError>("unknown tensor input." + name);
      }
    }
    if (input_.empty()) fail<FileError>("no input");
    const auto outputs = c.names("output");
    if (outputs.size() != 1) fail<FileError>("a layer has one output, the file " + std::to_string(outputs.size()));
    output_ = outputs[0];
  }

  void run(RunMode mode) {
    const std::string name = "input." + input_;
    const std::size_t rank = case_.shape(name).rank();
    if constexpr (TokenIdLayer<L>) {
      if (!case_.is_integer(name)) fail<FileError>(name + ": expected integers");
      if (rank != 2) fail<FileError>(name + ": expected [B, L]");
      run_on(mode, case_.tensor<std::int64_t, 2>(name));
    } else if constexpr (StreamingLayer<L>) {
      if (rank != 3) fail<FileError>(name + ": expected [B, L, D]");
      run_on(mode, case_.tensor<T, 3>(name));
    } else {
      with_rank(rank, [&]<std::size_t R>() { run_on(mode, case_.tensor<T, R>(name)); });
    }
  }

 private:
  template <class X>
  void run_on(RunMode mode, const X& x) {
    if constexpr (Attends<L>) {
      if (has_context_ || !streams()) {
        if (mode == RunMode::whole) return run_attention<false>();
        if (mode == RunMode::backward) return run_attention<true>();
        fail<UsageError>("a call with other inputs than x, or without a stream, is not cut");
      }
    }
    if (mode == RunMode::backward) return backward(x);
    if (mode == RunMode::whole) {
      if constexpr (StreamingLayer<L>) {
        if (streams()) {
          auto state = start(x);
          report_.compare("output." + output_, borrow(call(layer_, sequences_, x, state)).copy());
          compare_state<L>(report_, state);
          if (!case_.names("state_in").empty()) return;
        }
      }
      report_.compare("output." + output_, borrow(call(layer_, sequences_, x)).copy());
      return;
    }
    if constexpr (StreamingLayer<L>) {
      if (sequences_.packing || sequences_.padding) fail<UsageError>("packed and padded cases are not cut");
      stream(mode, x);
    } else {
      fail<UsageError>("this layer has no stream");
    }
  }

  // Whole sequences with whatever stands beside x.
  template <bool recorded>
  void run_attention() {
    case_.require_inputs({"x", "memory", "memory_values", "key_padding", "mask", "attn_bias", "prefix_length", "cu_seqlens"});
    Visibility visible;
    visible.key_padding = case_.read_if<std::uint8_t>("input.key_padding");
    visible.mask = case_.read_if<std::uint8_t>("input.mask");
    visible.prefix_length = case_.read_if<std::int64_t>("input.prefix_length");
    if (case_.has("input.cu_seqlens")) visible.packing = Packing(case_.tensor<std::int64_t, 1>("input.cu_seqlens"));
    Tape tape;
    const auto read = [&]<std::size_t R>(const std::string& name, std::integral_constant<std::size_t, R>) {
      AnyTensor<T> value = case_.read<T>("input." + name);
      if (value.rank() + 1 == R) value = value.reshaped(Shape{1, value.extent(0), value.extent(1), value.extent(2)});
      if constexpr (recorded) {
        return track(tape, to_tensor<R>(value));
      } else {
        return to_tensor<R>(value);
      }
    };
    constexpr std::integral_constant<std::size_t, 3> three;
    constexpr std::integral_constant<std::size_t, 4> four;
    const auto x = read("x", three);
    const auto finish = [&](const auto& memory, const auto& values, const auto& bias) {
      const auto y = layer_.attend(x, memory, values, bias, visible);
      if constexpr (recorded) {
        report_.compare("output." + output_, y.var().value);
        const Gradients gradients = tape.backward(std::vector<Tape::Seed>{seed_of<T>(case_, "grad_output." + output_, y)});
        const auto compare = [&](const std::string& name, const auto& input) {
          if constexpr (!std::same_as<std::remove_cvref_t<decltype(input)>, None>) {
            const AnyTensor<T> g = gradients.of(input);
            report_.compare("grad_input." + name, g.present() ? g.reshaped(case_.shape("input." + name)) : g);
          }
        };
        compare("x", x);
        compare("memory", memory);
        compare("memory_values", values);
        compare("attn_bias", bias);
        compare_parameters(report_, layer_, gradients);
      } else {
        report_.compare("output." + output_, borrow(y).copy());
      }
    };
    const auto with_bias = [&](const auto& memory, const auto& values) {
      case_.has("input.attn_bias") ? finish(memory, values, read("attn_bias", four)) : finish(memory, values, none);
    };
    if (case_.has("input.memory_values")) {
      with_bias(read("memory", three), read("memory_values", three));
    } else if (case_.has("input.memory")) {
      with_bias(read("memory", three), none);
    } else {
      with_bias(none, none);
    }
  }

  template <class X>
  auto start(const X& x) const {
    auto state = layer_.initial_state(sequences_.packing ? sequences_.packing->count() : view(x).extent(0));
    load_state<L>(case_, "state_in", state);
    return state;
  }

  template <class X>
  void stream(RunMode mode, const X& x) {
    const Shape shape = x.shape();
    auto state = start(x);
    AnyTensor<T> y;
    Index at = 0;
    for (const Index length : pieces(mode, shape[1])) {
      const X piece = cut(x, at, length);
      AnyTensor<T> part;
      if (mode == RunMode::step) {
        part = borrow(layer_.step(token(piece), state)).copy();
        part = part.reshaped(Shape{part.extent(0), 1, part.extent(1)});
      } else {
        part = borrow(layer_(piece, state)).copy();
      }
      if (!y.present()) y = AnyTensor<T>(Shape{shape[0], shape[1], part.extent(2)});
      for (Index b = 0; b < shape[0]; ++b) {
        const Index width = part.extent(2);
        std::copy_n(part.data() + b * length * width, length * width, y.data() + (b * shape[1] + at) * width);
      }
      at += length;
    }
    report_.compare("output." + output_, y);
    compare_state<L>(report_, state);
  }
  template <class X>
  void backward(const X& plain) {
    Tape tape;
    const auto x = track(tape, plain);
    std::vector<Tape::Seed> seeds;
    const auto finish = [&](const auto& y) {
      report_.compare("output." + output_, y.var().value);
      seeds.push_back(seed_of<T>(case_, "grad_output." + output_, y));
      const Gradients gradients = tape.backward(seeds);
      if constexpr (!TokenIdLayer<L>) report_.compare("grad_input." + input_, gradients.of(x));
      compare_parameters(report_, layer_, gradients);
      return gradients;
    };
    if constexpr (StreamingLayer<L>) {
      if (!streams()) {
        finish(call(layer_, sequences_, x));
        return;
      }
      const auto before = track(tape, start(plain));
      auto state = before;
      const auto y = call(layer_, sequences_, x, state);
      for_each_leaf(state, [&](const Path& path, const auto& leaf) {
        if constexpr (std::is_floating_point_v<typename std::remove_cvref_t<decltype(leaf)>::value_type>) {
          if (leaf.size() > 0)
            seeds.push_back(seed_of<T>(case_, "grad_state_out." + path.str(), leaf, swapped_in_files<L>(path, leaf)));
        }
      });
      const Gradients gradients = finish(y);
      for_each_leaf(before, [&](const Path& path, const auto& leaf) {
        if constexpr (std::is_floating_point_v<typename std::remove_cvref_t<decltype(leaf)>::value_type>) {
          AnyTensor<T> g = gradients.of(leaf);
          if (const Axes axes = swapped_in_files<L>(path, leaf); axes && g.present()) g = axes.swap(g);
          report_.compare("grad_state_in." + path.str(), g);
        }
      });
    } else {
      finish(call(layer_, sequences_, x));
    }
  }

  // Whether this layer, with its configuration, has a stream.
  bool streams() const {
    if constexpr (requires { layer_.streams(); }) return layer_.streams();
    return true;
  }

  const Case& case_;
  Report& report_;
  L layer_;
  Sequences sequences_;
  std::string input_, output_;
  bool has_context_ = false;
};

template <class L>
void run_layer(const Case& c, RunMode mode, Report& report) {
  LayerRun<L>(c, report).run(mode);
}

// How to run a layer of one family over T, by its name in the layer list; null if it is not there.
template <class T, Family family>
RunFunction find_layer(std::string_view name) {
  RunFunction found = nullptr;
  for_each_layer<T, family>([&]<class L>(const LayerEntry<L>& entry) {
    if (entry.name == name) found = run_layer<L>;
  });
  return found;
}

}  // namespace conformance
