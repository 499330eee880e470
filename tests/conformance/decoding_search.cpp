// Searches over a table model, speculative verification, CTC.

#include "decoding.hpp"
#include "ordo/decode/beam_search.hpp"
#include "ordo/decode/ctc.hpp"
#include "ordo/decode/speculative.hpp"

namespace conformance {
namespace {

// logits of the next token = table[last token] + position_table[length of history].
template <class T>
class TableScorer {
 public:
  explicit TableScorer(const Case& c)
      : table_(c.tensor<T, 2>("input.table")), position_table_(c.tensor<T, 2>("input.position_table")) {}

  DynTensor<T, 2> start(const DynTensor<std::int32_t, 2>& prompts) {
    length_ = prompts.extent(1);
    std::vector<std::int32_t> last;
    for (Index b = 0; b < prompts.extent(0); ++b) last.push_back(prompts(b, length_ - 1));
    return logits(last);
  }
  DynTensor<T, 2> advance(std::span<const std::int32_t> tokens, std::span<const Index>) {
    ++length_;
    return logits(tokens);
  }

 private:
  DynTensor<T, 2> logits(std::span<const std::int32_t> last) const {
    const Index vocab = table_.extent(1);
    DynTensor<T, 2> y(static_cast<Index>(last.size()), vocab);
    for (Index i = 0; i < y.extent(0); ++i) {
      for (Index v = 0; v < vocab; ++v) y(i, v) = table_(last[static_cast<std::size_t>(i)], v) + position_table_(length_, v);
    }
    return y;
  }
  DynTensor<T, 2> table_, position_table_;
  Index length_ = 0;
};

struct SearchCaseConfig {
  BeamSearchConfig search;
  std::vector<std::vector<std::int32_t>> allowed_sequences;
};

SearchCaseConfig read_search_config(const JsonRef& json, bool beams, bool groups) {
  SearchCaseConfig c;
  std::vector<std::string> known;
  const auto read = [&](const char* key, auto& field) {
    known.emplace_back(key);
    if (const auto given = json.find(key)) detail::read_field(*given, field);
  };
  BeamSearchConfig& s = c.search;
  read("end_tokens", s.end_tokens);
  read("pad_token", s.pad_token);
  read("max_new_tokens", s.max_new_tokens);
  read("min_new_tokens", s.processing.min_new_tokens);
  read("repetition_penalty", s.processing.repetition_penalty);
  read("no_repeat_ngram_size", s.processing.no_repeat_ngram_size);
  read("suppress_tokens", s.processing.suppress_tokens);
  read("bad_sequences", s.processing.bad_sequences);
  if (beams) {
    read("num_beams", s.num_beams);
    read("num_return_sequences", s.num_return_sequences);
    read("length_penalty", s.length_penalty);
    known.emplace_back("early_stopping");
    if (const auto given = json.find("early_stopping"); given && !(*given)->is_null()) {
      if ((*given)->is_string()) {
        if (given->as_string() != "never") fail<ConfigError>("config: early_stopping: unknown name \"" + given->as_string() + "\"");
        s.early_stopping = EarlyStopping::never;
      } else {
        s.early_stopping = given->as<bool>() ? EarlyStopping::yes : EarlyStopping::no;
      }
    }
    if (groups) {
      read("num_beam_groups", s.num_beam_groups);
      read("diversity_penalty", s.diversity_penalty);
    } else {
      read("allowed_sequences", c.allowed_sequences);
    }
  }
  for (const auto& [key, value] : json->members()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) fail<ConfigError>("config: unknown key \"" + key + "\"");
  }
  for (const char* key : {"end_tokens", "pad_token", "max_new_tokens"}) static_cast<void>(json.at(key));
  return c;
}

// After the prompt: the next ids of those sequences that begin with what has been generated; the pad token if none does.
void set_allowed_sequences(SearchCaseConfig& c, Index prompt_length) {
  c.search.constraint = [&c, prompt_length](Index, std::span<const std::int32_t> history, std::span<std::uint8_t> allowed) {
    const auto generated = history.subspan(static_cast<std::size_t>(prompt_length));
    bool any = false;
    for (const auto& s : c.allowed_sequences) {
      if (s.size() <= generated.size() || !std::equal(generated.begin(), generated.end(), s.begin())) continue;
      allowed[static_cast<std::size_t>(s[generated.size()])] = 1;
      any = true;
    }
    if (!any) allowed[static_cast<std::size_t>(c.search.pad_token)] = 1;
  };
}

enum class Search { greedy, beam, diverse };

template <Search S, class T>
void run_search(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("a search runs whole");
  c.require_inputs({"table", "position_table", "ids", "allowed"});
  const auto prompts = c.tensor<std::int32_t, 2>("input.ids");
  SearchCaseConfig config = read_search_config(c.config(), S != Search::greedy, S == Search::diverse);
  const AnyTensor<std::int32_t> table = c.read_if<std::int32_t>("input.allowed");
  if (!config.allowed_sequences.empty()) {
    if (table.present()) fail<ConfigError>("config: allowed_sequences beside input.allowed");
    set_allowed_sequences(config, prompts.extent(1));
  }
  if (table.present()) {
    config.search.constraint = [&table](Index, std::span<const std::int32_t> history, std::span<std::uint8_t> allowed) {
      const std::int32_t* row = table.data() + history.back() * table.extent(1);
      for (std::size_t i = 0; i < allowed.size(); ++i) allowed[i] = row[i] != 0;
    };
  }
  TableScorer<T> scorer(c);
  if constexpr (S == Search::greedy) {
    const SearchResult r = greedy_search(scorer, prompts, config.search);
    compare_integers(c, "output.ids", borrow(r.ids).reshaped(Shape{r.ids.extent(0), r.ids.extent(2)}), report);
    compare_integers(c, "output.lengths", borrow(r.lengths).reshaped(Shape{r.lengths.extent(0)}), report);
  } else {
    const SearchResult r = S == Search::beam ? beam_search(scorer, prompts, config.search) : diverse_beam_search(scorer, prompts, config.search);
    compare_integers(c, "output.ids", borrow(r.ids), report);
    compare_integers(c, "output.lengths", borrow(r.lengths), report);
    AnyTensor<T> scores(r.scores.shape());
    for (Index i = 0; i < r.scores.size(); ++i) scores.data()[i] = static_cast<T>(r.scores.data()[i]);
    report.compare("output.scores", scores);
  }
}

template <class T>
void run_speculative_verify(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("speculative verification runs whole");
  c.require_inputs({"target_probabilities", "draft_probabilities", "draft_ids", "uniform"});
  if (!c.config()->members().empty()) fail<ConfigError>("config: expected no keys");
  const auto target = c.tensor<T, 3>("input.target_probabilities"), draft = c.tensor<T, 3>("input.draft_probabilities");
  const auto ids = c.tensor<std::int32_t, 2>("input.draft_ids");
  const auto uniform = c.tensor<T, 2>("input.uniform");
  const Index batch = target.extent(0), drafted = draft.extent(1), vocab = target.extent(2);
  AnyTensor<std::int32_t> accepted(Shape{batch});
  AnyTensor<T> next(Shape{batch, vocab});
  const auto matrix = [](const DynTensor<T, 3>& x, Index b) {
    DynTensor<T, 2> m(x.extent(1), x.extent(2));
    std::copy_n(x.data() + b * m.size(), m.size(), m.data());
    return m;
  };
  for (Index b = 0; b < batch; ++b) {
    const auto d = static_cast<std::size_t>(drafted);
    const auto r = speculative_verify(matrix(target, b), matrix(draft, b), std::span(ids.data() + b * drafted, d), std::span(uniform.data() + b * drafted, d));
    accepted.data()[b] = static_cast<std::int32_t>(r.accepted);
    std::copy_n(r.next_probabilities.data(), vocab, next.data() + b * vocab);
  }
  compare_integers(c, "output.accepted", accepted, report);
  report.compare("output.next_probabilities", next);
}

struct CtcCaseConfig {
  std::int32_t blank = -1;
  Index num_beams = 0;
  bool beam = false;
  template <class Self, class F>
  static void visit(Self& s, F&& f) {
    f("blank", s.blank);
    if (s.beam) f("num_beams", s.num_beams);
  }
};

template <bool Beam, class T>
void run_ctc(const Case& c, RunMode mode, Report& report) {
  if (mode != RunMode::whole) fail<UsageError>("CTC decoding runs whole");
  CtcCaseConfig config;
  config.beam = Beam;
  read_config(c.config(), config);
  const auto logits = c.tensor<T, 3>("input.logits");
  const Index batch = logits.extent(0), length = logits.extent(1), vocab = logits.extent(2);
  if (Beam) c.require_inputs({"logits"});
  c.require_inputs({"logits", "input_lengths"});
  std::vector<std::vector<std::int32_t>> labels;
  AnyTensor<T> scores(Shape{batch});
  AnyTensor<std::int32_t> lengths(Shape{batch});
  std::size_t longest = 0;
  for (Index b = 0; b < batch; ++b) {
    Index frames = length;
    if constexpr (!Beam) frames = c.read<std::int32_t>("input.input_lengths").data()[b];
    if (frames < 0 || frames > length) fail<FileError>("input.input_lengths: " + std::to_string(frames) + " of " + std::to_string(length));
    DynTensor<T, 2> x(frames, vocab);
    std::copy_n(logits.data() + b * length * vocab, x.size(), x.data());
    if constexpr (Beam) {
      CtcResult r = ctc_beam_search(x, config.blank, config.num_beams);
      labels.push_back(std::move(r.labels));
      scores.data()[b] = static_cast<T>(r.score);
    } else {
      labels.push_back(ctc_greedy(x, config.blank));
    }
    lengths.data()[b] = static_cast<std::int32_t>(labels.back().size());
    longest = std::max(longest, labels.back().size());
  }
  AnyTensor<std::int32_t> ids(Shape{batch, static_cast<Index>(longest)}, -1);
  for (Index b = 0; b < batch; ++b) {
    const auto& row = labels[static_cast<std::size_t>(b)];
    std::copy(row.begin(), row.end(), ids.data() + b * static_cast<Index>(longest));
  }
  compare_integers(c, "output.ids", ids, report);
  compare_integers(c, "output.lengths", lengths, report);
  if (Beam) report.compare("output.scores", scores);
}

template <Search S>
Runner search() {
  return {run_search<S, float>, run_search<S, double>};
}

}  // namespace

std::optional<Runner> find_search(std::string_view name) {
  if (name == "greedy_search") return search<Search::greedy>();
  if (name == "beam_search") return search<Search::beam>();
  if (name == "diverse_beam_search") return search<Search::diverse>();
  if (name == "speculative_verify") return Runner{run_speculative_verify<float>, run_speculative_verify<double>};
  if (name == "ctc_greedy") return Runner{run_ctc<false, float>, run_ctc<false, double>};
  if (name == "ctc_beam_search") return Runner{run_ctc<true, float>, run_ctc<true, double>};
  return std::nullopt;
}

}  // namespace conformance
