#pragma once
// Checkpoint folders as Hugging Face writes them.

#include "ordo/io/pretrained.hpp"
#include "ordo/models/gpt2.hpp"
#include "ordo/models/llama.hpp"
#include "ordo/models/mamba.hpp"
#include "ordo/ops/loss.hpp"
#include "kernels.hpp"
#include "report.hpp"

namespace conformance {

// Model: one of the models under config.json.
template <class Model>
class CheckpointRun {
  using T = typename Model::value_type;
  using Ids = DynTensor<std::int64_t, 2>;
  // What a mask hides is as if it were absent (recurrent layers), or keeps its place and is not seen as a key (attention).
  static constexpr bool drops_hidden = !requires(const Model& m) { m.backbone().stack().layers()[0].mixer().config().num_heads; };

 public:
  CheckpointRun(const std::filesystem::path& folder, const Case& c, Report& report) : case_(c), report_(report), loaded_(load_pretrained<Model>(folder)) {
    c.require_inputs({"input_ids", "attention_mask", "labels", "prompt_ids"});
    ids_ = c.tensor<std::int64_t, 2>("input.input_ids");
    if (c.has("input.attention_mask")) {
      mask_ = c.read<std::uint8_t>("input.attention_mask");
      if (!(mask_.shape() == ids_.shape())) fail<FileError>("input.attention_mask: expected the shape of input.input_ids");
    }
  }

  void run(RunMode mode) {
    if (mode == RunMode::backward) {
      backward();
      return;
    }
    const std::string output = loaded_.has_head ? "output.logits" : "output.last_hidden_state";
    AnyTensor<T> y;
    for (const Group& group : groups()) {
      auto state = model().initial_state(group.ids.extent(0));
      Index at = 0;  // among the real tokens of the group
      Index place = 0;
      for (const Index length : pieces(mode, ids_.extent(1))) {
        Index count = 0;  // real tokens of this piece
        while (at + count < static_cast<Index>(group.places.size()) && group.places[static_cast<std::size_t>(at + count)] < place + length) ++count;
        place += length;
        if (count == 0) continue;
        const Ids piece = columns(group.ids, at, count);
        const Inputs<Mode::plain, T> inputs = inputs_of<Mode::plain>(at + count);
        put(y, group, at, mode == RunMode::whole ? head(model().hidden(piece, inputs)) : mode == RunMode::step ? stepped(piece, state, inputs) : head(model().hidden(piece, state, inputs)));
        at += count;
      }
    }
    compare_masked(output, y);
    const auto& modes = case_.modes();
    if (std::find(modes.begin(), modes.end(), RunMode::backward) != modes.end()) report_.leave_out("output.loss");
    if (case_.has("output.greedy_ids")) greedy(mode);
  }

 private:
  // Rows that run together: all of them, or, where a mask hides tokens, each alone with its real tokens only (a token that the
  // mask hides is as if it were absent).
  struct Group {
    Index row = 0;
    Ids ids;
    std::vector<Index> places;  // of its tokens in the row
  };
  std::vector<Group> groups() const {
    std::vector<Group> all;
    const Index batch = ids_.extent(0), length = ids_.extent(1);
    if (!mask_.present() || !drops_hidden) {
      Group g{0, ids_, {}};
      for (Index t = 0; t < length; ++t) g.places.push_back(t);
      all.push_back(std::move(g));
      return all;
    }
    for (Index b = 0; b < batch; ++b) {
      Group g{b, {}, {}};
      for (Index t = 0; t < length; ++t) {
        if (mask_.data()[b * length + t] != 0) g.places.push_back(t);
      }
      g.ids = Ids(Index{1}, static_cast<Index>(g.places.size()));
      for (std::size_t i = 0; i < g.places.size(); ++i) g.ids.data()[i] = ids_(b, g.places[i]);
      if (!g.places.empty()) all.push_back(std::move(g));
    }
    return all;
  }
  const Model& model() const { return loaded_.model; }
  // The first `count` tokens as keys.
  template <Mode M>
  Inputs<M, T> inputs_of(Index count) const {
    Inputs<M, T> inputs;
    if (drops_hidden || !mask_.present()) return inputs;
    const Index batch = ids_.extent(0), length = ids_.extent(1);
    AnyTensor<std::uint8_t> keys(Shape{batch, count});
    for (Index b = 0; b < batch; ++b) std::copy_n(mask_.data() + b * length, count, keys.data() + b * count);
    inputs.visibility.key_padding = keys;
    return inputs;
  }

