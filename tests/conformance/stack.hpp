#pragma once
// Runs blocks and the models made of them: a sequence, and beside it masks, token types, a memory or a source.

#include "layers.hpp"
#include "ordo/ops/loss.hpp"
#include "ordo/stack/encoder_decoder.hpp"
#include "ordo/stack/mixers.hpp"
#include "ordo/stack/transformer.hpp"

namespace conformance {

RunFunction find_stack_model_of(std::string_view name, float);
RunFunction find_stack_model_of(std::string_view name, double);
RunFunction find_transformer_of(std::string_view name, float);
RunFunction find_transformer_of(std::string_view name, double);

// An object without one of its keys.
inline Json without(const Json& object, std::string_view key) {
  Json rest = Json::object();
  for (const auto& [name, value] : object.members()) {
    if (name != key) rest.set(name, value);
  }
  return rest;
}

template <class Model>
Model make_model(const Case& c, const Json& json) {
  typename Model::Config config;
  read_config(json, config);
  Random random(1);
  Model model(config, random);
  load_model(c.source(), model, {.ignore = [](const std::string& name) { return !name.starts_with("param."); },
                                 .rename = [](const std::string& name) { return "param." + name; }});
  return model;
}

// What is given beside the sequence; in a backward pass, tracked.
template <Mode M, class T>
struct Beside {
  Value<M, T, 3> memory;
  CrossMemory<M, T> remembered;
  Inputs<M, T> inputs;
};
template <class T>
Visibility visibility_of(const Case& c) {
  Visibility v;
  v.key_padding = c.read_if<std::uint8_t>("input.key_padding");
  v.mask = c.read_if<std::uint8_t>("input.mask");
  v.prefix_length = c.read_if<std::int64_t>("input.prefix_length");
  return v;
}
template <class V>
V with_mode(Tape* tape, const DynTensor<typename V::value_type, 3>& x) {
  if constexpr (ordo::detail::is_tracked<V>) {
    return track(*tape, x);
  } else {
    static_cast<void>(tape);
    return x;
  }
}

// A subject says how a name is called: `model`, its names, beside<M>(tape), call(x, beside[, state]), step(x, beside, state).
//
// A block or a stack of blocks over vectors.
template <class Layer>
struct VectorSubject {
  using Model = Layer;
  using T = typename Model::value_type;
  using X = DynTensor<T, 3>;
  static constexpr const char *sequence = "x", *output = "y", *extra = "memory";
  Model model;
  Visibility visibility;
  DynTensor<T, 3> memory;
  AnyTensor<std::uint8_t> memory_padding;
  bool has_memory, loss = false;

  explicit VectorSubject(const Case& c)
      : model(make_model<Model>(c, *c.config())), visibility(visibility_of<T>(c)), has_memory(c.has("input.memory")) {
    c.require_inputs({"x", "memory", "memory_key_padding", "key_padding", "prefix_length", "mask"});
    if (has_memory) memory = c.tensor<T, 3>("input.memory");
    memory_padding = c.read_if<std::uint8_t>("input.memory_key_padding");
  }
  template <Mode M>
  void beside(Tape* tape, Beside<M, T>& b) const {
    b.inputs.visibility = visibility;
    if (!has_memory) return;
    b.memory = with_mode<Value<M, T, 3>>(tape, memory);
    b.remembered = model.remember(b.memory, memory_padding);
    b.inputs.memory = &b.remembered;
  }
  bool streams() const {
    if (!ordo::detail::empty(visibility)) return false;
    return model.causal();
  }
  template <class V, Mode M, class... S>
  auto call(const V& x, const Beside<M, T>& b, S&... state) const {
    return model(x, state..., b.inputs);
  }
  template <class V, Mode M, class S>
  auto step(const V& x, const Beside<M, T>& b, S& state) const {
    return model.step(x, state, b.inputs);
  }
};

// torch.nn.Transformer: a source that is encoded, a target.
template <class T>
struct TransformerSubject {
  using Model = Transformer<T>;
  using X = DynTensor<T, 3>;
  static constexpr const char *sequence = "target", *output = "y", *extra = "source";
  Model model;
  DynTensor<T, 3> source;
  AnyTensor<std::uint8_t> padding;
  bool loss = false;

  explicit TransformerSubject(const Case& c)
      : model(make_model<Model>(c, *c.config())), source(c.tensor<T, 3>("input.source")), padding(c.read_if<std::uint8_t>("input.source_key_padding")) {
    c.require_inputs({"source", "source_key_padding", "target"});
  }
  template <Mode M>
  void beside(Tape* tape, Beside<M, T>& b) const {
    b.memory = with_mode<Value<M, T, 3>>(tape, source);
    b.remembered = model.remember(b.memory, padding);
  }
  bool streams() const { return true; }
  template <class V, Mode M, class... S>
  auto call(const V& x, const Beside<M, T>& b, S&... state) const {
    return model(x, state..., b.remembered);
  }
  template <class V, Mode M, class S>
  auto step(const V& x, const Beside<M, T>& b, S& state) const {
    return model.step(x, state, b.remembered);
  }
};

template <class T>
struct LanguageModelSubject {
  using Model = CausalLm<AnyMixer<T>, FeedForward<T>, SoftmaxAttention<T>>;
  using X = DynTensor<std::int64_t, 2>;
  static constexpr const char *sequence = "input_ids", *output = "logits", *extra = nullptr;
  Model model;
  Visibility visibility;
  bool loss;

