#pragma once
// Runs any layer of the layer list against a case, by what the layer can do: its Config, visit, State and step.

#include "ordo/eval/layer_list.hpp"
#include "ordo/io/model.hpp"
#include "report.hpp"

namespace conformance {

// Files keep the state-space state channel-major [B, E, N], Ordo [B, N, E].
template <class Leaf>
bool transposed_in_files(const Path& path, const Leaf& leaf) {
  return path.name() == "ssm" && leaf.shape().rank() == 3;
}
template <class T>
AnyTensor<T> swap_last_axes(const AnyTensor<T>& x) {
  return TransposeOp{1, 2}.forward(x);
}

template <class L>
concept Packs = requires(const L& layer, const DynTensor<typename L::value_type, 3>& x, const Packing& p) { layer(x, p); };
template <class L>
concept Pads = requires(const L& layer, const DynTensor<typename L::value_type, 3>& x, const Padding& p) { layer(x, p); };

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
  if (sequences.padding) fail<UsageError>("input.key_padding: this layer takes no padded batches");
  return layer(x, state...);
}

// The tensors of a state under "prefix.path", all or none.
template <class S>
void load_state(const Case& c, const std::string& prefix, S& state) {
  const auto in_file = c.names(prefix);
  if (in_file.empty()) return;
  std::set<std::string> left(in_file.begin(), in_file.end());
  for_each_leaf(state, [&](const Path& path, auto& leaf) {
    using T = typename std::remove_cvref_t<decltype(leaf)>::value_type;
    if (leaf.size() == 0) return;
    const std::string name = path.str();
    if (left.erase(name) == 0) fail<FileError>("missing tensor " + prefix + "." + name);
    AnyTensor<T> value = c.read<T>(prefix + "." + name);
    if constexpr (std::is_floating_point_v<T>) {
      if (transposed_in_files(path, value)) value = swap_last_axes(value);
    }
    if (!(value.shape() == leaf.shape()))
      fail<FileError>(prefix + "." + name + ": shape " + ordo::to_string(c.shape(prefix + "." + name)) + " does not fit the state");
    std::copy_n(value.data(), value.size(), leaf.data());
  });
  if (!left.empty()) fail<FileError>("unknown tensor " + prefix + "." + *left.begin());
}

template <class S>
void compare_state(Report& report, const S& state) {
  for_each_leaf(state, [&](const Path& path, const auto& leaf) {
    using T = typename std::remove_cvref_t<decltype(leaf)>::value_type;
    if constexpr (std::is_floating_point_v<T>) {
      const AnyTensor<T> value = borrow(leaf).copy();
      report.compare("state_out." + path.str(), transposed_in_files(path, value) ? swap_last_axes(value) : value);
    }
  });
}

// Gradients of the parameters, by the names of visit.
template <class L>
void compare_parameters(Report& report, const L& layer, const Gradients& gradients) {
  for_each_leaf(layer, [&](const Path& path, const auto& p) { report.compare("grad_param." + path.str(), gradients.of(p)); });
}

template <class T>
Tape::Seed seed_of(const Case& c, const std::string& name, const auto& y, bool transposed = false) {
  AnyTensor<T> upstream = c.read_if<T>(name);
  if (!upstream.present()) upstream = AnyTensor<T>(y.var().shape(), T{0});
  else if (transposed) upstream = swap_last_axes(upstream);
  return Tape::Seed::of(y, upstream);
}

template <class L>
class LayerRun {
  using T = typename L::value_type;

 public:
  LayerRun(const Case& c, Report& report) : case_(c), report_(report) {
    typename L::Config config;
    read_config(c.config(), config);
    Random random(1);
    layer_ = L(config, random);
    load_model(c.source(), layer_, {.ignore = [](const std::string& name) { return !name.starts_with("param."); },
                                    .rename = [](const std::string& name) { return "param." + name; }});
    for (const std::string& name : c.names("input")) {
      if (name == "cu_seqlens") {
        sequences_.packing = Packing(c.tensor<std::int64_t, 1>("input.cu_seqlens"));
      } else if (name == "key_padding") {
        sequences_.padding.emplace(c.tensor<std::uint8_t, 2>("input.key_padding"));
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
    if (mode == RunMode::backward) return backward(x);
    if (mode == RunMode::whole) {
      if constexpr (StreamingLayer<L>) {
        auto state = start(x);
        report_.compare("output." + output_, borrow(call(layer_, sequences_, x, state)).copy());
        compare_state(report_, state);
        if (!case_.names("state_in").empty()) return;
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

  template <class X>
  auto start(const X& x) const {
    auto state = layer_.initial_state(sequences_.packing ? sequences_.packing->count() : view(x).extent(0));
    load_state(case_, "state_in", state);
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
    compare_state(report_, state);
  }
  // Tokens [at, at + length) of each row.
  template <class X>
  static X cut(const X& x, Index at, Index length) {
    const Shape shape = x.shape();
    auto extents = x.extents().to_array();
    extents[1] = length;
    X piece(typename X::extents_type(extents), uninitialized);
    const Index width = shape.size(2, shape.rank());
    for (Index b = 0; b < shape[0]; ++b)
      std::copy_n(x.data() + (b * shape[1] + at) * width, length * width, piece.data() + b * length * width);
    return piece;
  }
  static auto token(const DynTensor<T, 3>& piece) { return reshape(piece, piece.extent(0), piece.extent(2)); }
  static auto token(const DynTensor<std::int64_t, 2>& piece) {
    DynTensor<std::int64_t, 1> ids(piece.extent(0));
    std::copy_n(piece.data(), piece.size(), ids.data());
    return ids;
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
      const auto before = track(tape, start(plain));
      auto state = before;
      const auto y = call(layer_, sequences_, x, state);
      for_each_leaf(state, [&](const Path& path, const auto& leaf) {
        if constexpr (std::is_floating_point_v<typename std::remove_cvref_t<decltype(leaf)>::value_type>) {
          if (leaf.size() > 0)
            seeds.push_back(seed_of<T>(case_, "grad_state_out." + path.str(), leaf, transposed_in_files(path, leaf)));
        }
      });
      const Gradients gradients = finish(y);
      for_each_leaf(before, [&](const Path& path, const auto& leaf) {
        if constexpr (std::is_floating_point_v<typename std::remove_cvref_t<decltype(leaf)>::value_type>) {
          AnyTensor<T> g = gradients.of(leaf);
          if (g.present() && transposed_in_files(path, leaf)) g = swap_last_axes(g);
          report_.compare("grad_state_in." + path.str(), g);
        }
      });
    } else {
      finish(call(layer_, sequences_, x));
    }
  }

  const Case& case_;
  Report& report_;
  L layer_;
  Sequences sequences_;
  std::string input_, output_;
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
