#pragma once
// Checkpoint folders as Hugging Face writes them.

#include "ordo/nn/ssm/mamba.hpp"
#include "ordo/io/model.hpp"
#include "ordo/ops/loss.hpp"
#include "ordo/stack/causal_lm.hpp"
#include "report.hpp"

namespace conformance {

// A key that is absent or null has its default; "auto" counts as that for whole numbers.
inline Index whole_or(const JsonRef& config, std::string_view key, Index fallback) {
  const auto value = config.find(key);
  if (value && (*value)->is_string() && value->as_string() == "auto") return fallback;
  return config.get_or(key, fallback);
}

template <class T>
class MambaCheckpoint {
  using Model = CausalLm<Mamba<T>>;
  using Ids = DynTensor<std::int64_t, 2>;

 public:
  MambaCheckpoint(const std::filesystem::path& folder, const Json& json, const Case& c, Report& report) : case_(c), report_(report) {
    const JsonRef config = json.named("config.json");
    const std::string head = config.at("architectures").at(std::size_t{0}).as_string();
    if (head != "MambaForCausalLM" && head != "MambaModel") fail<ConfigError>("config.json: unknown architecture \"" + head + "\"");
    has_head_ = head == "MambaForCausalLM";
    const std::string act = config.get_or("hidden_act", std::string("silu"));
    if (act != "silu" && act != "swish") fail<ConfigError>("config.json: hidden_act: unknown value \"" + act + "\"");

    const TensorSource source = load_sharded(folder);
    typename Model::Config m;
    auto& mixer = m.mixers[0];
    m.vocab_size = config.get_or("vocab_size", Index{50280});
    m.model_dim = config.get_or("hidden_size", Index{768});
    m.num_layers = config.get_or("num_hidden_layers", Index{32});
    m.norm_eps = config.get_or("layer_norm_epsilon", 1e-5);
    const bool tied = config.get_or("tie_word_embeddings", true), head_in_file = source.contains("lm_head.weight");
    if (has_head_ && !tied && !head_in_file) fail<FileError>(source.file_name() + ": lm_head.weight is missing, and the embedding is not tied");
    m.tie_embeddings = !head_in_file;
    mixer.inner_dim = config.get_or("expand", Index{2}) * m.model_dim;
    mixer.state_dim = config.get_or("state_size", Index{16});
    mixer.conv_width = config.get_or("conv_kernel", Index{4});
    mixer.dt_rank = whole_or(config, "time_step_rank", 0);
    mixer.conv_bias = config.get_or("use_conv_bias", true);
    mixer.proj_bias = config.get_or("use_bias", false);
    Random random(1);
    model_ = Model(m, random);
    prefix_ = source.contains("backbone.embeddings.weight") ? "backbone." : "";
    load_model(source, model_, {.rename = [this](const std::string& name) { return name_in_file(name); }});

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
    const std::string output = has_head_ ? "output.logits" : "output.last_hidden_state";
    AnyTensor<T> y;
    for (const Group& group : groups()) {
      auto state = model_.initial_state(group.ids.extent(0));
      Index at = 0;  // among the real tokens of the group
      Index place = 0;
      for (const Index length : pieces(mode, ids_.extent(1))) {
        Index count = 0;  // real tokens of this piece
        while (at + count < static_cast<Index>(group.places.size()) && group.places[static_cast<std::size_t>(at + count)] < place + length) ++count;
        place += length;
        if (count == 0) continue;
        const Ids piece = columns(group.ids, at, count);
        put(y, group, at, mode == RunMode::whole ? head(model_.hidden(piece)) : mode == RunMode::step ? stepped(piece, state) : head(model_.hidden(piece, state)));
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
    if (!mask_.present()) {
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
  std::string name_in_file(const std::string& name) const {
    constexpr std::string_view ours = "backbone.";
    return name.starts_with(ours) ? prefix_ + name.substr(ours.size()) : name;
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
    return has_head_ ? model_.head(hidden) : hidden;
  }
  template <class S>
  DynTensor<T, 3> stepped(const Ids& piece, S& state) const {
    if (!has_head_) return model_.hidden(piece, state);  // step() gives logits; without a head a step is a piece of one token
    DynTensor<std::int64_t, 1> token(piece.extent(0));
    std::copy_n(piece.data(), piece.size(), token.data());
    const auto y = model_.step(token, state);
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
  void compare_masked(const std::string& name, const AnyTensor<T>& y) {
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
      if (mask_.data()[i] == 0) std::fill_n(expected.data() + i * width, width, 0.0);
    }
    report_.add(name, relative_error(expected.data(), y.data(), y.size()), case_.tolerance<T>(false));
  }

  void greedy(RunMode mode) {
    const auto expected = case_.tensor<std::int64_t, 2>("output.greedy_ids");
    Ids text = case_.tensor<std::int64_t, 2>("input.prompt_ids");
    if (text.extent(0) != 1 || expected.extent(0) != 1 || !has_head_) fail<FileError>("output.greedy_ids: expected one row of a model with a head");
    auto state = model_.initial_state(1);
    DynTensor<T, 3> y = model_(text, state);
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
        y = model_(text);
      } else {
        Ids next(Index{1}, Index{1});
        next.data()[0] = chosen;
        y = mode == RunMode::step ? stepped(next, state) : model_(next, state);
      }
    }
    report_.add("output.greedy_ids", static_cast<double>(wrong), 0.5);
  }

  void backward() {
    if (!has_head_) fail<UsageError>("the loss needs a model with a head");
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
      const auto sum = cross_entropy(model_(track(tape, group.ids)), targets, {.reduction = Reduction::sum});
      loss += static_cast<double>(sum.item());
      gradients.add(tape.backward(sum, AnyTensor<T>(Shape{}, *upstream.data() / static_cast<T>(counted))));
    }
    if (case_.has("output.loss")) {
      const AnyTensor<double> expected = case_.read<double>("output.loss");
      const double mean = loss / static_cast<double>(counted);
      report_.add("output.loss", relative_error(expected.data(), &mean, 1), case_.tolerance<T>(false));
    }
    for_each_leaf(model_, [&](const Path& path, const auto& p) { report_.compare("grad_param." + name_in_file(path.str()), gradients.of(p)); });
  }

  const Case& case_;
  Report& report_;
  Model model_;
  bool has_head_ = true;
  std::string prefix_;
  Ids ids_;
  AnyTensor<std::uint8_t> mask_;
};

template <class T>
void run_mamba(const std::filesystem::path& folder, const Json& config, const Case& c, RunMode mode, Report& report) {
  MambaCheckpoint<T>(folder, config, c, report).run(mode);
}

// How to run a checkpoint of some model_type; null if it is unknown.
template <class T>
CheckpointFunction find_checkpoint_of(std::string_view model_type) {
  return model_type == "mamba" ? run_mamba<T> : nullptr;
}

}  // namespace conformance