  static Ids columns(const Ids& ids, Index at, Index count) {
    Ids piece(ids.extent(0), count);
    for (Index b = 0; b < ids.extent(0); ++b) {
      for (Index i = 0; i < count; ++i) piece(b, i) = ids(b, at + i);
    }
    return piece;
  }
  template <class H>
  auto head(const H& hidden) const {
    return loaded_.has_head ? model().head(hidden) : hidden;
  }
  template <class S>
  DynTensor<T, 3> stepped(const Ids& piece, S& state, const Inputs<Mode::plain, T>& inputs = {}) const {
    if (!loaded_.has_head) return model().hidden(piece, state, inputs);  // step() gives logits; without a head a step is a piece of one token
    DynTensor<std::int64_t, 1> token(piece.extent(0));
    std::copy_n(piece.data(), piece.size(), token.data());
    const auto y = model().step(token, state, inputs);
    return reshape(y, y.extent(0), Index{1}, y.extent(1));
  }
  void put(AnyTensor<T>& y, const Group& group, Index at, const DynTensor<T, 3>& part) const {
    const Index length = ids_.extent(1), width = part.extent(2), count = part.extent(1);
    if (!y.present()) y = AnyTensor<T>(Shape{ids_.extent(0), length, width}, T{0});
    for (Index b = 0; b < part.extent(0); ++b) {
      for (Index i = 0; i < count; ++i) {
        const Index place = group.places[static_cast<std::size_t>(at + i)];
        std::copy_n(part.data() + (b * count + i) * width, width, y.data() + ((group.row + b) * length + place) * width);
      }
    }
  }
  // Padded outputs count as zero on both sides.
  void compare_masked(const std::string& name, AnyTensor<T> y) {
    if (!mask_.present() || !case_.has(name)) {
      report_.compare(name, y);
      return;
    }
    AnyTensor<double> expected = case_.read<double>(name);
    if (!y.present() || !(y.shape() == expected.shape())) {
      report_.fail_with(name + ": expected shape " + ordo::to_string(expected.shape()));
      return;
    }
    const Index width = expected.shape().back();
    for (Index i = 0; i < mask_.size(); ++i) {
      if (mask_.data()[i] != 0) continue;
      std::fill_n(expected.data() + i * width, width, 0.0);
      std::fill_n(y.data() + i * width, width, T{0});
    }
    report_.add(name, relative_error(expected.data(), y.data(), y.size()), case_.tolerance<T>(false));
  }

  void greedy(RunMode mode) {
    const auto expected = case_.tensor<std::int64_t, 2>("output.greedy_ids");
    Ids text = case_.tensor<std::int64_t, 2>("input.prompt_ids");
    if (text.extent(0) != 1 || expected.extent(0) != 1 || !loaded_.has_head) fail<FileError>("output.greedy_ids: expected one row of a model with a head");
    auto state = model().initial_state(1);
    DynTensor<T, 3> y = model()(text, state);
    Index wrong = 0;
    for (Index i = 0; i < expected.size(); ++i) {
      const Index vocab = y.extent(2);
      const T* last = y.data() + (y.extent(1) - 1) * vocab;
      const auto chosen = static_cast<std::int64_t>(std::max_element(last, last + vocab) - last);
      if (chosen != expected.data()[i]) ++wrong;
      if (mode == RunMode::whole) {  // the whole text again for each token
        Ids longer(Index{1}, text.extent(1) + 1);
        std::copy_n(text.data(), text.size(), longer.data());
        longer.data()[text.size()] = chosen;
        text = std::move(longer);
        y = model()(text);
      } else {
        Ids next(Index{1}, Index{1});
        next.data()[0] = chosen;
        y = mode == RunMode::step ? stepped(next, state) : model()(next, state);
      }
    }
    report_.add("output.greedy_ids", static_cast<double>(wrong), 0.5);
  }

  void backward() {
    if (!loaded_.has_head) fail<UsageError>("the loss needs a model with a head");
    const auto labels = case_.tensor<std::int64_t, 2>("input.labels");
    const Index length = ids_.extent(1);
    const auto label = [&](Index row, Index place) { return place + 1 < length ? labels(row, place + 1) : std::int64_t{-100}; };
    Index counted = 0;
    for (Index b = 0; b < labels.extent(0); ++b) {
      for (Index t = 0; t < length; ++t) counted += label(b, t) != -100;
    }
    if (counted == 0) fail<FileError>("input.labels: no label counts");
    const AnyTensor<T> upstream = case_.read<T>("grad_output.loss");
    double loss = 0;
    Gradients gradients;
    for (const Group& group : groups()) {
      Ids targets(group.ids.extent(0), group.ids.extent(1));
      for (Index b = 0; b < targets.extent(0); ++b) {
        for (Index i = 0; i < targets.extent(1); ++i) targets(b, i) = label(group.row + b, group.places[static_cast<std::size_t>(i)]);
      }
      Tape tape;
      const auto sum = cross_entropy(model()(track(tape, group.ids), inputs_of<Mode::recorded>(length)), targets, {.reduction = Reduction::sum});
      loss += static_cast<double>(sum.item());
      gradients.add(tape.backward(sum, AnyTensor<T>(Shape{}, *upstream.data() / static_cast<T>(counted))));
    }
    if (case_.has("output.loss")) {
      const AnyTensor<double> expected = case_.read<double>("output.loss");
      const double mean = loss / static_cast<double>(counted);
      report_.add("output.loss", relative_error(expected.data(), &mean, 1), case_.tolerance<T>(false));
    }
    for (const auto& [name, gradient] : in_file_layout<T>(model(), loaded_.names, [&](const auto& p) { return gradients.of(p); })) {
      report_.compare("grad_param." + name, gradient);
    }
  }

  const Case& case_;
  Report& report_;
  Pretrained<Model> loaded_;
  Ids ids_;
  AnyTensor<std::uint8_t> mask_;
};

template <class Model>
void run_checkpoint(const std::filesystem::path& folder, const Json&, const Case& c, RunMode mode, Report& report) {
  CheckpointRun<Model>(folder, c, report).run(mode);
}

// How to run a checkpoint of some model_type; null if it is unknown.
template <class T>
CheckpointFunction find_checkpoint_of(std::string_view model_type) {
  if (model_type == "gpt2") return run_checkpoint<Gpt2<T>>;
  if (model_type == "llama") return run_checkpoint<Llama<T>>;
  if (model_type == "mamba") return run_checkpoint<MambaHub<T>>;
  return nullptr;
}

}  // namespace conformance