  explicit LanguageModelSubject(const Case& c)
      : model(make_model<Model>(c, without(*c.config(), "loss"))), visibility(visibility_of<T>(c)), loss(c.config().get_or("loss", false)) {
    c.require_inputs({"input_ids", "prefix_length", "targets"});
  }
  template <Mode M>
  void beside(Tape*, Beside<M, T>& b) const {
    b.inputs.visibility = visibility;
  }
  bool streams() const { return ordo::detail::empty(visibility) && !loss; }
  template <class V, Mode M, class... S>
  auto call(const V& x, const Beside<M, T>& b, S&... state) const {
    return model(x, state..., b.inputs);
  }
  template <class V, Mode M, class S>
  auto step(const V& x, const Beside<M, T>& b, S& state) const {
    return model.step(x, state, b.inputs);
  }
};

template <class T>
struct EncoderSubject {
  using Model = Encoder<AnyMixer<T>, FeedForward<T>, SoftmaxAttention<T>>;
  using X = DynTensor<std::int64_t, 2>;
  static constexpr const char *sequence = "input_ids", *output = "hidden", *extra = nullptr;
  Model model;
  Visibility visibility;
  AnyTensor<std::int32_t> token_types;
  bool loss = false;

  explicit EncoderSubject(const Case& c)
      : model(make_model<Model>(c, *c.config())), visibility(visibility_of<T>(c)), token_types(c.read_if<std::int32_t>("input.token_types")) {
    c.require_inputs({"input_ids", "key_padding", "token_types"});
  }
  template <Mode M>
  void beside(Tape*, Beside<M, T>& b) const {
    b.inputs.visibility = visibility;
  }
  bool streams() const { return false; }
  template <class V, Mode M>
  auto call(const V& x, const Beside<M, T>& b) const {
    return model(x, b.inputs, token_types);
  }
};

template <class T>
struct EncoderDecoderSubject {
  using Model = EncoderDecoder<AnyMixer<T>, FeedForward<T>, SoftmaxAttention<T>>;
  using X = DynTensor<std::int64_t, 2>;
  static constexpr const char *sequence = "target_ids", *output = "logits", *extra = nullptr;
  Model model;
  DynTensor<std::int64_t, 2> source;
  AnyTensor<std::uint8_t> padding;
  bool loss;

  explicit EncoderDecoderSubject(const Case& c)
      : model(make_model<Model>(c, without(*c.config(), "loss"))), source(c.tensor<std::int64_t, 2>("input.source_ids")),
        padding(c.read_if<std::uint8_t>("input.source_key_padding")), loss(c.config().get_or("loss", false)) {
    c.require_inputs({"source_ids", "source_key_padding", "target_ids", "targets"});
  }
  template <Mode M>
  void beside(Tape* tape, Beside<M, T>& b) const {
    if constexpr (M == Mode::plain) {
      b.remembered = model.remember(source, padding);
    } else {
      b.remembered = model.remember(track(*tape, source), padding);
    }
  }
  bool streams() const { return !loss; }
  template <class V, Mode M, class... S>
  auto call(const V& x, const Beside<M, T>& b, S&... state) const {
    return model(x, state..., b.remembered);
  }
  template <class V, Mode M, class S>
  auto step(const V& x, const Beside<M, T>& b, S& state) const {
    return model.step(x, state, b.remembered);
  }
};

template <class Subject>
class StackRun {
  using Model = typename Subject::Model;
  using X = typename Subject::X;
  using T = typename Model::value_type;
  static constexpr bool can_stream = requires(const Model& m) { m.initial_state(Index{1}); } && !std::is_same_v<Subject, EncoderSubject<T>>;

 public:
  StackRun(const Case& c, Report& report)
      : case_(c), report_(report), subject_(c), x_(c.tensor<typename X::value_type, X::rank()>(input_name())), output_("output." + std::string(Subject::output)) {}

  void run(RunMode mode) {
    if (mode == RunMode::backward) return backward();
    Beside<Mode::plain, T> beside;
    subject_.beside(nullptr, beside);
    if (mode != RunMode::whole) return stream(mode, beside);
    if constexpr (can_stream) {
      if (subject_.streams()) {
        auto state = start();
        report_.compare(output_, borrow(subject_.call(x_, beside, state)).copy());
        compare_state<OfMixers>(report_, state);
        if (!case_.names("state_in").empty()) return;
      }
    }
    const auto y = subject_.call(x_, beside);
    report_.compare(output_, borrow(y).copy());
    if constexpr (X::rank() == 2) {
      if (subject_.loss) report_.compare("output.loss", borrow(cross_entropy(y, targets())).copy());
    }
  }

 private:
  static std::string input_name() { return "input." + std::string(Subject::sequence); }
  auto targets() const { return case_.tensor<std::int64_t, 2>("input.targets"); }
  auto start() const {
    auto state = subject_.model.initial_state(x_.extent(0));
    load_state<OfMixers>(case_, "state_in", state);
    return state;
  }

  void stream(RunMode mode, const Beside<Mode::plain, T>& beside) {
    if constexpr (can_stream) {
      if (!subject_.streams()) fail<UsageError>("this has no stream");
      auto state = start();
      AnyTensor<T> y;
      Index at = 0;
      for (const Index length : pieces(mode, x_.extent(1))) {
        const X piece = cut(x_, at, length);
        const AnyTensor<T> part = mode == RunMode::step ? borrow(subject_.step(token(piece), beside, state)).copy() : borrow(subject_.call(piece, beside, state)).copy();
        const Index width = part.shape().back(), batch = x_.extent(0);
        if (!y.present()) y = AnyTensor<T>(Shape{batch, x_.extent(1), width});
        for (Index b = 0; b < batch; ++b)
          std::copy_n(part.data() + b * length * width, length * width, y.data() + (b * x_.extent(1) + at) * width);
        at += length;
      }
      report_.compare(output_, y);
      compare_state<OfMixers>(report_, state);
    } else {
      static_cast<void>(mode);
      static_cast<void>(beside);
      fail<UsageError>("this has no stream");
    }
  }

  void backward() {
    Tape tape;
    const auto x = track(tape, x_);
    Beside<Mode::recorded, T> beside;
    subject_.beside(&tape, beside);
    std::vector<Tape::Seed> seeds;
    const auto finish = [&](const auto& y) {
      report_.compare(output_, y.var().value);
      bool judged = false;
      if constexpr (X::rank() == 2) {
        if (subject_.loss) {
          const auto loss = cross_entropy(y, targets());
          report_.compare("output.loss", loss.var().value);
          seeds.push_back(seed_of<T>(case_, "grad_output.loss", loss));
          judged = true;
        }
      }
      if (!judged) seeds.push_back(seed_of<T>(case_, "grad_" + output_, y));
      Gradients gradients = tape.backward(seeds);
      if constexpr (X::rank() == 3) report_.compare("grad_" + input_name(), gradients.of(x));
      if constexpr (Subject::extra != nullptr) {
        const std::string name = std::string("grad_input.") + Subject::extra;
        if (case_.has(name)) report_.compare(name, gradients.of(beside.memory));
      }
      compare_parameters(report_, subject_.model, gradients);
      return gradients;
    };
    if constexpr (can_stream) {
      if (subject_.streams()) {
        const auto before = track(tape, start());
        auto state = before;
        const auto y = subject_.call(x, beside, state);
        for_each_leaf(state, [&](const Path& path, const auto& leaf) {
          if constexpr (std::is_floating_point_v<typename std::remove_cvref_t<decltype(leaf)>::value_type>) {
            if (leaf.size() > 0) seeds.push_back(seed_of<T>(case_, "grad_state_out." + path.str(), leaf, swapped_in_files<OfMixers>(path, leaf)));
          }
        });
        const Gradients gradients = finish(y);
        for_each_leaf(before, [&](const Path& path, const auto& leaf) {
          if constexpr (std::is_floating_point_v<typename std::remove_cvref_t<decltype(leaf)>::value_type>) {
            AnyTensor<T> g = gradients.of(leaf);
            if (const Axes axes = swapped_in_files<OfMixers>(path, leaf); axes && g.present()) g = axes.swap(g);
            report_.compare("grad_state_in." + path.str(), g);
          }
        });
        return;
      }
    }
    finish(subject_.call(x, beside));
  }

  const Case& case_;
  Report& report_;
  Subject subject_;
  X x_;
  std::string output_;
};

template <class Subject>
void run_stack(const Case& c, RunMode mode, Report& report) {
  StackRun<Subject>(c, report).run(mode);
}

template <class T>
RunFunction find_transformer_of_type(std::string_view name) {
  if (name == "transformer_encoder_layer") return run_stack<VectorSubject<TransformerEncoderLayer<T>>>;
  if (name == "transformer_decoder_layer") return run_stack<VectorSubject<TransformerDecoderLayer<T>>>;
  if (name == "transformer_encoder") return run_stack<VectorSubject<TransformerEncoder<T>>>;
  if (name == "transformer_decoder") return run_stack<VectorSubject<TransformerDecoder<T>>>;
  if (name == "transformer") return run_stack<TransformerSubject<T>>;
  return nullptr;
}

template <class T>
RunFunction find_stack_model_of_type(std::string_view name) {
  if (name == "block") return run_stack<VectorSubject<Block<AnyMixer<T>, FeedForward<T>, SoftmaxAttention<T>>>>;
  if (name == "encoder") return run_stack<EncoderSubject<T>>;
  if (name == "causal_lm") return run_stack<LanguageModelSubject<T>>;
  if (name == "encoder_decoder") return run_stack<EncoderDecoderSubject<T>>;
  return nullptr;
}

}  // namespace conformance
